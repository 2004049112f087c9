"""`halyard`, and `python -m upstream`: the command line, or how to install what it needs."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer import Typer

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    """Run the command line."""
    try:
        _run()
    except KeyboardInterrupt:
        # Whoever presses Ctrl-C before anything has begun knows what happened.
        sys.exit(INTERRUPTED)


def _run() -> None:
    try:
        app = _program()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"relay", "upstream"}:
            raise
        print(  # noqa: T201 - there may be nothing better to print with
            f"halyard: {error.name} is not installed. The upstream needs more than the relay:\n"
            "  pip install 'halyard[upstream]'\n"
            "A relay alone is started with halyard-relay.",
            file=sys.stderr,
        )
        sys.exit(2)
    app()


def _program() -> "Typer":
    """Return the command line: only the daily work where that is asked for, as all of it takes four times as long."""
    # What these import may not be installed.
    from upstream.console import app as console  # noqa: PLC0415

    if _first_word() in console.names():
        program = console.new_program()
        console.add_to(program)
        return program
    from upstream.cli import app  # noqa: PLC0415

    return app


def _first_word() -> str:
    """Return the word behind `halyard`, also of a line that a shell wants to have completed."""
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    words = typed.split()[1:] if "_HALYARD_COMPLETE" in os.environ else sys.argv[1:]
    return words[0] if words else ""


if __name__ == "__main__":
    main()
