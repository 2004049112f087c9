"""`halyard flags history`, `compare` and `revert`: every version of a flag, and the way back.

A flag as it is in every environment has versions of its own, and so has what it does in each environment: `--in` says
which of them is meant.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from upstream.console import changes, completion
from upstream.console.asking import confirm
from upstream.console.command import command
from upstream.console.moments import shown
from upstream.console.options import FlagName, Limit, Reason, given
from upstream.console.output import Column
from upstream.console.session import AtProject, Editing
from upstream.console.writes import carry_out

app = typer.Typer()

_USUAL_ROWS = 30

Inside = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="ENVIRONMENT",
        autocompletion=completion.environments,
        help="What the flag does there; else what it is everywhere.",
    ),
]


def _actor(row: Mapping[str, Any]) -> str | None:
    """Return who made a version; nobody is known of those from before versions were kept."""
    return None if row["actor"] is None else row["actor"]["name"]


_COLUMNS = (
    Column("version", "version"),
    Column("at (UTC)", lambda row: shown(row["at"])),
    Column("by", _actor),
    Column("action", "action"),
    Column("changed", "changed"),
    Column("reason", "reason"),
)


@command(app, "history")
async def show_history(at: AtProject, flag: FlagName, inside: Inside = None, limit: Limit = _USUAL_ROWS) -> None:
    """List the versions of a flag, newest first."""
    page = await at.listed(at.path("flags", flag, "history"), limit, environment=inside)
    at.out.rows(page, _COLUMNS, key="version", nothing="There is no version of it.")


@command(app, "compare")
async def compare_versions(
    at: AtProject,
    flag: FlagName,
    older: Annotated[int, typer.Argument(metavar="FROM", min=1, help="A version.")],
    newer: Annotated[int, typer.Argument(metavar="TO", min=1, help="Another version.")],
    inside: Inside = None,
) -> None:
    """Show what differs between two versions of a flag."""
    path = at.path("flags", flag, "history:compare")
    found = await at.get(path, **{"from": older, "to": newer, "environment": inside})
    if at.as_json:
        at.out.document(found)
    elif not found["changes"]:
        at.out.text(f"Versions {older} and {newer} are the same.")
    else:
        changes.show(changes.lines(found["changes"]), indent="")


@command(app, "revert")
async def revert_flag(
    at: AtProject,
    how: Editing,
    flag: FlagName,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version to go back to.")],
    inside: Inside = None,
    reason: Reason = None,
) -> None:
    """Make a flag as it was at an earlier version; the versions since are kept."""
    where = "everywhere" if inside is None else f"in {inside}"
    question = f"Make {flag} as it was at version {version} {where}?"
    confirm(question, is_agreed=how.yes or how.is_harmless)
    path = at.path("flags", flag, ":revert")
    body = given(version=version, environment=inside, reason=reason)
    await carry_out(
        at,
        how,
        "POST",
        path,
        body,
        done=lambda now: f"{flag} is as at version {version} {where}; this is version {now['version']}.",
        key=flag,
    )
