"""The native evaluation plane: evaluate, bootstrap, track.

An unknown flag is a refused request (404 `flag_not_found`). A flag that exists but cannot be decided, such as a split
without its unit, is answered 200 with its off value, reason ERROR and `error_code`: the caller always has a value to
go on with. Unknown members and wrong types are refused, all at once.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from relay.engine.evaluate import next_change_at
from relay.errors import Problem
from relay.protocol.events import InvalidEvents, parse_events
from relay.serve.access import Grant
from relay.serve.answers import native
from relay.serve.bodies import Field, check_members, parse_json, read_body
from relay.serve.etags import etag_base, etag_of, is_named
from relay.serve.guard import Scope, header
from relay.serve.packing import Packing
from relay.serve.query import parameter
from relay.serve.relevance import is_visible
from relay.serve.services import Services
from relay.sync.store import Configuration

_WHERE: Final[Mapping[str, Field]] = {"environment": Field(str), "project": Field(str)}
CONTEXT: Final[Mapping[str, Field]] = {"context": Field(dict, required=True), **_WHERE}
_EVALUATE: Final[Mapping[str, Field]] = {"flag": Field(str, required=True), **CONTEXT}
# Beside the members that relay.protocol.events knows.
_ENVIRONMENT: Final = ("environment", "project")


class FlagsApi:
    """The request-and-answer routes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._packing = Packing(services.settings)

    async def evaluate(self, request: Request) -> Response:
        """Answer `POST /api/v2/evaluate`."""
        held = self._services.access.authenticate(request.scope)
        body = check_members(await self._body(request), _EVALUATE)
        grant, configuration = chosen(self._services, held, request.scope, body)
        key = body["flag"]
        if not is_visible(configuration.environment.flags.get(key), client_side_only=grant.client_side_only):
            raise Problem(404, "flag_not_found", f"There is no flag {key!r} in {configuration.ref.key!r} for this key.")
        evaluation = configuration.program.evaluate(key, body["context"], self._services.clock.wall_ms())
        self._services.ledger.enter(configuration, {key: evaluation}, "single")
        answer = {"flag": key, **native(evaluation), "rule_id": evaluation.rule_id, "revision": configuration.revision}
        return _json(200, answer)

    async def bootstrap(self, request: Request) -> Response:
        """Answer `POST /api/v2/bootstrap`."""
        held = self._services.access.authenticate(request.scope)
        body = check_members(await self._body(request), CONTEXT)
        grant, configuration = chosen(self._services, held, request.scope, body)
        context, now_ms = body["context"], self._services.clock.wall_ms()
        next_ms = next_change_at(configuration.environment, now_ms)
        base = etag_base("bootstrap", configuration, next_ms, client_side_only=grant.client_side_only, streams_at="")
        etag = etag_of(base, context)
        if is_named(etag, header(request.scope, b"if-none-match")):
            return self._packing.not_modified(request.scope, etag)
        evaluations = configuration.program.evaluate_all(context, now_ms, client_side_only=grant.client_side_only)
        self._services.ledger.enter(configuration, evaluations, "bulk")
        flags = {key: native(evaluation) for key, evaluation in evaluations.items()}
        raw = orjson.dumps({"flags": flags, "revision": configuration.revision})
        return self._packing.answer(request.scope, raw, etag)

    async def track(self, request: Request) -> Response:
        """Answer `POST /api/v2/track`: 202 once the events are as safe as the operator asked for."""
        limits = self._services.settings.limits
        grant = self._services.access.authenticate(request.scope)
        raw = await read_body(request.scope, request.receive, limits.events_bytes, limits.body_s)
        body = parse_json(raw, limits)
        where: dict[str, Any] = {}
        if isinstance(body, dict):
            where = check_members({name: body.pop(name) for name in _ENVIRONMENT if name in body}, _WHERE)
        try:
            events = parse_events(body, max_events=limits.events_per_request)
        except InvalidEvents as error:
            self._services.metrics.events_refused.add("invalid")
            raise Problem(
                422, "invalid_events", f"{len(error.problems)} problems; nothing was accepted.", errors=error.problems
            ) from None
        _, configuration = chosen(self._services, grant, request.scope, where)
        accepted = await self._services.intake.accept(configuration.ref.id, events)
        return _json(202, {"accepted": accepted.accepted, "duplicates": accepted.duplicates})

    async def _body(self, request: Request) -> Any:
        limits = self._services.settings.limits
        return parse_json(await read_body(request.scope, request.receive, limits.context_bytes, limits.body_s), limits)


def chosen(services: Services, grant: Grant, scope: Scope, body: Mapping[str, Any]) -> tuple[Grant, Configuration]:
    """Return what the key opens now that the body has been read, and the environment that the request is about."""
    environment = body.get("environment") or parameter(scope, "environment")
    return services.access.choose(scope, grant, environment, body.get("project") or parameter(scope, "project"))


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
