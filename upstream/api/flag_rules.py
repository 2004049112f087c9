"""`/projects/{p}/flags/{f}/environments/{e}/rules`: the rules of a flag in one environment, one at a time.

Versions in headers are those of the config that the rules belong to.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field

from upstream.api import shapes
from upstream.api.answers import Json, changed, warnings_of, whole
from upstream.api.body import Body, JsonBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch, etag
from upstream.api.flag_configs import names
from upstream.api.places import EnvironmentRef, FlagRef, Place, ProjectRead, ProjectWrite, place_of
from upstream.api.services import Served
from upstream.domain.entities import Entity, FlagConfig, Rule
from upstream.domain.flag_commands import AddRule, DeleteRule, ReorderRules, UpdateRule
from upstream.domain.flag_rules import rule_of

router = APIRouter(prefix="/projects/{p}/flags/{f}/environments/{e}", tags=["flags"])

RuleRef = Annotated[str, Path(description="Id of the rule.")]


class RuleBody(Body):
    """What a rule says: a condition, and exactly one of `serve`, `variation` and `value`."""

    name: str | None = absent()
    when: dict[str, Any] = absent()
    serve: dict[str, Any] = absent()
    variation: str = absent()
    value: Any = absent()
    is_active: bool = absent()


class NewRuleBody(RuleBody):
    """A new rule, last unless `position` (from 0) says otherwise."""

    position: int | None = Field(default=None, description="From 0; behind all others when it is left out.")


class ReorderBody(Body):
    """The ids of all rules that are there, in the order in which they shall be looked at."""

    rules: list[str]


@router.get("/rules")
async def list_rules(at: ProjectRead, f: FlagRef, e: EnvironmentRef, services: Served) -> Response:
    """Return the rules of a flag in one environment, in their order."""
    place = await place_of(services, at.project, f, e)
    data = [_rule(place, place.config, rule) for rule in place.config.rules]
    return whole(data, place.config)


@router.post("/rules", status_code=201)
async def add_rule(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[NewRuleBody, Depends(JsonBody(NewRuleBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Add a rule."""
    place = await place_of(services, at.project, f, e)
    outcome = await doing(
        AddRule(
            project=at.project.id,
            flag=place.flag.id,
            environment=place.environment.id,
            rule=body.given("position"),
            position=body.position,
            if_match=if_match,
        ),
        at.actor,
    )
    config = _config(outcome.entity)
    rule = config.rules[len(config.rules) - 1 if body.position is None else body.position]
    answer = Json({**_rule(place, config, rule), **warnings_of(outcome)}, 201, {"ETag": etag(config)})
    path = f"/api/v2/projects/{at.project.key}/flags/{place.flag.key}/environments/{place.environment.key}/rules"
    answer.headers["Location"] = f"{path}/{rule.id}"
    return answer


@router.get("/rules/{id}")
async def read_rule(at: ProjectRead, f: FlagRef, e: EnvironmentRef, id: RuleRef, services: Served) -> Response:  # noqa: A002 - the API's name
    """Return one rule."""
    place = await place_of(services, at.project, f, e)
    return Json(_rule(place, place.config, rule_of(place.config, id)), headers={"ETag": etag(place.config)})


@router.patch("/rules/{id}")
async def update_rule(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    id: RuleRef,  # noqa: A002 - the API's name
    if_match: IfMatch,
    body: Annotated[RuleBody, Depends(JsonBody(RuleBody, is_judged_whole=True))],
    services: Served,
    doing: Doing,
) -> Response:
    """Change the named fields of a rule."""
    place = await place_of(services, at.project, f, e)
    outcome = await doing(
        UpdateRule(
            project=at.project.id,
            flag=place.flag.id,
            environment=place.environment.id,
            rule=id,
            changes=body.given(),
            if_match=if_match,
        ),
        at.actor,
    )
    config = _config(outcome.entity)
    shown = _rule(place, config, rule_of(config, id))
    return Json({**shown, **warnings_of(outcome)}, headers={"ETag": etag(config)})


@router.delete("/rules/{id}", status_code=204)
async def delete_rule(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    id: RuleRef,  # noqa: A002 - the API's name
    if_match: IfMatch,
    services: Served,
    doing: Doing,
) -> Response:
    """Take a rule away; the config's new version is in the ETag."""
    place = await place_of(services, at.project, f, e)
    outcome = await doing(
        DeleteRule(
            project=at.project.id, flag=place.flag.id, environment=place.environment.id, rule=id, if_match=if_match
        ),
        at.actor,
    )
    return Response(status_code=204, headers={"ETag": etag(outcome.entity)})


@router.post("/rules:reorder")
async def reorder_rules(
    at: ProjectWrite,
    f: FlagRef,
    e: EnvironmentRef,
    if_match: IfMatch,
    body: Annotated[ReorderBody, Depends(JsonBody(ReorderBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Put the rules into another order."""
    place = await place_of(services, at.project, f, e)
    command = ReorderRules(
        project=at.project.id,
        flag=place.flag.id,
        environment=place.environment.id,
        rules=body.rules,
        if_match=if_match,
    )
    return changed(await doing(command, at.actor), names(place))


def _config(entity: Entity) -> FlagConfig:
    assert isinstance(entity, FlagConfig)  # noqa: S101 - what commands about rules are about
    return entity


def _rule(place: Place, config: FlagConfig, rule: Rule) -> dict[str, Any]:
    """Return a rule as answers show it; `version` is the config's."""
    return {**shapes.rule(rule), "position": config.rules.index(rule), **names(place), "version": config.version}
