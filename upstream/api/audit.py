"""`/projects/{p}/audit`: who did what to a project, newest first."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectAudit
from upstream.api.services import Served
from upstream.domain.entities import AuditEntry
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/audit", tags=["audit"])


@router.get("")
async def list_audit(  # noqa: PLR0913, PLR0917 - one argument per query parameter
    at: ProjectAudit,
    page: Paged,
    services: Served,
    action: Annotated[str | None, Query(max_length=100, description="Such as flag.toggled.")] = None,
    flag: Annotated[str | None, Query(max_length=200, description="Id or key of a flag; id of a deleted one.")] = None,
    environment: Annotated[
        str | None, Query(max_length=200, description="Id or key of an environment; id of a deleted one.")
    ] = None,
) -> Response:
    """List the audit entries of a project."""
    query = page.query(AuditEntry)

    def look(connection: Connection) -> reads.Page[AuditEntry]:
        wanted = reads.AuditFilter(
            project_id=at.project.id,
            environment_id=environment and _environment_id(connection, at.project.id, environment),
            target_id=flag and _flag_id(connection, at.project.id, flag),
            action=action,
        )
        return reads.list_audit(connection, at.actor.organisation_id, query, wanted, visible=None)

    return Json(Found.of(await services.database.read(look)).shown(page, shapes.audit_entry))


def _environment_id(connection: Connection, project_id: str, reference: str) -> str:
    """Return the id of an environment; what names none now may be the id of a deleted one."""
    found = reads.get_environment(connection, project_id, reference)
    return reference if found is None else found.id


def _flag_id(connection: Connection, project_id: str, reference: str) -> str:
    """Return the id of a flag; what names none now may be the id of a deleted one."""
    found = StoredView(connection).flag(project_id, reference)
    return reference if found is None else found.id
