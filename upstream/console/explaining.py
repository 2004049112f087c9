"""`halyard explain`: why a flag serves what it serves."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.text import Text

from upstream.console import words
from upstream.console.command import EVERY_DAY, command
from upstream.console.failures import Exit, Failed
from upstream.console.moments import moment, shown
from upstream.console.options import FlagName, given, read_json
from upstream.console.output import console, plain
from upstream.console.session import AtEnvironment

app = typer.Typer()

_MARKS = {True: "✓", False: "✗", None: "·"}


@command(app, "explain", panel=EVERY_DAY)
async def explain(
    at: AtEnvironment,
    flag: FlagName,
    context: Annotated[
        str, typer.Option("--context", "-c", metavar="JSON", help="For whom; @FILE reads it, - is stdin.")
    ] = "{}",
    unit: Annotated[
        str | None, typer.Option("--user", "-u", metavar="KEY", help="Their targetingKey, beside the context.")
    ] = None,
    when: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Then, not now: 2026-11-21T06:30:00Z, or in 2h, 3d.")
    ] = None,
    revision: Annotated[
        int | None, typer.Option("--revision", metavar="N", min=1, help="By that revision of the environment.")
    ] = None,
) -> None:
    """Evaluate one flag for a context, and show every step that led to the answer."""
    body = {
        "project": at.project_key,
        "environment": at.environment_key,
        "flag": flag,
        "context": _context(context) | given(targetingKey=unit),
        **given(at=when and moment("--at", when), revision=revision),
    }
    found = (await at.client.call("POST", "/explain", body)).body
    if at.as_json or at.quiet:
        at.out.said(found, "", words.value(found.get("value")))
        return
    why = [str(found["reason"]), *(f"{name} {found[name]}" for name in ("variation", "rule_id") if found.get(name))]
    at.out.text(f"{plain(found['flag'])} = {words.value(found.get('value'))}   ({plain(', '.join(why))})")
    where = f"{found['project']}/{found['environment']} at revision {found['revision']}, {shown(found['at'])} UTC"
    at.out.text(f"in {plain(where)}\n")
    for line in _lines(found["steps"], ""):
        console().print(line, soft_wrap=True)


def _context(text: str) -> dict[str, Any]:
    if text == "-" or text.startswith("@"):
        return read_json("--context", text.removeprefix("@"))
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Failed(Exit.USAGE, f"--context is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Failed(Exit.USAGE, '--context must be a JSON object such as {"country": "DE"}.')
    return found


def _lines(steps: Sequence[dict[str, Any]], indent: str) -> Iterator[Text]:
    styles = {True: "green", False: "red", None: "dim"}
    for step in steps:
        line = Text(indent)
        line.append(f"{_MARKS[step['holds']]} ", style=styles[step["holds"]])
        line.append(plain(step["text"]))
        yield line
        yield from _lines(step.get("steps", ()), indent + "    ")
