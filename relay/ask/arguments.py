"""The arguments of the commands. Imports nothing of what they do, since a relay that serves never does it."""

import argparse
from pathlib import Path
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8701"
KEY_VARIABLE = "HALYARD_KEY"
SPOOL = "spool"


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
    _add_spool(commands)


def _add_spool(commands: Any) -> None:
    does = "look into the events that wait on disk, check them, or send them without the relay"
    made = commands.add_parser(SPOOL, help=does, description=does.capitalize() + ".")
    verbs = made.add_subparsers(dest="verb", metavar="inspect | verify | drain", required=True)
    for name, help_ in (
        ("inspect", "segments, records that wait, the batch in flight, and the quarantine with reasons; only reads"),
        ("verify", "compute every checksum and name damaged places; only reads; exit status 1 with damage"),
        ("drain", "send what a stopped relay has left to the upstream, with the relay's settings"),
    ):
        verb = verbs.add_parser(name, help=help_, description=help_.capitalize() + ".")
        # Also in front of the command, where every setting of the relay stands; absent here must not undo that.
        verb.add_argument("--data-dir", metavar="DIRECTORY", default=argparse.SUPPRESS, help="overrides relay.data.dir")
        if name != "drain":
            verb.add_argument("--json", action="store_true", help="print JSON")
