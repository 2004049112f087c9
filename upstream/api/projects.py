"""`/projects`: the things that own environments, flags and segments."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import Body, JsonBody, NewBody, absent
from upstream.api.caller import FlagReader, ProjectWriter
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectAdminister, ProjectRead
from upstream.api.services import Served
from upstream.domain.commands import CreateProject, DeleteProject, NewEnvironment, UpdateProject
from upstream.domain.entities import Project
from upstream.storage import reads

router = APIRouter(tags=["projects"])


class NewEnvironmentBody(NewBody):
    """An environment that is made with its project."""

    critical: bool = False


class CreateProjectBody(NewBody):
    """A new project."""

    description: str | None = None
    mau_limit: int | None = None
    environments: list[NewEnvironmentBody] | None = Field(
        default=None, description="By default development, staging and production."
    )


class UpdateProjectBody(Body):
    """What to change of a project."""

    name: str = absent()
    description: str | None = absent()
    mau_limit: int | None = absent()


@router.get("/projects")
async def list_projects(actor: FlagReader, page: Paged, services: Served) -> Response:
    """List the projects that the caller may use."""
    query, mine = page.query(Project), actor.organisation_id
    read = await services.database.read(lambda c: reads.list_projects(c, mine, query, visible=actor.projects))
    return Json(Found.of(read).shown(page, shapes.project))


@router.post("/projects", status_code=201)
async def create_project(
    actor: ProjectWriter,
    body: Annotated[CreateProjectBody, Depends(JsonBody(CreateProjectBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Create a project with its environments."""
    given = body.environments
    environments = None if given is None else [NewEnvironment(**each.given()) for each in given]
    command = CreateProject(**body.given("environments"), environments=environments)
    outcome = await doing(command, actor)
    return created(outcome, f"/api/v2/projects/{shapes.shape(outcome.entity)['key']}")


@router.get("/projects/{p}")  # noqa: FAST003 - `ProjectRead` takes it
async def read_project(at: ProjectRead) -> Response:
    """Return one project."""
    return one(at.project)


@router.put("/projects/{p}")
@router.patch("/projects/{p}")
async def update_project(
    at: ProjectAdminister,
    if_match: IfMatch,
    body: Annotated[UpdateProjectBody, Depends(JsonBody(UpdateProjectBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Change the named fields of a project."""
    command = UpdateProject(project=at.project.id, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


@router.delete("/projects/{p}", status_code=204)  # noqa: FAST003 - `ProjectAdminister` takes it
async def delete_project(at: ProjectAdminister, if_match: IfMatch, doing: Doing) -> Response:
    """Delete a project with all that it owns; its keys die and its streams end."""
    await doing(DeleteProject(project=at.project.id, if_match=if_match), at.actor)
    return gone()
