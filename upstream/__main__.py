"""`halyard`, and `python -m upstream`: the command line, or how to install what it needs."""

import sys

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
        from upstream.cli import app  # noqa: PLC0415 - what it imports may not be installed
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


if __name__ == "__main__":
    main()
