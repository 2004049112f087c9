"""`halyard requests`: changes that somebody proposes and somebody else reviews."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from upstream.console import changes
from upstream.console.asking import confirm
from upstream.console.command import command, group
from upstream.console.moments import shown
from upstream.console.options import USUAL_ROWS, Limit, given
from upstream.console.output import Column, fields, heading
from upstream.console.schedules import what
from upstream.console.session import AtProject, Trying
from upstream.console.writes import carry_out

app = group("Change requests: what somebody proposes and somebody else reviews; `--propose` makes them.")

RequestId = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
Comment = Annotated[str | None, typer.Option("--comment", "-m", metavar="TEXT", help="What is to be said about it.")]


def _author(row: Mapping[str, Any]) -> Any:
    return (row.get("author") or {}).get("name")


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
        ]
    )
    heading("changes")
    changes.show((found.get("preview") or {}).get("changes") or ())
    reviews = found.get("reviews") or ()
    if reviews:
        heading("reviews")
    for review in reviews:
        by = review.get("by") or {}
        name = by.get("name") if isinstance(by, dict) else by
        comment = f": {review['comment']}" if review.get("comment") else ""
        at.out.text(f"  {review['verdict']} by {name}, {shown(review.get('at'))}{comment}")


async def _verb(at: AtProject, how: Trying, request: str, verb: str, done: str, comment: str | None) -> None:
    path = at.path("change-requests", request, f":{verb}")
    await carry_out(at, how, "POST", path, given(comment=comment), done=lambda _: f"{done} {request}.", key=request)


@command(app, "approve")
async def approve_request(at: AtProject, how: Trying, request: RequestId, comment: Comment = None) -> None:
    """Approve what somebody else proposes; `apply` carries it out."""
    await _verb(at, how, request, "approve", "Approved", comment)


@command(app, "reject")
async def reject_request(at: AtProject, how: Trying, request: RequestId, comment: Comment = None) -> None:
    """Reject what somebody else proposes."""
    await _verb(at, how, request, "reject", "Rejected", comment)


@command(app, "apply")
async def apply_request(at: AtProject, how: Trying, request: RequestId, comment: Comment = None) -> None:
    """Carry out an approved change request."""
    found = await at.get(at.path("change-requests", request))
    confirm(f"Apply {found['title']!r}?", is_agreed=how.yes or how.is_harmless)
    await _verb(at, how, request, "apply", "Applied", comment)


@command(app, "withdraw")
async def withdraw_request(at: AtProject, how: Trying, request: RequestId, comment: Comment = None) -> None:
    """Take back what one has proposed."""
    confirm(f"Withdraw the change request {request}?", is_agreed=how.yes or how.is_harmless)
    await _verb(at, how, request, "withdraw", "Withdrew", comment)
