"""`/projects/{p}/schedules`: changes that wait for their time. Any write makes one with `?schedule_at=`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from upstream.api import shapes
from upstream.api.answers import Json, changed, one
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectRead, ProjectWrite
from upstream.api.services import Served
from upstream.domain.entities import Schedule, ScheduleStatus
from upstream.domain.governance_commands import CancelSchedule
from upstream.domain.lookup import schedule_of
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/schedules", tags=["schedules"])

ScheduleId = Annotated[str, Path(description="Id of the scheduled change.")]


@router.get("")
async def list_schedules(
    at: ProjectRead,
    page: Paged,
    services: Served,
    status: Annotated[ScheduleStatus | None, Query(description="Only scheduled changes that stand so.")] = None,
) -> Response:
    """List the scheduled changes of a project, soonest first."""
    query = page.query(Schedule)
    read = await services.database.read(lambda c: reads.list_schedules(c, at.project.id, query, status))
    return Json(Found.of(read).shown(page, shapes.schedule))


@router.get("/{id}")
async def read_schedule(at: ProjectRead, id: ScheduleId, services: Served) -> Response:  # noqa: A002 - the path's name
    """Return one scheduled change: what it does, and what came of it."""
    return one(await services.database.read(lambda c: schedule_of(StoredView(c), at.project, id)))


@router.delete("/{id}")
async def cancel_schedule(
    at: ProjectWrite,
    id: ScheduleId,  # noqa: A002 - the path's name
    if_match: IfMatch,
    doing: Doing,
) -> Response:
    """Cancel a scheduled change that has not been carried out; it stays to be seen."""
    return changed(await doing(CancelSchedule(project=at.project.id, schedule=id, if_match=if_match), at.actor))
