"""Arguments and options that several commands name in the same way."""

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from upstream.console import completion
from upstream.console.failures import Exit, Failed

USUAL_ROWS = 100
MOST_ROWS = 10_000

FlagName = Annotated[str, typer.Argument(metavar="FLAG", help="Its key or id.", autocompletion=completion.flags)]
EnvironmentName = Annotated[
    str, typer.Argument(metavar="ENVIRONMENT", help="Its key or id.", autocompletion=completion.environments)
]
ProjectName = Annotated[
    str, typer.Argument(metavar="PROJECT", help="Its key or id.", autocompletion=completion.projects)
]
SegmentName = Annotated[
    str, typer.Argument(metavar="SEGMENT", help="Its key or id.", autocompletion=completion.segments)
]
NewKey = Annotated[str, typer.Argument(metavar="KEY", help="The key, which never changes.")]
Named = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it.")]
Described = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the audit log.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=MOST_ROWS, help="How many are listed at most.")]
Search = Annotated[str | None, typer.Option("--search", metavar="TEXT", help="Only those with this in key or name.")]
Force = Annotated[bool, typer.Option("--force", help="Even if flags depend on it.")]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="When it ends: 2026-11-21T06:30:00Z, or in 90d.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="JSON with further fields, as the API takes them; - is stdin."),
]


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def body_of(data: str | None, **fields: Any) -> dict[str, Any]:
    """Return the body of a request: what a file holds, and over it the fields that were given.

    Raises:
        Failed: the file cannot be read, or holds no JSON object.
    """
    base = {} if data is None else read_json("--data", data)
    return {**base, **given(**fields)}


def read_json(name: str, file: str) -> dict[str, Any]:
    """Return the JSON object in a file; `-` is stdin.

    Raises:
        Failed: it cannot be read, or is none.
    """
    try:
        raw = sys.stdin.read() if file == "-" else Path(file).read_text()
        found = orjson.loads(raw)
    except OSError as error:
        raise Failed(Exit.USAGE, f"{name}: {file}: {error.strerror}.") from error
    except ValueError as error:
        raise Failed(Exit.USAGE, f"{name}: {file} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Failed(Exit.USAGE, f"{name}: {file} must hold a JSON object.")
    return found


def value_of(text: str) -> Any:
    """Return a value as it was typed: JSON where it is JSON, else a text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
