"""OFREP 0.3: one flag, all flags, and where to hear that one of them changed.

Answers as the published clients really read them: a JSON body on every status, `reason` or `errorCode` but never both,
flat `metadata`, floats as floats. The bulk ETag is computed from what the answer depends on, so a 304 costs no
evaluation. An answer never comes from a configuration older than the one that the request names.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from relay.engine.evaluate import next_change_at
from relay.engine.model import ErrorCode, Evaluation, Flag, Reason
from relay.errors import Problem
from relay.serve.access import Grant
from relay.serve.answers import Context
from relay.serve.bodies import parse_json, read_body
from relay.serve.etags import etag_base, etag_of, is_named
from relay.serve.event_streams import EventStreams
from relay.serve.freshness import Hint, hint_of
from relay.serve.guard import header
from relay.serve.packing import Packing
from relay.serve.problems import unavailable
from relay.serve.query import parameter
from relay.serve.relevance import is_visible
from relay.serve.services import Services
from relay.sync.store import Configuration

PATIENCE_S: Final = 2.0
"""How long a request waits for a configuration that it names and that has not arrived."""

_REASONS: Final = {
    Reason.TARGET_MATCH: "TARGETING_MATCH",
    Reason.RULE_MATCH: "TARGETING_MATCH",
    Reason.PREREQUISITE_FAILED: "DEFAULT",
    Reason.EXCLUDED: "DEFAULT",
}
_STATUS: Final = {ErrorCode.FLAG_NOT_FOUND: 404}


class Ofrep:
    """The two evaluation routes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._streams = EventStreams(services.settings)
        self._packing = Packing(services.settings)

    async def single(self, request: Request) -> Response:
        """Answer `POST /ofrep/v1/evaluate/flags/{key}`; the key is whatever follows, encoded or not."""
        key: str = request.path_params["key"]
        grant, configuration, context = await self._asked(request)
        flag = configuration.environment.flags.get(key)
        if flag is None or not is_visible(flag, client_side_only=grant.client_side_only):
            raise Problem(404, "flag_not_found", f"There is no flag {key!r} in {configuration.ref.key!r} for this key.")
        evaluation = configuration.program.evaluate(key, context, self._services.clock.wall_ms())
        self._services.ledger.enter(configuration, {key: evaluation}, "single")
        status = 200 if evaluation.error_code is None else _STATUS.get(evaluation.error_code, 400)
        flags = configuration.environment.flags
        return _json(status, describe(flag, evaluation, flags, client_side_only=grant.client_side_only))

    async def bulk(self, request: Request) -> Response:
        """Answer `POST /ofrep/v1/evaluate/flags`."""
        grant, configuration, context = await self._asked(request)
        now_ms = self._services.clock.wall_ms()
        slot, place = self._streams.slot(now_ms), self._streams.place(configuration, request.scope.get("root_path", ""))
        base = etag_base(
            "ofrep",
            configuration,
            next_change_at(configuration.environment, now_ms),
            client_side_only=grant.client_side_only,
            streams_at=place,
        )
        etag = etag_of(base, context, *((grant.fingerprint, slot) if place else ()))
        if is_named(etag, header(request.scope, b"if-none-match")):
            return self._packing.not_modified(request.scope, etag)
        evaluations = configuration.program.evaluate_all(context, now_ms, client_side_only=grant.client_side_only)
        self._services.ledger.enter(configuration, evaluations, "bulk")
        flags = configuration.environment.flags
        body: dict[str, Any] = {
            "flags": [
                describe(flags[key], evaluation, flags, client_side_only=grant.client_side_only)
                for key, evaluation in evaluations.items()
            ],
            "metadata": {"environment": configuration.ref.key, "revision": configuration.revision},
        }
        streams = self._streams.member(configuration, place, grant.fingerprint, context, slot)
        if streams:
            body["eventStreams"] = streams
        return self._packing.answer(request.scope, orjson.dumps(body), etag)

    async def _asked(self, request: Request) -> tuple[Grant, Configuration, Context]:
        scope, limits = request.scope, self._services.settings.limits
        grant = self._services.access.authenticate(scope)
        raw = await read_body(scope, request.receive, limits.context_bytes, limits.body_s)
        context = context_of(parse_json(raw, limits))
        named = parameter(scope, "environment"), parameter(scope, "project")
        hint = hint_of(parameter(scope, "flagConfigEtag"), parameter(scope, "flagConfigLastModified"))
        if hint is not None:
            grant, configuration = self._services.access.choose(scope, grant, *named)
            await self._arrival(configuration.ref.id, hint)
        return *self._services.access.choose(scope, grant, *named), context

    async def _arrival(self, environment_id: str, hint: Hint) -> None:
        arrivals = self._services.streams.arrivals
        found = await arrivals.wait_for(
            environment_id, lambda held: hint.is_met(held, arrivals.modified_ms(environment_id)), PATIENCE_S
        )
        if found is None:
            raise unavailable("configuration_behind", "The configuration that is asked for has not arrived here yet.")


def context_of(body: Any) -> Context:
    """Return the evaluation context of a request's body; no context is an empty one.

    Raises:
        Problem: 400 `invalid_context`.
    """
    if not isinstance(body, dict):
        raise Problem(400, "invalid_context", "The body must be a JSON object with the member context.")
    context = body.get("context")
    if context is None:
        return {}
    if not isinstance(context, dict):
        raise Problem(400, "invalid_context", "The member context must be a JSON object.")
    return context


def describe(
    flag: Flag, evaluation: Evaluation, flags: Mapping[str, Flag], *, client_side_only: bool
) -> dict[str, Any]:
    """Return one evaluation in OFREP's words; `flags` are all of the environment."""
    metadata: dict[str, Any] = dict(evaluation.flag_metadata)
    if evaluation.error_code is not None:
        return {
            "key": flag.key,
            "errorCode": evaluation.error_code,
            "errorDetails": evaluation.error_detail or "The flag could not be evaluated.",
            "metadata": metadata,
        }
    if evaluation.blocked_by is not None:
        metadata["halyardReason"] = evaluation.reason
        if not client_side_only or _is_public(evaluation, flags):
            metadata["halyardBlockedBy"] = evaluation.blocked_by
    described = {
        "key": flag.key,
        "value": evaluation.value,
        "variant": evaluation.variation,
        "reason": _REASONS.get(evaluation.reason, evaluation.reason),
        "metadata": metadata,
    }
    if evaluation.variation is None:
        # Without a value the code's default holds. The variant stays, as the Python client fails without one, and stays
        # a text, as the protocol knows no other.
        del described["value"]
        described["variant"] = ""
    return described


def _is_public(evaluation: Evaluation, flags: Mapping[str, Flag]) -> bool:
    """Tell whether what blocks a flag may be named to a client: a flag that it sees, and never an exclusion group."""
    if evaluation.reason != Reason.PREREQUISITE_FAILED or evaluation.blocked_by is None:
        return False
    return is_visible(flags.get(evaluation.blocked_by), client_side_only=True)


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
