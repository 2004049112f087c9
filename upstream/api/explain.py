"""`POST /explain`: why a flag serves what it serves, now, at another time, or at an earlier revision.

The engine's own run, with a note of every step; nothing is counted as an evaluation and nothing is changed.
"""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Response
from pydantic import Field
from sqlalchemy import Connection

from relay.ask.text import members_of
from relay.clock import rfc3339
from relay.engine.explain import explain
from relay.engine.model import ErrorCode
from relay.engine.parse import InvalidConfig
from relay.errors import Problem
from upstream.api.body import Body, JsonBody, Moment
from upstream.api.caller import FlagReader
from upstream.api.places import project_at
from upstream.api.services import Served
from upstream.domain.entities import Environment, Project
from upstream.domain.errors import Kind, Rejected, not_found
from upstream.domain.lookup import environment_of
from upstream.domain.naming import is_id
from upstream.domain.question import Objects, environment_for
from upstream.storage.history import read_snapshot
from upstream.storage.past import Past, read_past
from upstream.storage.view import StoredView

router = APIRouter(tags=["explain"])

Reference = Annotated[str, Field(min_length=1, max_length=200)]


class ExplainBody(Body):
    """Which flag for whom, and when; each name is an id or a key."""

    project: Reference
    environment: Reference
    flag: Reference
    context: dict[str, Any] = Field(default={}, description='Such as {"targetingKey": "user-1", "country": "de"}.')
    at: Moment | None = Field(default=None, description="The moment to evaluate at; now by default.")
    revision: int | None = Field(
        default=None, ge=1, lt=1 << 53, description="The configuration to evaluate: an earlier revision."
    )


@router.post("/explain")
async def explain_flag(
    actor: FlagReader, body: Annotated[ExplainBody, Depends(JsonBody(ExplainBody))], services: Served
) -> Response:
    """Return what a flag serves for a context, and every step that led to it."""
    at_ms = services.clock.wall_ms() if body.at is None else body.at

    def look(connection: Connection) -> dict[str, Any]:
        view = StoredView(connection)
        project = project_at(connection, actor, body.project)
        environment = environment_of(view, project, body.environment)
        return _explained(connection, project, environment, body, at_ms)

    members = await services.database.read(look)
    # A step may show what was compared, which need not be JSON.
    return Response(orjson.dumps(members, default=str), media_type="application/json")


def _explained(
    connection: Connection, project: Project, environment: Environment, body: ExplainBody, at_ms: int
) -> dict[str, Any]:
    revision = body.revision or environment.revision
    objects = _objects(connection, environment, body.revision)
    flag = _key_of(body.flag, objects.flags)
    try:
        found = explain(
            environment_for(flag, project, environment, revision, flags=objects.flags, segments=objects.segments),
            flag,
            body.context,
            at_ms,
        )
    except InvalidConfig as invalid:
        detail = f"Revision {revision} has something in it that this version does not read: {invalid}."
        raise Problem(422, "not_evaluable", detail, errors={"revision": [detail]}) from None
    if found.evaluation.error_code is ErrorCode.FLAG_NOT_FOUND:
        detail = f"{environment.key!r} has no flag {body.flag!r} at revision {revision}; archived flags are not in it."
        raise Rejected(Kind.NOT_FOUND, detail, code="flag_not_found")
    return {
        "project": project.key,
        "environment": environment.key,
        "revision": revision,
        "at": rfc3339(at_ms),
        "flag": flag,
        **members_of(found.evaluation),
        "steps": [step.members() for step in found.steps],
    }


def _objects(connection: Connection, environment: Environment, revision: int | None) -> Past:
    if revision is not None and revision != environment.revision:
        return read_past(connection, environment, revision)
    state = read_snapshot(connection, environment.id)
    if state is None:
        raise not_found("environment", environment.key)
    return Past(state.flags, state.segments)


def _key_of(reference: str, flags: Objects) -> str:
    """Return the key that a flag has in this configuration."""
    if not is_id(reference):
        return reference
    stands = b'"id":' + orjson.dumps(reference.lower())
    return next(
        (key for key, raw in flags.items() if stands in raw and orjson.loads(raw)["id"] == reference.lower()), reference
    )
