"""The arguments of the two commands. Imports nothing of what they do, since a relay that serves never does it."""

from pathlib import Path
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8701"
KEY_VARIABLE = "HALYARD_KEY"


def add_commands(commands: Any) -> None:
    """Add the commands to a parser's subcommands."""
    for name, does in (("eval", "evaluate one flag for a context"), ("explain", "evaluate one flag, and say why")):
        made = commands.add_parser(name, help=does, description=does.capitalize() + ".")
        made.add_argument("flag", metavar="FLAG", help="key of the flag")
        made.add_argument(
            "--context", default="{}", metavar="JSON", help="the context; @FILE reads it, - from the input"
        )
        made.add_argument("--at", metavar="TIME", help="another moment than now, such as 2026-11-21T06:30:00Z")
        made.add_argument("--environment", metavar="NAME", help="key, id or project/key, where there are several")
        made.add_argument("--json", action="store_true", help="print JSON")
        place = made.add_mutually_exclusive_group()
        place.add_argument(
            "--relay", default=DEFAULT_URL, metavar="URL", help=f"a running relay (default {DEFAULT_URL})"
        )
        place.add_argument(
            "--snapshot", type=Path, metavar="FILE", help="the snapshot file in a relay's data directory"
        )
        made.add_argument("--key-file", type=Path, metavar="FILE", help=f"server key for the relay; or {KEY_VARIABLE}")
