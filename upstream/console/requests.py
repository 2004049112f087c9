"""`halyard requests`: changes that somebody proposes and somebody else reviews."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from upstream.console import changes
from upstream.console.asking import confirm
from upstream.console.command import command, group
from upstream.console.moments import shown
from upstream.console.options import USUAL_ROWS, Limit, given
from upstream.console.output import Column, fields, heading, plain
from upstream.console.schedules import places, things, what
from upstream.console.session import Applying, AtProject, Reviewing, Trying
from upstream.console.writes import carry_out

app = group("Change requests: what somebody proposes and somebody else reviews; `--propose` makes them.")

RequestId = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
Comment = Annotated[str | None, typer.Option("--comment", "-m", metavar="TEXT", help="What is to be said about it.")]


def _author(row: Mapping[str, Any]) -> str:
    return str(row["author"]["name"])


_COLUMNS = (
    Column("id", "id"),
    Column("title", "title"),
    Column("status", "status"),
    Column("by", _author),
    Column("since (UTC)", lambda row: shown(row["created_at"])),
)


@command(app, "list")
async def list_requests(
    at: AtProject,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only open, approved, applied, … ones.")
    ] = None,
    limit: Limit = USUAL_ROWS,
) -> None:
    """List the change requests of a project."""
    page = await at.listed(at.path("change-requests"), limit, status=status)
    at.out.rows(page, _COLUMNS, key="id", nothing="There is no such change request. --propose makes one.")


@command(app, "show")
async def show_request(at: AtProject, request: RequestId) -> None:
    """Show one change request: what it would change, and what was said about it."""
    found = await at.get(at.path("change-requests", request))
    if at.as_json or at.quiet:
        at.out.said(found, "", found["id"])
        return
    fields(
        [
            ("id", found["id"]),
            ("title", found["title"]),
            ("description", found.get("description")),
            ("status", found["status"]),
            ("by", _author(found)),
            ("since", shown(found["created_at"])),
            ("what", what(found)),
            ("of", things(found)),
            ("in", places(found)),
        ]
    )
    heading("changes")
    changes.show(changes.of_preview(found["preview"]))
    if found["reviews"]:
        heading("reviews")
    for review in found["reviews"]:
        comment = f": {review['comment']}" if review["comment"] else ""
        at.out.text(plain(f"  {review['verdict']} by {review['by']['name']}, {shown(review['at'])}{comment}"))


async def _verb(at: AtProject, how: Trying, request: str, verb: str, done: str, comment: str | None) -> None:
    path = at.path("change-requests", request, f":{verb}")
    await carry_out(at, how, "POST", path, given(comment=comment), done=lambda _: f"{done} {request}.", key=request)


@command(app, "approve")
async def approve_request(at: AtProject, how: Reviewing, request: RequestId, comment: Comment = None) -> None:
    """Approve what somebody else proposes, after looking at it; `apply` carries it out."""
    if not (how.yes or how.is_harmless):
        found = await at.get(at.path("change-requests", request))
        changes.show(changes.of_preview(found["preview"]), is_beside=True)
        confirm(f"Approve {plain(found['title'])!r} by {plain(_author(found))}?", is_agreed=False)
        # What is approved is what was shown.
        how.if_version = found["version"] if how.if_version is None else how.if_version
    await _verb(at, how, request, "approve", "Approved", comment)


@command(app, "reject")
async def reject_request(at: AtProject, how: Reviewing, request: RequestId, comment: Comment = None) -> None:
    """Reject what somebody else proposes."""
    await _verb(at, how, request, "reject", "Rejected", comment)


@command(app, "apply")
async def apply_request(at: AtProject, how: Applying, request: RequestId, comment: Comment = None) -> None:
    """Carry out an approved change request, now or with --at later."""
    found = await at.get(at.path("change-requests", request))
    confirm(f"Apply {plain(found['title'])!r}?", is_agreed=how.yes or how.is_harmless)
    await _verb(at, how, request, "apply", "Applied", comment)


@command(app, "withdraw")
async def withdraw_request(at: AtProject, how: Reviewing, request: RequestId, comment: Comment = None) -> None:
    """Take back what one has proposed."""
    confirm(f"Withdraw the change request {request}?", is_agreed=how.yes or how.is_harmless)
    await _verb(at, how, request, "withdraw", "Withdrew", comment)
