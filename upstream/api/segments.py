"""`/projects/{p}/segments`: named groups of units."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, WithJsonSchema

from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import BaseVersion, Body, JsonBody, NewBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectRead, ProjectRemove, ProjectWrite, SegmentRef
from upstream.api.services import Served
from upstream.domain.commands import CreateSegment, DeleteSegment, UpdateSegment
from upstream.domain.entities import Segment
from upstream.domain.lookup import segment_of
from upstream.storage import reads
from upstream.storage.view import StoredView

# Looked at unit by unit where they are used, so that each fault is named.
Units = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": ["string", "integer"]}})]

router = APIRouter(prefix="/projects/{p}/segments", tags=["segments"])


class CreateSegmentBody(NewBody):
    """A new segment."""

    description: str | None = None
    include: Units = Field(default=[])
    exclude: Units = Field(default=[])
    when: dict[str, Any] | None = None


class UpdateSegmentBody(Body):
    """What to change of a segment; a list replaces the whole list."""

    name: str = absent()
    description: str | None = absent()
    include: Units = absent()
    exclude: Units = absent()
    when: dict[str, Any] | None = absent()
    base_version: BaseVersion = None


@router.get("")
async def list_segments(at: ProjectRead, page: Paged, services: Served) -> Response:
    """List the segments of a project."""
    query = page.query(Segment)
    read = await services.database.read(lambda c: reads.list_segments(c, at.project.id, query))
    return Json(Found.of(read).shown(page, shapes.segment))


@router.post("", status_code=201)
async def create_segment(
    at: ProjectWrite,
    body: Annotated[CreateSegmentBody, Depends(JsonBody(CreateSegmentBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Create a segment."""
    outcome = await doing(CreateSegment(project=at.project.id, **body.given()), at.actor)
    key = shapes.shape(outcome.entity)["key"]
    return created(outcome, f"/api/v2/projects/{at.project.key}/segments/{key}")


@router.get("/{s}")
async def read_segment(at: ProjectRead, s: SegmentRef, services: Served) -> Response:
    """Return one segment."""
    return one(await services.database.read(lambda connection: segment_of(StoredView(connection), at.project, s)))


@router.put("/{s}")
@router.patch("/{s}")
async def update_segment(
    at: ProjectWrite,
    s: SegmentRef,
    if_match: IfMatch,
    body: Annotated[UpdateSegmentBody, Depends(JsonBody(UpdateSegmentBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Change the named fields of a segment."""
    command = UpdateSegment(project=at.project.id, segment=s, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


@router.delete("/{s}", status_code=204)
async def delete_segment(
    at: ProjectRemove,
    s: SegmentRef,
    if_match: IfMatch,
    doing: Doing,
    force: Annotated[bool, Query(description="Also delete a segment that rules name.")] = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """Delete a segment."""
    command = DeleteSegment(project=at.project.id, segment=s, force=force, if_match=if_match)
    await doing(command, at.actor)
    return gone()
