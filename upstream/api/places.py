"""Finding what a path names, after the permission and before the body: unknown and foreign things are 404.

Every part of a path is an id or a key. A project that the caller is limited away from is 403, everything of another
organisation is 404.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path
from sqlalchemy import Connection

from upstream.api.caller import permitted
from upstream.api.services import Served, Services
from upstream.domain.entities import Environment, Flag, FlagConfig, Project
from upstream.domain.errors import Kind, Rejected, not_found
from upstream.domain.lookup import environment_of, flag_of
from upstream.domain.permissions import Action, Actor, reaches
from upstream.storage.view import StoredView


@dataclass(frozen=True, slots=True)
class InProject:
    """A permitted caller and the project that the path names."""

    actor: Actor
    project: Project


@dataclass(frozen=True, slots=True)
class Place:
    """A flag in one environment."""

    flag: Flag
    environment: Environment
    config: FlagConfig


def project_at(connection: Connection, actor: Actor, reference: str) -> Project:
    """Return the project with that id or key.

    Raises:
        Rejected: there is none in the caller's organisation, or the caller is limited to others.
    """
    project = StoredView(connection).project(actor.organisation_id, reference)
    if project is None:
        raise not_found("project", reference)
    if not reaches(actor, project.id):
        raise Rejected(Kind.FORBIDDEN, f"You are limited to other projects than {project.key!r}.", code="wrong_project")
    return project


async def place_of(services: Services, project: Project, flag: str, environment: str) -> Place:
    """Return the flag in the environment, both of that project.

    Raises:
        Rejected: NOT_FOUND.
    """

    def look(connection: Connection) -> Place:
        view = StoredView(connection)
        found_environment = environment_of(view, project, environment)
        found_flag = flag_of(view, project, flag)
        config = view.config(found_flag.id, found_environment.id)
        if config is None:
            raise not_found("flag", flag)
        return Place(found_flag, found_environment, config)

    return await services.database.read(look)


def in_project(action: Action) -> Callable[..., Awaitable[InProject]]:
    """Return the dependency that checks a permission and finds the project of the path."""

    async def find(
        p: Annotated[str, Path(description="Id or key of the project.")],
        actor: Annotated[Actor, Depends(permitted(action))],
        services: Served,
    ) -> InProject:
        project = await services.database.read(lambda connection: project_at(connection, actor, p))
        return InProject(actor, project)

    return find


ProjectRead = Annotated[InProject, Depends(in_project(Action.FLAGS_READ))]
ProjectWrite = Annotated[InProject, Depends(in_project(Action.FLAGS_WRITE))]
ProjectRemove = Annotated[InProject, Depends(in_project(Action.FLAGS_DELETE))]
ProjectAdminister = Annotated[InProject, Depends(in_project(Action.PROJECTS_WRITE))]
ProjectAudit = Annotated[InProject, Depends(in_project(Action.AUDIT_READ))]

EnvironmentRef = Annotated[str, Path(description="Id or key of the environment.")]
FlagRef = Annotated[str, Path(description="Id or key of the flag.")]
SegmentRef = Annotated[str, Path(description="Id or key of the segment.")]
