"""`halyard schedules`: changes that wait for their time."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from upstream.console.asking import confirm
from upstream.console.command import command, group
from upstream.console.moments import shown
from upstream.console.options import USUAL_ROWS, Limit
from upstream.console.output import Column
from upstream.console.session import AtProject, Trying
from upstream.console.writes import carry_out

app = group("Schedules: changes that wait for their time; `--at` makes them.")


def what(row: Mapping[str, Any]) -> str:
    """Return what commands do, by their names: `ToggleFlag` is `toggle flag`."""
    return ", ".join(re.sub(r"(?<!^)(?=[A-Z])", " ", each["command"]).lower() for each in row["commands"])


def things(row: Mapping[str, Any]) -> Sequence[str]:
    """Return the keys of the flags and segments that it is about."""
    affected = row["preview"]["affected"]
    return [*affected["flags"], *affected["segments"]]


def places(row: Mapping[str, Any]) -> Sequence[str]:
    """Return the keys of the environments that would feel it."""
    return list(row["preview"]["affected"]["environments"])


_COLUMNS = (
    Column("id", "id"),
    Column("at (UTC)", lambda row: shown(row["run_at"])),
    Column("status", "status"),
    Column("by", lambda row: row["actor"]["name"]),
    Column("what", what),
    Column("of", things),
    Column("in", places),
)


@command(app, "list")
async def list_schedules(
    at: AtProject,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only pending, done, failed or cancelled ones.")
    ] = None,
    limit: Limit = USUAL_ROWS,
) -> None:
    """List the scheduled changes of a project."""
    page = await at.listed(at.path("schedules"), limit, status=status)
    at.out.rows(page, _COLUMNS, key="id", nothing="Nothing is scheduled. --at schedules a change.")


@command(app, "cancel")
async def cancel_schedule(
    at: AtProject, how: Trying, schedule: Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
) -> None:
    """Call off a change that has not happened yet."""
    confirm(f"Call off the scheduled change {schedule}?", is_agreed=how.yes or how.is_harmless)
    path = at.path("schedules", schedule)
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Called off {schedule}.", key=schedule)
