"""`/projects/{p}/flags/{f}:promote` and `:copy`: from one environment into another, and as a new flag."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api.answers import changed, created
from upstream.api.body import Body, JsonBody
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.flag_configs import names
from upstream.api.flag_states import states_after
from upstream.api.places import FlagRef, ProjectWrite, place_of, project_at
from upstream.api.services import Served
from upstream.domain.entities import Flag, Project
from upstream.domain.flag_commands import CopyFlag, PromoteFlag

router = APIRouter(prefix="/projects/{p}/flags", tags=["flags"])


class PromoteBody(Body):
    """From which environment into which, and what: enabled, off, fallthrough, rules, targets; all when left out."""

    source: str = Field(alias="from")
    environment: str = Field(alias="to")
    parts: list[str] | None = None
    reason: str | None = Field(default=None, max_length=1_000)


class CopyBody(Body):
    """What the copy is called, and where it goes; the key is made from the name, or the original's key."""

    key: str | None = None
    name: str | None = None
    project: str | None = Field(default=None, description="Another project, by id or key.")
    keep_enabled: bool = Field(default=False, description="Else the copy is disabled in every environment.")


@router.post("/{f}:promote")
async def promote_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[PromoteBody, Depends(JsonBody(PromoteBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Copy what a flag does in one environment into another; If-Match is the version there.

    The salt there stays. A rule that is there already, by its id or else by its condition, keeps its id, as it buckets
    with it.
    """
    place = await place_of(services, at.project, f, body.environment)
    command = PromoteFlag(
        project=at.project.id,
        flag=place.flag.id,
        source=body.source,
        environment=place.environment.id,
        parts=body.parts,
        reason=body.reason,
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))


@router.post("/{f}:copy", status_code=201)
async def copy_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[CopyBody, Depends(JsonBody(CopyBody, is_required=False))],
    services: Served,
    doing: Doing,
) -> Response:
    """Make a new flag like this one, with salts of its own; configs go to the environments of the same key."""
    command = CopyFlag(
        project=at.project.id,
        flag=f,
        into=body.project,
        key=body.key,
        name=body.name,
        keep_enabled=body.keep_enabled,
        if_match=if_match,
    )
    outcome = await doing(command, at.actor)
    flag = outcome.entity
    assert isinstance(flag, Flag)  # noqa: S101 - what the command is about

    def look(connection: Connection) -> Project:
        return project_at(connection, at.actor, flag.project_id)

    project = await services.database.read(look)
    location = f"/api/v2/projects/{project.key}/flags/{flag.key}"
    return created(outcome, location, await states_after(services, outcome))
