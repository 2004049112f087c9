"""`/projects/{p}/flags`: what flags are in every environment, and how they are archived, restored and deleted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, WithJsonSchema
from sqlalchemy import Connection

from relay.clock import rfc3339
from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import Body, JsonBody, Moment, NewBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.flag_configs import ConfigBody
from upstream.api.paging import Found, Paged
from upstream.api.places import FlagRef, InProject, ProjectRead, ProjectRemove, ProjectWrite
from upstream.api.services import Served, Services
from upstream.api.stale import Hours, shown_reasons, stale_of, stale_of_project
from upstream.authority import Outcome
from upstream.domain.commands import ArchiveFlag, CreateFlag, DeleteFlag, RestoreFlag, UpdateFlag
from upstream.domain.entities import Flag, FlagConfig, FlagKind, FlagType, NumberFormat
from upstream.domain.errors import not_found
from upstream.storage import reads
from upstream.storage.reads import FlagFilter, FlagRow
from upstream.storage.usage import last_evaluated
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/flags", tags=["flags"])

EnvironmentKeys: TypeAlias = Mapping[str, str]
"""Environment id -> key, in the environments' order."""

# Looked at one by one where they are used, so that each fault is named.
Prerequisites = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": ["string", "object"]}})]
TypeField = Annotated[FlagType, Field(strict=False)]
KindField = Annotated[FlagKind, Field(strict=False)]


class CreateFlagBody(NewBody, ConfigBody):
    """A new flag, in every environment at once.

    The config fields hold for every environment, `environments` (by id or key) on top of it for single ones.
    """

    description: str | None = None
    type: TypeField | None = Field(default=None, description="Inferred from the values when it is left out.")
    kind: KindField = FlagKind.RELEASE
    tags: list[str] = Field(default=[])
    metadata: dict[str, Any] = Field(default={})
    is_active: bool = True
    client_side_enabled: bool = True
    analytics_enabled: bool = True
    prerequisites: Prerequisites = Field(default=[], description="Keys, or `{flag, variations?}` each.")
    mutual_exclusion_group: str | None = None
    variations: list[dict[str, Any]] | None = Field(default=None, description="`{key?, value, name?}` each.")
    default_value: Any = absent()
    number_format: NumberFormat | None = Field(
        default=None, description="How the values of a number flag are meant; inferred from them when it is left out."
    )
    owner: str | None = None
    expires_at: Moment | None = None
    environments: dict[str, ConfigBody] = Field(default={})


class UpdateFlagBody(Body):
    """What to change of a flag; a list replaces the whole list."""

    name: str = absent()
    description: str | None = absent()
    type: TypeField = absent()
    confirm_type_change: bool = Field(
        default=False, description="A new type replaces variations, rules, targets and serves in every environment."
    )
    kind: KindField = absent()
    tags: list[str] = absent()
    metadata: dict[str, Any] = absent()
    is_active: bool = absent()
    client_side_enabled: bool = absent()
    analytics_enabled: bool = absent()
    prerequisites: Prerequisites = absent()
    mutual_exclusion_group: str | None = absent()
    variations: list[dict[str, Any]] = absent()
    number_format: NumberFormat | None = absent()
    owner: str | None = absent()
    expires_at: Moment | None = absent()


class ArchiveBody(Body):
    """How to archive."""

    force: bool = Field(default=False, description="Also archive a flag that others require.")


class RestoreBody(Body):
    """Nothing needs to be said to restore."""


@router.get("")
async def list_flags(
    at: ProjectRead,
    page: Paged,
    services: Served,
    type: Annotated[FlagType | None, Query(description="Only flags of this type.")] = None,  # noqa: A002 - the API's name
    kind: Annotated[FlagKind | None, Query(description="Only flags of this kind.")] = None,
    tag: Annotated[str | None, Query(max_length=200, description="Only flags with this tag.")] = None,
    archived: Annotated[bool, Query(description="Archived flags instead of live ones.")] = False,  # noqa: FBT002 - a query parameter
    stale: Annotated[bool | None, Query(description="Only flags that are stale, or only those that are not.")] = None,
) -> Response:
    """List the flags of a project, with the reasons for which they are stale, if they are."""
    query = page.query(Flag)
    wanted = FlagFilter(archived=archived, type=type, kind=kind, tag=tag)

    def look(connection: Connection) -> dict[str, Any]:
        chosen = wanted
        if stale is not None:
            found = stale_of_project(connection, services, at.project.id)
            chosen = replace(wanted, ids=[each for each, reasons in found.items() if bool(reasons) == stale])
        read, names = reads.list_flags(connection, at.project.id, query, chosen), _environment_keys(connection, at)
        hours = last_evaluated(connection, at.project.id, [row.flag.id for row in read.items])
        reasons_of = stale_of(read.items, names, hours, services.stale, services.clock.wall_ms())

        def shown(row: FlagRow) -> dict[str, Any]:
            reasons = shown_reasons(reasons_of[row.flag.id])
            return {**shapes.flag(row.flag), **_states(row.configs, names, hours), "stale": reasons}

        return Found.of(read).shown(page, shown)

    return Json(await services.database.read(look))


@router.post("", status_code=201)
async def create_flag(
    at: ProjectWrite, body: Annotated[CreateFlagBody, Depends(JsonBody(CreateFlagBody))], services: Served, doing: Doing
) -> Response:
    """Create a flag in every environment."""
    command = CreateFlag(
        project=at.project.id,
        config=body.fields(),
        environments={reference: config.fields() for reference, config in body.environments.items()},
        **body.given("environments", *ConfigBody.model_fields),
    )
    outcome = await doing(command, at.actor)
    states = await _states_after(services, at, outcome)
    return created(outcome, f"/api/v2/projects/{at.project.key}/flags/{shapes.shape(outcome.entity)['key']}", states)


@router.get("/{f}")
async def read_flag(at: ProjectRead, f: FlagRef, services: Served) -> Response:
    """Return one flag, archived or not."""

    def look(connection: Connection) -> tuple[FlagRow, dict[str, Any]]:
        row = reads.get_flag(connection, at.project.id, f)
        if row is None:
            raise not_found("flag", f)
        hours = last_evaluated(connection, at.project.id, [row.flag.id])
        return row, _states(row.configs, _environment_keys(connection, at), hours)

    row, states = await services.database.read(look)
    return one(row.flag, states)


@router.put("/{f}")
@router.patch("/{f}")
async def update_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[UpdateFlagBody, Depends(JsonBody(UpdateFlagBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Change the named fields of a flag in every environment."""
    command = UpdateFlag(project=at.project.id, flag=f, if_match=if_match, **body.given())
    outcome = await doing(command, at.actor)
    return changed(outcome, await _states_after(services, at, outcome))


@router.delete("/{f}", status_code=204)
async def delete_flag(
    at: ProjectRemove,
    f: FlagRef,
    if_match: IfMatch,
    doing: Doing,
    force: Annotated[bool, Query(description="Also delete a flag that others require.")] = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """Delete a flag; its key is free at once."""
    command = DeleteFlag(project=at.project.id, flag=f, force=force, if_match=if_match)
    await doing(command, at.actor)
    return gone()


@router.post("/{f}:archive")
async def archive_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[ArchiveBody, Depends(JsonBody(ArchiveBody, is_required=False))],
    services: Served,
    doing: Doing,
) -> Response:
    """Hide a flag and stop serving it."""
    command = ArchiveFlag(project=at.project.id, flag=f, force=body.force, if_match=if_match)
    outcome = await doing(command, at.actor)
    return changed(outcome, await _states_after(services, at, outcome))


@router.post("/{f}:restore")
async def restore_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[RestoreBody, Depends(JsonBody(RestoreBody, is_required=False))],  # noqa: ARG001 - read to be checked
    services: Served,
    doing: Doing,
) -> Response:
    """Bring an archived flag back as it was."""
    command = RestoreFlag(project=at.project.id, flag=f, if_match=if_match)
    outcome = await doing(command, at.actor)
    return changed(outcome, await _states_after(services, at, outcome))


async def _states_after(services: Services, at: InProject, outcome: Outcome) -> dict[str, Any]:
    """Return how the flag that was changed stands in each environment."""
    flag_id = shapes.shape(outcome.entity)["id"]

    def look(connection: Connection) -> dict[str, Any]:
        hours = last_evaluated(connection, at.project.id, [flag_id])
        return _states(StoredView(connection).configs(flag_id), _environment_keys(connection, at), hours)

    return await services.database.read(look)


def _environment_keys(connection: Connection, at: InProject) -> EnvironmentKeys:
    return {each.id: each.key for each in StoredView(connection).environments(at.project.id)}


def _states(configs: Mapping[str, FlagConfig], keys: EnvironmentKeys, evaluated: Hours) -> dict[str, Any]:
    """Return the summary by environment; the whole of it is at `/flags/{f}/environments`."""
    known = {key: configs[environment_id] for environment_id, key in keys.items() if environment_id in configs}
    return {"environments": {key: _state(config, evaluated) for key, config in known.items()}}


def _state(config: FlagConfig, evaluated: Hours) -> dict[str, Any]:
    hour = evaluated.get((config.flag_id, config.environment_id))
    return {
        "enabled": config.enabled,
        "version": config.version,
        "last_evaluated_at": None if hour is None else rfc3339(hour),
    }
