"""`/projects/{p}/flags/{f}/environments` and `:toggle`, `:kill`: what a flag does in one environment."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import changed, one, whole
from upstream.api.body import BaseVersion, Body, JsonBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.places import EnvironmentRef, FlagRef, Place, ProjectRead, ProjectWrite, place_of
from upstream.api.services import Served
from upstream.domain.commands import ConfigFields, KillFlag, ToggleFlag, UpdateConfig
from upstream.domain.lookup import flag_of
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/flags", tags=["flags"])


class ConfigBody(Body):
    """What a flag does in one environment.

    A serve is `{"variation": KEY}`, `{"value": JSON}`, a split or a ramp. `rules` and `targets` replace the whole list.
    `off` names the variation that is served while the flag is off; null serves none, and the code's default holds.
    """

    enabled: bool = absent()
    off: str | None = absent()
    off_value: Any = absent()
    fallthrough: dict[str, Any] = absent()
    rules: list[dict[str, Any]] = absent()
    targets: list[dict[str, Any]] = absent()

    def fields(self) -> ConfigFields:
        """Return the named fields as the commands take them."""
        return ConfigFields(**{name: getattr(self, name) for name in ConfigBody.model_fields})


class UpdateConfigBody(ConfigBody):
    """What to change of a flag in one environment."""

    base_version: BaseVersion = None


class ToggleBody(Body):
    """Which environment, and to which side; without `enabled` to the other one."""

    environment: str
    enabled: bool | None = None
    reason: str | None = Field(default=None, max_length=1_000)


class KillBody(Body):
    """Which environment, and why."""

    environment: str
    reason: str | None = Field(default=None, max_length=1_000)


@router.get("/{f}/environments")
async def list_configs(at: ProjectRead, f: FlagRef, services: Served) -> Response:
    """Return what a flag does in each environment of its project, in their order."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        view = StoredView(connection)
        flag = flag_of(view, at.project, f)
        configs = view.configs(flag.id)
        places = [Place(flag, each, configs[each.id]) for each in view.environments(at.project.id)]
        return [{**shapes.config(place.config), **names(place)} for place in places]

    return whole(await services.database.read(look))


@router.get("/{f}/environments/{e}")
async def read_config(at: ProjectRead, f: FlagRef, e: EnvironmentRef, services: Served) -> Response:
    """Return what a flag does in one environment."""
    place = await place_of(services, at.project, f, e)
    return one(place.config, names(place))


@router.put("/{f}/environments/{e}")
@router.patch("/{f}/environments/{e}")
async def update_config(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[UpdateConfigBody, Depends(JsonBody(UpdateConfigBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Change the named fields of a flag in one environment."""
    place = await place_of(services, at.project, f, e)
    command = UpdateConfig(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        fields=body.fields(),
        if_match=if_match,
        base_version=body.base_version,
    )
    return changed(await doing(command, at.actor), names(place))


@router.post("/{f}:toggle")
async def toggle_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[ToggleBody, Depends(JsonBody(ToggleBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Switch a flag on or off in one environment."""
    place = await place_of(services, at.project, f, body.environment)
    command = ToggleFlag(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        enabled=body.enabled,
        reason=body.reason,
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))


@router.post("/{f}:kill")
async def kill_flag(
    at: ProjectWrite, f: FlagRef, body: Annotated[KillBody, Depends(JsonBody(KillBody))], services: Served, doing: Doing
) -> Response:
    """Switch a flag off in one environment at once; also an archived one, and whatever version somebody else saw."""
    place = await place_of(services, at.project, f, body.environment)
    command = KillFlag(project=at.project.id, flag=place.flag.id, environment=place.environment.id, reason=body.reason)
    return changed(await doing(command, at.actor), names(place))


def names(place: Place) -> Mapping[str, str]:
    """Return what an answer about a flag in an environment says beside it."""
    return {"flag": place.flag.key, "environment": place.environment.key}
