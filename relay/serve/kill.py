"""Killing a flag at the relay: `POST /api/v2/projects/{p}/flags/{f}:kill`, also while the upstream is away.

Takes an API token that may write flags, checked against the configuration in memory; the authority checks it again
when the kill reaches it. Answers 202 once the kill is on disk and the flag is off. Names in the path and in the body
are ids or keys, as on the upstream, and are refused with the same codes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.changes.kills import Kills, Order
from relay.changes.outbox import OutboxFull
from relay.clock import rfc3339
from relay.engine.model import Flag
from relay.errors import Problem
from relay.protocol.edge import KILL_PATH, edge_key
from relay.protocol.keys import Kind
from relay.serve.access import Grant, presented_key
from relay.serve.bodies import Field, check_members, parse_json, read_body
from relay.serve.problems import unavailable
from relay.serve.services import Services
from relay.sync.store import Configuration

WRITE: Final = "flags:write"
MAX_REASON_CHARACTERS: Final = 1_000
RETRY_AFTER_S: Final = 5

_BODY: Final[Mapping[str, Field]] = {
    "environment": Field(str, required=True),
    "reason": Field(str, max_length=MAX_REASON_CHARACTERS),
}


def kill_routes(services: Services, kills: Kills) -> Sequence[BaseRoute]:
    """Return the route; the upstream has one of its own."""
    return [Route(KILL_PATH, KillRoute(services, kills).kill, methods=["POST"])]


class KillRoute:
    """The route's handler."""

    def __init__(self, services: Services, kills: Kills) -> None:
        self._services = services
        self._kills = kills

    async def kill(self, request: Request) -> Response:
        """Answer with the overlay that holds the flag off from now on."""
        scope, limits = request.scope, self._services.settings.limits
        grant = self._services.access.authenticate(scope, kinds=frozenset({Kind.TOKEN}), needs=WRITE)
        project = request.path_params["p"]
        self._environments(grant, project)  # refused before the body is read
        raw = await read_body(scope, request.receive, limits.context_bytes, limits.body_s)
        body = check_members(parse_json(raw, limits), _BODY)
        grant = self._services.access.renew(scope, grant)
        configuration = self._environment(self._environments(grant, project), body["environment"])
        flag = _flag(configuration, request.path_params["f"])
        return await self._killed(_order(scope, grant, configuration, flag, body.get("reason")))

    def _environments(self, grant: Grant, project: str) -> list[Configuration]:
        opened = [each for each in grant.configurations if _is_of(each, project)]
        if not opened:
            self._services.access.expect_complete()
            if any(_is_of(each, project) for each in self._services.store.configurations.values()):
                raise Problem(403, "wrong_project", f"This token is not for the project {project!r}.")
            raise _not_found("project", project)
        return opened

    def _environment(self, environments: Sequence[Configuration], name: str) -> Configuration:
        found = next((each for each in environments if name in {each.ref.id, each.ref.key}), None)
        if found is None:
            self._services.access.expect_complete()
            raise _not_found("environment", name)
        return found

    async def _killed(self, order: Order) -> Response:
        try:
            overlay = await self._kills.kill(order)
        except OutboxFull as full:
            raise unavailable("outbox_full", f"The kill was not taken: {full}.", RETRY_AFTER_S) from full
        except OSError as error:
            detail = "The kill was not taken, as it could not be stored here."
            raise unavailable("outbox_unavailable", detail, RETRY_AFTER_S) from error
        answer = {
            "id": overlay.id,
            "flag": overlay.flag,
            "environment": overlay.environment,
            "at": rfc3339(overlay.at_ms),
            "status": overlay.stage,
        }
        return Response(orjson.dumps(answer), 202, media_type="application/json")


def _order(scope: Any, grant: Grant, configuration: Configuration, flag: Flag, reason: str | None) -> Order:
    ref = configuration.ref
    return Order(
        project=ref.project_key,
        project_id=ref.project_id,
        environment=ref.key,
        environment_id=ref.id,
        flag=flag.key,
        flag_id=flag.id,
        credential_id=grant.credential.id,
        edge_key=edge_key(presented_key(scope) or ""),
        reason=reason,
    )


def _is_of(configuration: Configuration, project: str) -> bool:
    return project in {configuration.ref.project_id, configuration.ref.project_key}


def _flag(configuration: Configuration, name: str) -> Flag:
    flags = configuration.environment.flags
    found = flags.get(name) or next((flag for flag in flags.values() if flag.id == name), None)
    if found is None:
        raise _not_found("flag", name)
    return found


def _not_found(thing: str, name: str) -> Problem:
    return Problem(404, f"{thing}_not_found", f"There is no {thing} {name!r} here.")
