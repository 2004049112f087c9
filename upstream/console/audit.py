"""`halyard audit`: who did what, and following it as it happens."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
import typer

from upstream.console import completion, words
from upstream.console.command import EVERY_DAY, command
from upstream.console.failures import Exit, Failed
from upstream.console.moments import moment, shown
from upstream.console.options import Limit
from upstream.console.output import Column, plain
from upstream.console.session import AtProject

app = typer.Typer()

POLL_S = 2.0
_USUAL_ROWS = 30
_SHOWN_PATHS = 4
_MOST_ENVIRONMENTS = 100


def _target(row: Mapping[str, Any], environments: Mapping[str, str]) -> str:
    target = row["target"]
    name = f"{target['type']} {target['key'] or target['id']}"
    environment = environments.get(row["environment_id"] or "")
    return name if environment is None or target["type"] == "environment" else f"{name} in {environment}"


def _changed(row: Mapping[str, Any]) -> str | None:
    """Return what changed, in short; nothing for what is new or gone, of which everything changed."""
    found: Sequence[Mapping[str, Any]] = (
        () if row["action"].endswith((".created", ".copied", ".cloned", ".deleted")) else row["changes"] or ()
    )
    paths = [each["path"] for each in found]
    changed = _single(found[0]) if len(found) == 1 else ", ".join(paths[:_SHOWN_PATHS])
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    reason = f"“{row['reason']}”" if row["reason"] else ""
    return " ".join(part for part in (changed + more, reason) if part) or None


def _single(change: Mapping[str, Any]) -> str:
    if isinstance(change["before"], bool) and isinstance(change["after"], bool):
        return f"{change['path']}: {words.value(change['before'])} → {words.value(change['after'])}"
    return str(change["path"])


def _columns(environments: Mapping[str, str]) -> tuple[Column, ...]:
    """Return what is shown of an entry; `environments` are keys by id."""
    return (
        Column("at (UTC)", lambda row: shown(row["at"])),
        Column("who", lambda row: row["actor"]["name"]),
        Column("via", "via"),
        Column("action", "action"),
        Column("what", lambda row: _target(row, environments)),
        Column("changed", _changed),
    )


async def _environments(at: AtProject) -> Mapping[str, str]:
    """Return the keys of the project's environments by id, as entries name them by id alone."""
    page = await at.listed(at.path("environments"), _MOST_ENVIRONMENTS)
    return {each["id"]: each["key"] for each in page["data"]}


@command(app, "audit", panel=EVERY_DAY)
async def audit(
    at: AtProject,
    flag: Annotated[
        str | None,
        typer.Option("--flag", metavar="FLAG", help="Only about this flag.", autocompletion=completion.flags),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            "-e",
            metavar="ENVIRONMENT",
            help="Only in this environment.",
            autocompletion=completion.environments,
        ),
    ] = None,
    actor: Annotated[str | None, typer.Option("--actor", metavar="WHO", help="Only by them: id, name, e-mail.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Only this, such as flag.toggled.")
    ] = None,
    via: Annotated[
        str | None, typer.Option("--via", metavar="DOOR", help="Only through api, relay, schedule, …")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only since: 2026-11-21T06:30:00Z, or 90m, 2h, 3d ago."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only before that time.")] = None,
    everywhere: Annotated[
        bool, typer.Option("--organisation", help="All of the organisation, not one project.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    limit: Limit = _USUAL_ROWS,
) -> None:
    """Show who did what, newest first; with --follow oldest first, and on and on."""
    filters = {
        "flag": flag,
        "environment": environment,
        "actor": actor,
        "action": action,
        "via": via,
        "after": since and moment("--since", since, is_past=True),
        "before": until and moment("--until", until, is_past=True),
    }
    path = "/audit" if everywhere else at.path("audit")
    columns = _columns({} if everywhere or at.as_json or at.quiet else await _environments(at))
    if follow:
        if until is not None:
            raise Failed(Exit.USAGE, "--follow and --until exclude each other.")
        await _follow(at, path, limit, filters, columns)
    page = await at.listed(path, limit, **filters)
    at.out.rows(page, columns, key="id", nothing="Nothing was done there.")


async def _follow(at: AtProject, path: str, limit: int, filters: dict[str, Any], columns: Sequence[Column]) -> None:
    """Print entries as they come, one line each; ends by Ctrl-C, or when the authority is gone."""
    seen: set[str] = set()
    while True:
        page = await at.listed(path, limit, **filters)
        for row in reversed(page["data"]):
            if row["id"] not in seen:
                typer.echo(_line(at, row, columns))
        # What was seen before the last page cannot come again.
        seen = {row["id"] for row in page["data"]}
        await asyncio.sleep(POLL_S)


def _line(at: AtProject, row: Mapping[str, Any], columns: Sequence[Column]) -> str:
    if at.as_json:
        return orjson.dumps(row).decode()
    if at.quiet:
        return str(row["id"])
    return plain("  ".join(column.of(row) for column in columns))
