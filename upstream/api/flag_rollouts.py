"""`/projects/{p}/flags/{f}/environments/{e}/targets:add` and `:remove`, `:rollout`, `:ramp`: a config by its verbs.

Everything here can be said by changing the config as well; percentages are in percent here and in buckets there.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import Field, WithJsonSchema

from upstream.api.answers import changed
from upstream.api.body import Body, JsonBody
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.flag_configs import names
from upstream.api.places import EnvironmentRef, FlagRef, ProjectWrite, place_of
from upstream.api.services import Served
from upstream.domain.flag_commands import AddTargets, RampUp, RemoveTargets, RollOut

router = APIRouter(prefix="/projects/{p}/flags/{f}/environments", tags=["flags"])

# Looked at one by one where they are used, so that each fault is named.
Units = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": ["string", "integer"]}})]
Percentage = Annotated[float, Field(description="From 0 to 100, with up to three decimals.")]


class AddTargetsBody(Body):
    """Which units, and what they get."""

    variation: str
    units: Units


class RemoveTargetsBody(Body):
    """Which units; of one variation, or of all when it is left out."""

    variation: str | None = None
    units: Units


class RolloutBody(Body):
    """How many percent of the units get a variation; the rest gets the off variation.

    Without `variation` it is true in a boolean flag, else what the fallthrough serves now.
    """

    percentage: Percentage
    variation: str | None = None
    by: str | None = Field(default=None, description="The attribute that is the unit; as now when it is left out.")


class RampBody(Body):
    """What a growing share of the units gets; the rest gets `else`, or the off variation when that is left out.

    The share is `increment` percent more every `every_s` seconds from `start_at` on, up to `target` percent.
    """

    to: str
    otherwise: str | None = Field(default=None, alias="else")
    start_at: str | None = Field(default=None, description="Now when it is left out; null: not yet.")
    increment: Percentage = 10
    every_s: int = 86_400
    target: Percentage = 100
    by: str | None = Field(default=None, description="The attribute that is the unit; as now when it is left out.")

    def ramp(self) -> dict[str, Any]:
        """Return the ramp as the command takes it."""
        given = self.given()
        if "otherwise" in given:
            given["else"] = given.pop("otherwise")
        optional = {name for name in ("else", "by") if given.get(name) is None}
        return {name: value for name, value in given.items() if name not in optional}


@router.post("/{e}/targets:add")
async def add_targets(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[AddTargetsBody, Depends(JsonBody(AddTargetsBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Let units get one variation whatever the rules say; units that were another variation's targets move."""
    place = await place_of(services, at.project, f, e)
    command = AddTargets(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        variation=body.variation,
        units=body.units,
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))


@router.post("/{e}/targets:remove")
async def remove_targets(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[RemoveTargetsBody, Depends(JsonBody(RemoveTargetsBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Let units be targets no longer; those that are none do not matter."""
    place = await place_of(services, at.project, f, e)
    command = RemoveTargets(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        variation=body.variation,
        units=body.units,
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))


@router.post("/{e}:rollout")
async def roll_out(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[RolloutBody, Depends(JsonBody(RolloutBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Serve one variation to a percentage of the units where no rule matches; growing keeps everybody who was in."""
    place = await place_of(services, at.project, f, e)
    command = RollOut(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        percentage=body.percentage,
        variation=body.variation,
        by=body.by,
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))


@router.post("/{e}:ramp")
async def ramp_up(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[RampBody, Depends(JsonBody(RampBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Serve one variation to a share of the units that grows with time, where no rule matches."""
    place = await place_of(services, at.project, f, e)
    command = RampUp(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        ramp=body.ramp(),
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))
