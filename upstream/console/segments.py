"""`halyard segments`."""

from typing import Annotated

import typer

from upstream.console import words
from upstream.console.asking import confirm
from upstream.console.command import command, group
from upstream.console.failures import Exit, Failed
from upstream.console.moments import shown
from upstream.console.options import (
    USUAL_ROWS,
    Data,
    Described,
    Force,
    Limit,
    Named,
    NewKey,
    Search,
    SegmentName,
    body_of,
)
from upstream.console.output import Column, fields
from upstream.console.session import AtProject, Editing, Writing
from upstream.console.writes import carry_out

app = group("Segments: named groups of units that rules speak of.")

_COLUMNS = (
    Column("key", "key"),
    Column("name", "name"),
    Column("included", lambda row: len(row["include"])),
    Column("excluded", lambda row: len(row["exclude"])),
    Column("when", lambda row: row["when"] and words.condition(row["when"])),
)
Included = Annotated[
    list[str] | None, typer.Option("--include", metavar="UNIT", help="A unit that is in; again for more.")
]
Excluded = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="UNIT", help="A unit that is not in; again for more.")
]


@command(app, "list")
async def list_segments(at: AtProject, search: Search = None, limit: Limit = USUAL_ROWS) -> None:
    """List the segments of a project."""
    page = await at.listed(at.path("segments"), limit, search=search)
    at.out.rows(page, _COLUMNS, nothing="There is no such segment. Make one with: halyard segments create KEY")


@command(app, "show")
async def show_segment(at: AtProject, segment: SegmentName) -> None:
    """Show one segment."""
    found = await at.get(at.path("segments", segment))
    if at.as_json or at.quiet:
        at.out.said(found, "", found["key"])
        return
    fields(
        [
            ("key", found["key"]),
            ("name", found["name"]),
            ("description", found["description"]),
            ("included", found["include"]),
            ("excluded", found["exclude"]),
            ("when", found["when"] and words.condition(found["when"])),
            ("changed", f"{shown(found['updated_at'])} (version {found['version']})"),
        ]
    )


@command(app, "create")
async def create_segment(
    at: AtProject,
    how: Writing,
    key: NewKey,
    name: Named = None,
    description: Described = None,
    include: Included = None,
    exclude: Excluded = None,
    data: Data = None,
) -> None:
    """Create a segment; a condition goes into --data, as `when`."""
    body = body_of(data, key=key, name=name, description=description, include=include or None, exclude=exclude or None)
    path = at.path("segments")
    await carry_out(at, how, "POST", path, body, done=lambda made: f"Created the segment {made['key']}.")


@command(app, "update")
async def update_segment(
    at: AtProject,
    how: Editing,
    segment: SegmentName,
    name: Named = None,
    description: Described = None,
    include: Included = None,
    exclude: Excluded = None,
    data: Data = None,
) -> None:
    """Change a segment; a list of units takes the place of the one before."""
    body = body_of(data, name=name, description=description, include=include or None, exclude=exclude or None)
    if not body:
        raise Failed(Exit.USAGE, f"What is to change of {segment}? See: halyard segments update --help")
    if body.keys() - {"name", "description"}:
        await at.ask_where_critical(how, f"Change {segment} in every environment?")
    path = at.path("segments", segment)
    await carry_out(at, how, "PATCH", path, body, done=lambda now: f"Changed {now['key']}: version {now['version']}.")


@command(app, "delete")
async def delete_segment(at: AtProject, how: Editing, segment: SegmentName, force: Force = False) -> None:
    """Delete a segment."""
    confirm(f"Delete the segment {segment} of {at.project_key}?", is_agreed=how.yes or how.is_harmless)
    path = at.path("segments", segment) + ("?force=true" if force else "")
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Deleted {segment}.", key=segment)
