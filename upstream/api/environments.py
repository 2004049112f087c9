"""`/projects/{p}/environments`: the places where flags are evaluated."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one, whole
from upstream.api.body import Body, JsonBody, NewBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.places import EnvironmentRef, ProjectAdminister, ProjectRead
from upstream.api.services import Served
from upstream.domain.commands import (
    CloneEnvironment,
    CreateEnvironment,
    DeleteEnvironment,
    ReorderEnvironments,
    UpdateEnvironment,
)
from upstream.domain.entities import Environment
from upstream.domain.lookup import environment_of
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}", tags=["environments"])


class CreateEnvironmentBody(NewBody):
    """A new environment."""

    sort: int | None = None
    critical: bool = False
    require_review: bool = False


class CloneEnvironmentBody(Body):
    """What the clone is called; by default its name is the original's with "copy"."""

    name: str | None = None
    key: str | None = None


class ReorderEnvironmentsBody(Body):
    """The order of all environments."""

    environments: list[str] = Field(description="Ids or keys; each environment of the project once.")


class UpdateEnvironmentBody(Body):
    """What to change of an environment."""

    name: str = absent()
    sort: int = absent()
    critical: bool = absent()
    require_review: bool = absent()


@router.get("/environments")
async def list_environments(at: ProjectRead, page: Paged, services: Served) -> Response:
    """List the environments of a project in their order."""
    query = page.query(Environment)
    read = await services.database.read(lambda c: reads.list_environments(c, at.project.id, query))
    return Json(Found.of(read).shown(page, shapes.environment))


@router.post("/environments", status_code=201)
async def create_environment(
    at: ProjectAdminister,
    body: Annotated[CreateEnvironmentBody, Depends(JsonBody(CreateEnvironmentBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Create an environment in which every flag is there, switched off."""
    outcome = await doing(CreateEnvironment(project=at.project.id, **body.given()), at.actor)
    key = shapes.shape(outcome.entity)["key"]
    return created(outcome, f"/api/v2/projects/{at.project.key}/environments/{key}")


@router.get("/environments/{e}")
async def read_environment(at: ProjectRead, e: EnvironmentRef, services: Served) -> Response:
    """Return one environment."""
    return one(await services.database.read(lambda connection: environment_of(StoredView(connection), at.project, e)))


@router.put("/environments/{e}")
@router.patch("/environments/{e}")
async def update_environment(
    at: ProjectAdminister,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[UpdateEnvironmentBody, Depends(JsonBody(UpdateEnvironmentBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Change the named fields of an environment."""
    command = UpdateEnvironment(project=at.project.id, environment=e, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


@router.delete("/environments/{e}", status_code=204)
async def delete_environment(at: ProjectAdminister, e: EnvironmentRef, if_match: IfMatch, doing: Doing) -> Response:
    """Delete an environment: its keys die, its streams end."""
    command = DeleteEnvironment(project=at.project.id, environment=e, if_match=if_match)
    await doing(command, at.actor)
    return gone()


@router.post("/environments/{e}:clone", status_code=201)
async def clone_environment(
    at: ProjectAdminister,
    e: EnvironmentRef,
    body: Annotated[CloneEnvironmentBody, Depends(JsonBody(CloneEnvironmentBody, is_required=False))],
    doing: Doing,
) -> Response:
    """Create an environment in which every flag is as in this one, with the same users in rollouts; it has no keys."""
    outcome = await doing(CloneEnvironment(project=at.project.id, environment=e, **body.given()), at.actor)
    key = shapes.shape(outcome.entity)["key"]
    return created(outcome, f"/api/v2/projects/{at.project.key}/environments/{key}")


@router.post("/environments:reorder")
async def reorder_environments(
    at: ProjectAdminister,
    body: Annotated[ReorderEnvironmentsBody, Depends(JsonBody(ReorderEnvironmentsBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Put the environments into another order, and return them in it."""
    await doing(ReorderEnvironments(project=at.project.id, environments=body.environments), at.actor)
    found = await services.database.read(lambda connection: StoredView(connection).environments(at.project.id))
    return whole([shapes.environment(each) for each in found])
