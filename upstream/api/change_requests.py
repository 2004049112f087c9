"""`/projects/{p}/change-requests`: changes that wait for a review. Any write opens one with `?propose=TITLE`.

Shows for each version that a request is bound to whether it still holds. Approving names what was seen by `If-Match`.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, changed, one
from upstream.api.body import Body, JsonBody
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.places import InProject, ProjectRead, ProjectWrite
from upstream.api.services import Served
from upstream.domain.bindings import holds
from upstream.domain.entities import ChangeRequest, RequestStatus
from upstream.domain.governance_commands import ApplyRequest, ReviewRequest, UpdateRequest, WithdrawRequest
from upstream.domain.lookup import change_request_of
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/change-requests", tags=["change requests"])

RequestId = Annotated[str, Path(description="Id of the change request.")]


class CommentBody(Body):
    """What to say about it, for the other people and the audit log."""

    comment: str | None = Field(default=None, max_length=10_000)


class UpdateRequestBody(Body):
    """How the author describes a request."""

    title: str | None = Field(default=None, max_length=200)
    description: str | None = Field(default=None, max_length=10_000)


Comment = Annotated[CommentBody, Depends(JsonBody(CommentBody, is_required=False))]


@router.get("")
async def list_change_requests(
    at: ProjectRead,
    page: Paged,
    services: Served,
    status: Annotated[RequestStatus | None, Query(description="Only requests that stand so.")] = None,
) -> Response:
    """List the change requests of a project, newest first."""
    query = page.query(ChangeRequest)
    read = await services.database.read(lambda c: reads.list_change_requests(c, at.project.id, query, status))
    return Json(Found.of(read).shown(page, shapes.change_request))


@router.get("/{id}")
async def read_change_request(at: ProjectRead, id: RequestId, services: Served) -> Response:  # noqa: A002 - the path's name
    """Return one change request, with whether the versions that it is bound to still hold."""

    def look(connection: Connection) -> tuple[ChangeRequest, dict[str, Any]]:
        view = StoredView(connection)
        request = change_request_of(view, at.project, id)
        return request, {"bound": [{**each, "holds": holds(each, view)} for each in request.bound]}

    return one(*await services.database.read(look))


@router.patch("/{id}")
async def update_change_request(
    at: ProjectWrite,
    id: RequestId,  # noqa: A002 - the path's name
    if_match: IfMatch,
    body: Annotated[UpdateRequestBody, Depends(JsonBody(UpdateRequestBody))],
    doing: Doing,
) -> Response:
    """Change the title or the description of one's own change request."""
    command = UpdateRequest(project=at.project.id, request=id, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


@router.post("/{id}:approve")
async def approve_change_request(
    at: ProjectWrite,
    id: RequestId,  # noqa: A002 - the path's name
    if_match: IfMatch,
    body: Comment,
    doing: Doing,
) -> Response:
    """Approve somebody else's change request."""
    return changed(await doing(_review(at, id, "approved", body, if_match), at.actor))


@router.post("/{id}:reject")
async def reject_change_request(
    at: ProjectWrite,
    id: RequestId,  # noqa: A002 - the path's name
    if_match: IfMatch,
    body: Comment,
    doing: Doing,
) -> Response:
    """Reject somebody else's change request, also one that was approved."""
    return changed(await doing(_review(at, id, "rejected", body, if_match), at.actor))


@router.post("/{id}:withdraw")
async def withdraw_change_request(
    at: ProjectWrite,
    id: RequestId,  # noqa: A002 - the path's name
    if_match: IfMatch,
    body: Comment,
    doing: Doing,
) -> Response:
    """Take back one's own change request."""
    command = WithdrawRequest(project=at.project.id, request=id, comment=body.comment, if_match=if_match)
    return changed(await doing(command, at.actor))


@router.post("/{id}:apply")
async def apply_change_request(
    at: ProjectWrite,
    id: RequestId,  # noqa: A002 - the path's name
    if_match: IfMatch,
    body: Comment,
    services: Served,
    doing: Doing,
) -> Response:
    """Carry out an approved change request: all of it in one transaction. With `?schedule_at=` at that time."""
    command = ApplyRequest(project=at.project.id, request=id, comment=body.comment, if_match=if_match)
    outcome = await doing(command, at.actor)
    applied = await services.database.read(lambda c: change_request_of(StoredView(c), at.project, id))
    extra: dict[str, Any] = {"revisions": outcome.revisions}
    if outcome.warnings:
        extra["warnings"] = outcome.warnings
    return one(applied, extra)


def _review(
    at: InProject, request: str, verdict: Literal["approved", "rejected"], body: CommentBody, if_match: int | None
) -> ReviewRequest:
    return ReviewRequest(
        project=at.project.id, request=request, verdict=verdict, comment=body.comment, if_match=if_match
    )
