"""`/projects/{p}/flags`: what flags are in every environment, and how they are archived, restored and deleted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, WithJsonSchema
from sqlalchemy import Connection

from relay.errors import Problem
from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import BaseVersion, Body, JsonBody, Moment, NewBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.flag_configs import ConfigBody
from upstream.api.flag_states import environment_keys, states, states_after
from upstream.api.paging import Found, Paged
from upstream.api.places import FlagRef, InProject, ProjectRead, ProjectRemove, ProjectWrite
from upstream.api.services import Served, Services
from upstream.api.stale import shown_reasons, stale_of, stale_of_project
from upstream.domain.commands import ArchiveFlag, CreateFlag, DeleteFlag, RestoreFlag, UpdateFlag
from upstream.domain.entities import Flag, FlagKind, FlagTemplate, FlagType, NumberFormat, TemplateFlavor
from upstream.domain.errors import not_found
from upstream.domain.flags import MAX_TAGS
from upstream.domain.lookup import environment_of
from upstream.domain.naming import NAME_CHARACTERS
from upstream.storage import reads
from upstream.storage.reads import FlagFilter, FlagRow
from upstream.storage.usage import last_evaluated
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/flags", tags=["flags"])

# Looked at one by one where they are used, so that each fault is named.
Prerequisites = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": ["string", "object"]}})]
TypeField = Annotated[FlagType, Field(strict=False)]
KindField = Annotated[FlagKind, Field(strict=False)]


class CreateFlagBody(NewBody, ConfigBody):
    """A new flag, in every environment at once.

    The config fields hold for every environment, `environments` (by id or key) on top of it for single ones.
    """

    description: str | None = None
    template: FlagTemplate | None = Field(
        default=None, description="Makes type, variations and configs; see `/flag-templates`."
    )
    flavor: TemplateFlavor | None = Field(default=None, description="The type of the values of an ab_test.")
    type: TypeField | None = Field(default=None, description="Inferred from the values when it is left out.")
    kind: KindField = Field(default=FlagKind.RELEASE, description="Release, unless a template says otherwise.")
    tags: list[str] = Field(default=[])
    metadata: dict[str, Any] = Field(default={})
    is_active: bool = Field(default=True, description="True, unless a template says otherwise.")
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
    base_version: BaseVersion = None


class ArchiveBody(Body):
    """How to archive."""

    force: bool = Field(default=False, description="Also archive a flag that others require.")


class RestoreBody(Body):
    """Nothing needs to be said to restore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters of the list."""

    fields: Mapping[str, Any]
    environment: str | None
    stale: bool | None

    def filter(self, connection: Connection, services: Services, at: InProject) -> FlagFilter:
        """Return what is to be read.

        Raises:
            Rejected: there is no such environment.
        """
        wanted = FlagFilter(**self.fields)
        if self.environment is not None:
            environment = environment_of(StoredView(connection), at.project, self.environment)
            wanted = replace(wanted, environment_id=environment.id)
        if self.stale is not None:
            found = stale_of_project(connection, services, at.project.id)
            wanted = replace(wanted, ids=[each for each, reasons in found.items() if bool(reasons) == self.stale])
        return wanted


async def asked_filter(
    services: Served,
    type: Annotated[FlagType | None, Query(description="Only flags of this type.")] = None,  # noqa: A002 - the API's name
    kind: Annotated[FlagKind | None, Query(description="Only flags of this kind.")] = None,
    tag: Annotated[list[str] | None, Query(description="Only flags with this tag; given more than once, all.")] = None,
    owner: Annotated[str | None, Query(max_length=200, description="Only flags of this owner.")] = None,
    environment: Annotated[str | None, Query(description="Where to look with `enabled`; id or key.")] = None,
    enabled: Annotated[bool | None, Query(description="Only flags on, or off, in `environment`.")] = None,
    expired: Annotated[bool | None, Query(description="Only flags past their `expires_at`, or the others.")] = None,
    archived: Annotated[bool, Query(description="Archived flags instead of live ones.")] = False,  # noqa: FBT002 - a query parameter
    stale: Annotated[bool | None, Query(description="Only flags that are stale, or only those that are not.")] = None,
) -> Wanted:
    """Return the filters that the query parameters ask for.

    Raises:
        Problem: 422 for half a filter, or tags beyond measure.
    """
    errors: dict[str, list[str]] = {}
    if (environment is None) != (enabled is None):
        errors["enabled"] = ["Give `environment` and `enabled` together: flags are on or off in an environment."]
    if len(tag or ()) > MAX_TAGS or any(len(each) > NAME_CHARACTERS for each in tag or ()):
        errors["tag"] = [f"At most {MAX_TAGS} tags of at most {NAME_CHARACTERS} characters can be looked for."]
    if errors:
        detail = f"These parameters cannot be used: {', '.join(errors)}."
        raise Problem(422, "invalid_parameters", detail, errors=errors)
    fields = {"archived": archived, "type": type, "kind": kind, "tags": tag or (), "owner": owner, "enabled": enabled}
    return Wanted(
        fields={**fields, "expired": expired, "expired_at": services.clock.wall_ms()},
        environment=environment,
        stale=stale,
    )


@router.get("")
async def list_flags(
    at: ProjectRead, page: Paged, services: Served, wanted: Annotated[Wanted, Depends(asked_filter)]
) -> Response:
    """List the flags of a project, with the reasons for which they are stale, if they are."""
    query = page.query(Flag)

    def look(connection: Connection) -> dict[str, Any]:
        read = reads.list_flags(connection, at.project.id, query, wanted.filter(connection, services, at))
        names = environment_keys(connection, at.project.id)
        hours = last_evaluated(connection, at.project.id, [row.flag.id for row in read.items])
        found = stale_of(read.items, names, hours, services.stale, services.clock.wall_ms())

        def shown(row: FlagRow) -> dict[str, Any]:
            reasons = shown_reasons(found[row.flag.id])
            return {**shapes.flag(row.flag), **states(row.configs, names, hours), "stale": reasons}

        return Found.of(read).shown(page, shown)

    return Json(await services.database.read(look))


@router.post("", status_code=201)
async def create_flag(
    at: ProjectWrite,
    body: Annotated[CreateFlagBody, Depends(JsonBody(CreateFlagBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Create a flag in every environment."""
    command = CreateFlag(
        project=at.project.id,
        config=body.fields(),
        environments={reference: config.fields() for reference, config in body.environments.items()},
        **body.given("environments", *ConfigBody.model_fields),
    )
    outcome = await doing(command, at.actor)
    states = await states_after(services, outcome)
    return created(outcome, f"/api/v2/projects/{at.project.key}/flags/{shapes.shape(outcome.entity)['key']}", states)


@router.get("/{f}")
async def read_flag(at: ProjectRead, f: FlagRef, services: Served) -> Response:
    """Return one flag, archived or not."""

    def look(connection: Connection) -> tuple[Flag, dict[str, Any]]:
        row = reads.get_flag(connection, at.project.id, f)
        if row is None:
            raise not_found("flag", f)
        hours = last_evaluated(connection, at.project.id, [row.flag.id])
        return row.flag, states(row.configs, environment_keys(connection, at.project.id), hours)

    flag, shown = await services.database.read(look)
    return one(flag, shown)


@router.put("/{f}")
@router.patch("/{f}")
async def update_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[UpdateFlagBody, Depends(JsonBody(UpdateFlagBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Change the named fields of a flag in every environment."""
    command = UpdateFlag(project=at.project.id, flag=f, if_match=if_match, **body.given())
    outcome = await doing(command, at.actor)
    return changed(outcome, await states_after(services, outcome))


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
    return changed(outcome, await states_after(services, outcome))


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
    return changed(outcome, await states_after(services, outcome))
