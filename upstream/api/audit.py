"""`/audit` and `/projects/{p}/audit`: who did what in an organisation, or to one of its projects, newest first.

`/audit:verify` tells whether the organisation's log is as it was sealed.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BeforeValidator
from sqlalchemy import Connection

from relay.errors import Problem
from upstream.api import shapes
from upstream.api.answers import Json
from upstream.api.body import Moment
from upstream.api.caller import AuditReader
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectAudit, project_at
from upstream.api.services import Served
from upstream.domain.audit_chain import Mark, Report, parse_mark
from upstream.domain.entities import AuditEntry
from upstream.domain.permissions import DOORS, Actor
from upstream.sealing import verified
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(tags=["audit"])

Reference: TypeAlias = Annotated[str | None, Query(max_length=200)]


def _with_plus(value: Any) -> Any:
    """Mend what a query makes of the plus sign before an offset: a space."""
    return re.sub(r" (?=\d\d:\d\d$)", "+", value) if isinstance(value, str) else value


Time: TypeAlias = Annotated[Moment, BeforeValidator(_with_plus)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The entries that a request asks for, as it names things."""

    action: str | None
    flag: str | None
    environment: str | None
    actor: str | None
    via: str | None
    after: int | None
    before: int | None

    def filter(self, connection: Connection, project_id: str | None) -> reads.AuditFilter:
        """Return the filter with keys turned into ids; what names nothing now may be the id of something deleted."""
        flag, environment = self.flag, self.environment
        if project_id is not None:
            found_environment = environment and reads.get_environment(connection, project_id, environment)
            found_flag = flag and StoredView(connection).flag(project_id, flag)
            environment = found_environment.id if found_environment else environment
            flag = found_flag.id if found_flag else flag
        return reads.AuditFilter(
            project_id=project_id,
            environment_id=environment,
            target_id=flag,
            action=self.action,
            actor=self.actor,
            via=self.via,
            after=self.after,
            before=self.before,
        )


async def asked_entries(
    action: Annotated[str | None, Query(max_length=100, description="Such as flag.toggled.")] = None,
    flag: Annotated[
        Reference, Query(description="Key of a flag (beside `project`, where none is in the path), or an id.")
    ] = None,
    environment: Annotated[
        Reference, Query(description="Key of an environment (beside `project`, where none is in the path), or an id.")
    ] = None,
    actor: Annotated[
        str | None, Query(max_length=320, description="Who did it: an id, a name, or a member's e-mail address.")
    ] = None,
    via: Annotated[str | None, Query(max_length=20, description=f"Through what: {', '.join(DOORS)}.")] = None,
    after: Annotated[Time | None, Query(description="From this RFC 3339 time on.")] = None,
    before: Annotated[Time | None, Query(description="Before this RFC 3339 time.")] = None,
) -> Wanted:
    """Return the entries that the query parameters ask for."""
    return Wanted(action=action, flag=flag, environment=environment, actor=actor, via=via, after=after, before=before)


Asked = Annotated[Wanted, Depends(asked_entries)]


@router.get("/audit")
async def list_organisation_audit(
    actor: AuditReader,
    page: Paged,
    wanted: Asked,
    services: Served,
    project: Annotated[Reference, Query(description="Id or key of a project; id of a deleted one.")] = None,
) -> Response:
    """List the audit entries of the organisation; a caller limited to projects sees what is about these alone."""
    query = page.query(AuditEntry)

    def look(connection: Connection) -> reads.Page[AuditEntry]:
        project_id = project and _project_id(connection, actor, project)
        chosen = wanted.filter(connection, project_id)
        return reads.list_audit(connection, actor.organisation_id, query, chosen, visible=actor.projects)

    return Json(Found.of(await services.database.read(look)).shown(page, shapes.audit_entry))


@router.get("/projects/{p}/audit")  # noqa: FAST003 - `ProjectAudit` takes it
async def list_audit(at: ProjectAudit, page: Paged, wanted: Asked, services: Served) -> Response:
    """List the audit entries of a project."""
    query = page.query(AuditEntry)

    def look(connection: Connection) -> reads.Page[AuditEntry]:
        chosen = wanted.filter(connection, at.project.id)
        return reads.list_audit(connection, at.actor.organisation_id, query, chosen, visible=None)

    return Json(Found.of(await services.database.read(look)).shown(page, shapes.audit_entry))


@router.get("/audit:verify")
async def verify_audit(
    actor: AuditReader,
    services: Served,
    expect: Annotated[
        str | None, Query(max_length=100, description="A `mark` of an earlier answer, which must still be there.")
    ] = None,
) -> Response:
    """Tell whether the organisation's audit log is as it was sealed, and name whatever is not."""
    # Numbers, ids and hashes tell nothing of other projects, so whoever is limited to some may verify, too.
    report = await verified(services.database, actor.organisation_id, _mark(expect))
    return Json(_shown(report))


def _mark(text: str | None) -> Mark | None:
    try:
        return None if text is None else parse_mark(text)
    except ValueError as error:
        detail = "These parameters cannot be used: expect."
        raise Problem(422, "invalid_parameters", detail, errors={"expect": [str(error)]}) from None


def _shown(report: Report) -> dict[str, Any]:
    head = report.head
    return {
        "is_intact": report.is_intact,
        "sealed": report.sealed,
        "unsealed": report.unsealed,
        "mark": None if head is None else str(Mark(head.number, head.hash)),
        "faults": report.faults,
        "all_faults_named": report.is_complete,
    }


def _project_id(connection: Connection, actor: Actor, reference: str) -> str:
    """Return the id of a project; what names none now may be the id of a deleted one."""
    if StoredView(connection).project(actor.organisation_id, reference) is None:
        return reference
    return project_at(connection, actor, reference).id
