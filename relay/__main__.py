"""`halyard-relay`: reads the settings, starts the relay, and says clearly why it cannot; or does one of the commands.

Exit status: 0 after an orderly stop, 2 when settings, port or directory cannot be used.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from relay import logs
from relay.ask.arguments import SPOOL, add_commands
from relay.clock import SystemClock
from relay.errors import BadSettings
from relay.process import run
from relay.settings import load
from relay.settings_reader import Source
from relay.version import VERSION

# Flag -> (TOML path, its word in the help).
OVERRIDES = {
    "upstream-url": ("relay.upstream.url", "URL"),
    "upstream-key-file": ("relay.upstream.key_file", "FILE"),
    "host": ("relay.serve.host", "ADDRESS"),
    "port": ("relay.serve.port", "PORT"),
    "workers": ("relay.serve.workers", "N"),
    "admin-port": ("relay.admin.port", "PORT"),
    "data-dir": ("relay.data.dir", "DIRECTORY"),
}


def parser() -> argparse.ArgumentParser:
    """Return the command line; its flags override variables, which override the file."""
    made = argparse.ArgumentParser(
        prog="halyard-relay",
        description="Evaluates feature flags beside your application, and keeps doing so while upstream is away.",
        epilog="Every setting is described in config.example.toml; each has an environment variable HALYARD_RELAY_....",
    )
    made.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the tables [relay....]")
    for flag, (path, metavar) in OVERRIDES.items():
        made.add_argument(f"--{flag}", metavar=metavar, help=f"overrides {path}")
    add_commands(
        made.add_subparsers(dest="command", metavar="[eval | explain | spool]", title="commands", help="see `eval -h`")
    )
    made.add_argument("--version", action="version", version=f"halyard-relay {VERSION}")
    return made


def source(options: argparse.Namespace) -> Source:
    """Return where this start's settings come from."""
    given = vars(options)
    values = {flag: given[flag.replace("-", "_")] for flag in OVERRIDES}
    overrides = {OVERRIDES[flag][0]: (f"--{flag}", value) for flag, value in values.items() if value is not None}
    return Source(given["config"], os.environ, overrides)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a relay until a signal ends it, or answer a question; return the exit status."""
    options = parser().parse_args(arguments)
    if options.command not in {None, SPOOL}:
        # Loaded only by who asks: the memory of a relay is that of its modules, as long as it has few flags.
        from relay.ask.command import run as ask  # noqa: PLC0415

        return ask(options, SystemClock())
    try:
        settings = load(source(options))
        if options.command == SPOOL:
            from relay.ask.spool_command import run as spool  # noqa: PLC0415

            return spool(options, settings, SystemClock())
        logs.configure(settings.log.level, settings.log.format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except BadSettings as error:
        for problem in error.problems:
            print(f"halyard-relay: {problem}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
