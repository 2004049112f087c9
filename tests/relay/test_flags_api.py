"""The native evaluation plane, and one walk over every route with everything that can be wrong with a request."""

from dataclasses import dataclass
from typing import Any

import pytest

from relay.protocol.keys import Kind
from relay.serve.problems import unavailable
from tests.relay.objects import SPLIT, equals, flag, new_key, reference, rule
from tests.relay.world import World

EVALUATE = "/api/v2/evaluate"
BOOTSTRAP = "/api/v2/bootstrap"
TRACK = "/api/v2/track"


async def test_evaluate_answers_value_variation_reason_rule_and_revision(world: World) -> None:
    """The rule that matched is named; without one it is null."""
    world.commit({"beta": flag(rules=[rule(equals("plan", "pro"), "off")])})
    answer = await world.call("POST", EVALUATE, {"flag": "beta", "context": {"plan": "pro"}})
    assert answer.json == {
        "flag": "beta",
        "value": False,
        "variation": "off",
        "reason": "RULE_MATCH",
        "rule_id": "rule-1",
        "revision": 2,
    }
    plain = await world.call("POST", EVALUATE, {"flag": "beta", "context": {}})
    assert (plain.json["reason"], plain.json["rule_id"]) == ("DEFAULT", None)


async def test_a_flag_that_cannot_be_decided_is_200_with_its_off_value(world: World) -> None:
    """The caller always has a value to go on with; `error_code` says what was missing."""
    world.commit({"split": flag(fallthrough=SPLIT)})
    answer = await world.call("POST", EVALUATE, {"flag": "split", "context": {}})
    assert answer.status == 200
    assert answer.json | {"revision": 0} == {
        "flag": "split",
        "value": False,
        "variation": "off",
        "reason": "ERROR",
        "error_code": "TARGETING_KEY_MISSING",
        "rule_id": None,
        "revision": 0,
    }


async def test_an_unknown_or_hidden_flag_is_404(world: World) -> None:
    """What a client key may not see does not exist for it."""
    world.commit({"secret": flag(client_side=False)})
    for key, name in [(Kind.SERVER, "nowhere"), (Kind.CLIENT, "secret")]:
        answer = await world.call("POST", EVALUATE, {"flag": name, "context": {}}, key=key)
        assert (answer.status, answer.json["code"]) == (404, "flag_not_found")


async def test_bootstrap_answers_all_visible_flags_and_304(world: World) -> None:
    """Values by key with the revision; the ETag holds for the same context."""
    world.commit({"secret": flag(client_side=False)})
    answer = await world.call("POST", BOOTSTRAP, {"context": {}}, key=Kind.CLIENT)
    assert answer.json == {"flags": {"beta": {"value": True, "variation": "on", "reason": "STATIC"}}, "revision": 2}
    named = {"if-none-match": answer.headers["etag"]}
    again = await world.call("POST", BOOTSTRAP, {"context": {}}, key=Kind.CLIENT, headers=named)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert (await world.call("POST", BOOTSTRAP, {"context": {"a": 1}}, key=Kind.CLIENT, headers=named)).status == 200


async def test_native_answers_are_counted_by_source(world: World) -> None:
    """Evaluate counts as single, bootstrap as bulk."""
    await world.call("POST", EVALUATE, {"flag": "beta", "context": {}})
    await world.call("POST", BOOTSTRAP, {"context": {}})
    assert [row[4] for row in world.counts.rows] == ["single", "bulk"]


async def test_an_environment_may_stand_in_the_body_or_in_the_query(world: World) -> None:
    """For keys that open several; the body wins."""
    world.snapshot({"beta": flag(enabled=False)}, ref=reference(2, "staging"))
    for target, body in [
        (EVALUATE, {"environment": "staging"}),
        (f"{EVALUATE}?environment=staging&project=shop", {}),
        (f"{EVALUATE}?environment=production", {"environment": "staging", "project": "shop"}),
    ]:
        answer = await world.call("POST", target, {"flag": "beta", "context": {}, **body}, key=Kind.RELAY)
        assert answer.json["value"] is False
    unclear = await world.call("POST", EVALUATE, {"flag": "beta", "context": {}}, key=Kind.RELAY)
    assert (unclear.status, unclear.json["choices"]) == (422, ["shop/production", "shop/staging"])


async def test_track_takes_events_and_tells_repeats_apart(world: World) -> None:
    """202 with how many were new; they go to the intake under the key's environment."""
    events = [{"id": "e1", "type": "track", "name": "buy", "unit": "u", "value": 3}, {"id": "e2", "type": "exposure", "flag": "beta", "unit": 7}]  # fmt: skip  # noqa: E501
    answer = await world.call("POST", TRACK, {"events": events}, key=Kind.CLIENT)
    assert (answer.status, answer.json) == (202, {"accepted": 2, "duplicates": 0})
    again = await world.call("POST", TRACK, {"events": events[:1]})
    assert again.json == {"accepted": 0, "duplicates": 1}
    assert [(where, event.id, event.unit) for where, event in world.shelf.events] == [
        (world.ref.id, "e1", "u"),
        (world.ref.id, "e2", "7"),
    ]


async def test_every_problem_of_every_event_is_reported_at_once(world: World) -> None:
    """Paths lead to the field; nothing of the call is accepted."""
    events = [{"id": "e1", "type": "track", "name": "buy", "unit": "u"}, {"id": 1, "type": "click", "unt": "u"}]
    answer = await world.call("POST", TRACK, {"events": events})
    assert (answer.status, answer.json["code"]) == (422, "invalid_events")
    assert {"events[1].id", "events[1].type", "events[1].unit", "events[1].unt"} <= set(answer.json["errors"])
    assert "unit" in answer.json["errors"]["events[1].unt"][0]
    assert not world.shelf.events
    assert world.metrics.events_refused.value("invalid") == 1


async def test_track_names_an_environment_where_the_key_opens_several(world: World) -> None:
    """Beside `events`, with the same two names as everywhere."""
    world.snapshot({}, ref=reference(2, "staging"))
    events = [{"id": "e1", "type": "track", "name": "buy", "unit": "u"}]
    assert (await world.call("POST", TRACK, {"events": events}, key=Kind.RELAY)).status == 422
    assert (await world.call("POST", TRACK, {"events": events, "environment": 7}, key=Kind.RELAY)).status == 422
    answer = await world.call("POST", TRACK, {"events": events, "environment": "staging"}, key=Kind.RELAY)
    assert answer.status == 202
    assert world.shelf.events[0][0] == reference(2, "staging").id


async def test_a_full_intake_is_passed_on_as_it_stands(world: World) -> None:
    """503 with Retry-After; the client keeps its events."""
    world.shelf.refusal = unavailable("spool_full", "The spool is full.", 5)
    answer = await world.call("POST", TRACK, {"events": [{"id": "e", "type": "track", "name": "n", "unit": "u"}]})
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


# --- everything that can be wrong, on every route ---------------------------------------------------------------------

POSTED = (
    "/ofrep/v1/evaluate/flags",
    "/ofrep/v1/evaluate/flags/beta",
    EVALUATE,
    BOOTSTRAP,
    TRACK,
    "/api/v2/client/stream",
)
STREAMED = ("/api/v2/stream", "/api/v2/client/stream?context=e30", "/ofrep/v1/stream?token=junk")


@dataclass(frozen=True)
class Wrong:
    """One wrong body with the statuses that are a right answer to it."""

    name: str
    body: bytes
    statuses: frozenset[int]


BODIES = [
    Wrong("malformed", b'{"context":', frozenset({400})),
    Wrong("empty", b"", frozenset({400})),
    Wrong("nan", b'{"context":{"targetingKey":NaN}}', frozenset({400})),
    Wrong("infinity", b'{"context":{"n":1e999}}', frozenset({400})),
    Wrong("lone surrogate", b'{"context":{"targetingKey":"\\ud800"}}', frozenset({400})),
    Wrong("not utf-8", b'{"context":{"targetingKey":"\xff"}}', frozenset({400})),
    Wrong("utf-16", '{"context":{}}'.encode("utf-16"), frozenset({400})),
    Wrong("byte order mark", b'\xef\xbb\xbf{"context":{}}', frozenset({400})),
    Wrong("list", b"[]", frozenset({400, 422})),
    Wrong("null", b"null", frozenset({400, 422})),
    Wrong("wrong member types", b'{"context":7,"events":7,"flag":7}', frozenset({400, 422})),
    Wrong("too deep", b'{"context":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", frozenset({400})),
    Wrong("too long", b'{"context":{"a":"' + b"x" * 1_200_000 + b'"}}', frozenset({413})),
]


def is_clear(body: Any) -> bool:
    problem = {"status", "code", "detail", "title", "request_id"} <= set(body) and bool(body["detail"])
    return problem or ("errorCode" in body and bool(body["errorDetails"]) and body["metadata"] == {})


@pytest.mark.parametrize("wrong", BODIES, ids=lambda wrong: wrong.name)
@pytest.mark.parametrize("route", POSTED)
async def test_wrong_bodies(world: World, route: str, wrong: Wrong) -> None:
    """Every route that takes a body refuses what is no valid one, with a sentence, and never as its own fault."""
    answer = await world.call("POST", route, wrong.body)
    assert answer.status in wrong.statuses, answer.body
    assert is_clear(answer.json)


@pytest.mark.parametrize("key", [None, "nonsense", "hal_server_é", new_key(Kind.SERVER)])
@pytest.mark.parametrize(("method", "route"), [*(("POST", r) for r in POSTED), *(("GET", r) for r in STREAMED)])
async def test_wrong_and_missing_keys(world: World, method: str, route: str, key: str | None) -> None:
    """Every route answers 401 to whoever it does not know."""
    answer = await world.call(method, route, {"context": {}}, key=key)
    assert answer.status == 401
    assert is_clear(answer.json)


@pytest.mark.parametrize("route", [EVALUATE, BOOTSTRAP, TRACK, "/api/v2/client/stream"])
async def test_unknown_fields_name_the_nearest_known_one(world: World, route: str) -> None:
    """A misspelt field of a native route is 422; OFREP ignores what a newer client may send."""
    answer = await world.call("POST", route, {"flag": "beta", "contxt": {}, "event": [], "context": {}})
    assert answer.status == 422
    assert any("did you mean" in errors[0] for errors in answer.json["errors"].values())


@pytest.mark.parametrize("query", ["", "context=", "context=%25", "context=bm9wZQ", "context=W10", "context=e30x!"])
async def test_a_client_streams_context_in_the_query_is_checked(world: World, query: str) -> None:
    """Missing, not base64url, not JSON, not an object: a 4xx that says which."""
    answer = await world.call("GET", f"/api/v2/client/stream?{query}", key=Kind.CLIENT)
    assert answer.status in {400, 422}
    assert is_clear(answer.json)
