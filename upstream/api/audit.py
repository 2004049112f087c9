"""`/audit` and `/projects/{p}/audit`: who did what in an organisation, or to one of its projects, newest first."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json
from upstream.api.caller import AuditReader
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectAudit, project_at
from upstream.api.services import Served
from upstream.domain.entities import AuditEntry
from upstream.domain.permissions import Actor
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(tags=["audit"])

ActionName: TypeAlias = Annotated[str | None, Query(max_length=100, description="Such as flag.toggled.")]


@router.get("/audit")
async def list_organisation_audit(
    actor: AuditReader,
    page: Paged,
    services: Served,
    action: ActionName = None,
    project: Annotated[
        str | None, Query(max_length=200, description="Id or key of a project; id of a deleted one.")
    ] = None,
    flag: Annotated[
        str | None, Query(max_length=200, description="Id of a flag, or its key beside `project`; id of a deleted one.")
    ] = None,
    environment: Annotated[
        str | None,
        Query(max_length=200, description="Id of an environment, or its key beside `project`; id of a deleted one."),
    ] = None,
) -> Response:
    """List the audit entries of the organisation; a caller limited to projects sees what is about these alone."""
    query = page.query(AuditEntry)

    def look(connection: Connection) -> reads.Page[AuditEntry]:
        project_id = project and _project_id(connection, actor, project)
        wanted = _filter(connection, project_id, action=action, flag=flag, environment=environment)
        return reads.list_audit(connection, actor.organisation_id, query, wanted, visible=actor.projects)

    return Json(Found.of(await services.database.read(look)).shown(page, shapes.audit_entry))


@router.get("/projects/{p}/audit")  # noqa: FAST003 - `ProjectAudit` takes it
async def list_audit(
    at: ProjectAudit,
    page: Paged,
    services: Served,
    action: ActionName = None,
    flag: Annotated[str | None, Query(max_length=200, description="Id or key of a flag; id of a deleted one.")] = None,
    environment: Annotated[
        str | None, Query(max_length=200, description="Id or key of an environment; id of a deleted one.")
    ] = None,
) -> Response:
    """List the audit entries of a project."""
    query = page.query(AuditEntry)

    def look(connection: Connection) -> reads.Page[AuditEntry]:
        wanted = _filter(connection, at.project.id, action=action, flag=flag, environment=environment)
        return reads.list_audit(connection, at.actor.organisation_id, query, wanted, visible=None)

    return Json(Found.of(await services.database.read(look)).shown(page, shapes.audit_entry))


def _filter(
    connection: Connection, project_id: str | None, *, action: str | None, flag: str | None, environment: str | None
) -> reads.AuditFilter:
    """Return the filter with keys turned into ids; what names nothing now may be the id of something deleted."""
    if project_id is not None:
        found_environment = environment and reads.get_environment(connection, project_id, environment)
        found_flag = flag and StoredView(connection).flag(project_id, flag)
        environment = found_environment.id if found_environment else environment
        flag = found_flag.id if found_flag else flag
    return reads.AuditFilter(project_id=project_id, environment_id=environment, target_id=flag, action=action)


def _project_id(connection: Connection, actor: Actor, reference: str) -> str:
    """Return the id of a project; what names none now may be the id of a deleted one."""
    if StoredView(connection).project(actor.organisation_id, reference) is None:
        return reference
    return project_at(connection, actor, reference).id
