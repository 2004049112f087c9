"""`/projects/{p}/flags:toggle`, `:archive` and `:tag`: many flags at once, all of them or none."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, warnings_of
from upstream.api.body import Body, JsonBody
from upstream.api.doing import Doing
from upstream.api.places import InProject, ProjectWrite
from upstream.api.services import Served, Services
from upstream.authority import Outcome
from upstream.domain.bulk import flags_listed, in_order_of_ending
from upstream.domain.commands import ArchiveFlag, Batch, ToggleFlag
from upstream.domain.entities import Environment, Flag
from upstream.domain.flag_commands import TagFlag
from upstream.domain.lookup import environment_of
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}", tags=["flags"])

FlagList = Annotated[list[str], Field(description="Ids or keys of 1 to 100 flags.")]


class ToggleFlagsBody(Body):
    """Which flags, where, and to which side."""

    flags: FlagList
    environment: str
    enabled: bool
    reason: str | None = Field(default=None, max_length=1_000)


class ArchiveFlagsBody(Body):
    """Which flags."""

    flags: FlagList
    force: bool = Field(default=False, description="Also archive flags that others, not listed here, require.")


class TagFlagsBody(Body):
    """Which flags, and the tags that they get and lose."""

    flags: FlagList
    add: list[str] = Field(default=[])
    remove: list[str] = Field(default=[])


@router.post("/flags:toggle")
async def toggle_flags(
    at: ProjectWrite,
    body: Annotated[ToggleFlagsBody, Depends(JsonBody(ToggleFlagsBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Switch many flags in one environment, as one revision; the answer has each flag's config version."""

    def look(connection: Connection) -> tuple[Environment, tuple[Flag, ...]]:
        view = StoredView(connection)
        return environment_of(view, at.project, body.environment), flags_listed(view, at.project, body.flags)

    environment, flags = await services.database.read(look)
    commands = tuple(
        ToggleFlag(
            project=at.project.id,
            flag=flag.id,
            environment=environment.id,
            enabled=body.enabled,
            reason=body.reason,
        )
        for flag in flags
    )
    outcome = await doing(Batch(commands=commands), at.actor)

    def look_after(connection: Connection) -> list[dict[str, Any]]:
        view = StoredView(connection)
        configs = {flag.key: view.config(flag.id, environment.id) for flag in flags}
        return [
            {"flag": key, "environment": environment.key, "enabled": config.enabled, "version": config.version}
            for key, config in configs.items()
            if config is not None
        ]

    return _answer(outcome, await services.database.read(look_after))


@router.post("/flags:archive")
async def archive_flags(
    at: ProjectWrite,
    body: Annotated[ArchiveFlagsBody, Depends(JsonBody(ArchiveFlagsBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Archive many flags; those that only require each other need no force."""

    def look(connection: Connection) -> tuple[Flag, ...]:
        view = StoredView(connection)
        return in_order_of_ending(view, flags_listed(view, at.project, body.flags), force=body.force)

    flags = await services.database.read(look)
    commands = tuple(ArchiveFlag(project=at.project.id, flag=flag.id, force=body.force) for flag in flags)
    outcome = await doing(Batch(commands=commands), at.actor)
    return _answer(outcome, await _after(services, at, flags))


@router.post("/flags:tag")
async def tag_flags(
    at: ProjectWrite,
    body: Annotated[TagFlagsBody, Depends(JsonBody(TagFlagsBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Add tags to many flags and take others away."""

    def look(connection: Connection) -> tuple[Flag, ...]:
        return flags_listed(StoredView(connection), at.project, body.flags)

    flags = await services.database.read(look)
    commands = tuple(TagFlag(project=at.project.id, flag=flag.id, add=body.add, remove=body.remove) for flag in flags)
    outcome = await doing(Batch(commands=commands), at.actor)
    return _answer(outcome, await _after(services, at, flags))


async def _after(services: Services, at: InProject, flags: tuple[Flag, ...]) -> list[dict[str, Any]]:
    """Return the flags as they now are."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        view = StoredView(connection)
        found = (view.flag(at.project.id, flag.id) for flag in flags)
        return [shapes.flag(flag) for flag in found if flag is not None]

    return await services.database.read(look)


def _answer(outcome: Outcome, data: list[dict[str, Any]]) -> Json:
    return Json({"data": data, "total": len(data), **warnings_of(outcome)})
