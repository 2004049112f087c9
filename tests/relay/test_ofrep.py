"""OFREP as its published clients read it: bodies, statuses, reasons, ETags, freshness, and where streams are."""

import asyncio

import pytest

from relay.protocol.keys import Kind
from relay.serve.freshness import hint_of
from relay.settings import Serve
from tests.clocks import FakeClock, settle
from tests.relay.objects import SPLIT, equals, flag, ramp, reference, rule
from tests.relay.world import World

BULK = "/ofrep/v1/evaluate/flags"


async def test_a_flag_is_answered_with_value_variant_reason_and_metadata(world: World) -> None:
    """A success has exactly key, value, variant, reason and metadata."""
    answer = await world.evaluate("beta")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"key": "beta", "value": True, "variant": "on", "reason": "STATIC", "metadata": {}}


@pytest.mark.parametrize(
    ("members", "context", "reason", "variant"),
    [
        ({"enabled": False}, {}, "DISABLED", "off"),
        ({"targets": [{"variation": "off", "units": ["u"]}]}, {"targetingKey": "u"}, "TARGETING_MATCH", "off"),
        ({"rules": [rule(equals("plan", "pro"), "off")]}, {"plan": "pro"}, "TARGETING_MATCH", "off"),
        ({"rules": [rule(equals("plan", "pro"), "off")]}, {}, "DEFAULT", "on"),
        ({"fallthrough": SPLIT}, {"targetingKey": "u"}, "SPLIT", None),
    ],
)
async def test_reasons_are_in_openfeatures_words(
    world: World, members: dict[str, object], context: dict[str, object], reason: str, variant: str | None
) -> None:
    """Each canonical reason is mapped to the one that OpenFeature clients know."""
    world.commit({"beta": flag(**members)})
    body = (await world.evaluate("beta", context)).json
    assert body["reason"] == reason
    assert variant is None or body["variant"] == variant


async def test_a_failed_prerequisite_is_default_with_flat_metadata(world: World) -> None:
    """What OpenFeature has no reason for goes into metadata, flat, beside the flag's own."""
    world.commit(
        {"base": flag(enabled=False), "beta": flag(prerequisites=[{"flag": "base"}], metadata={"owner": "me"})}
    )
    body = (await world.evaluate("beta")).json
    assert (body["reason"], body["value"]) == ("DEFAULT", False)
    assert body["metadata"] == {"owner": "me", "halyardReason": "PREREQUISITE_FAILED", "halyardBlockedBy": "base"}


@pytest.mark.parametrize(
    ("members", "reason", "metadata"),
    [
        ({"enabled": False}, "DISABLED", {}),
        (
            {"prerequisites": [{"flag": "base"}]},
            "DEFAULT",
            {"halyardReason": "PREREQUISITE_FAILED", "halyardBlockedBy": "base"},
        ),
    ],
)
async def test_off_without_a_variation_is_an_answer_without_a_value(
    world: World, members: dict[str, object], reason: str, metadata: dict[str, str]
) -> None:
    """Alone and in bulk: 200, the reason as ever, an empty variant, and no value, so that the code's default holds."""
    world.commit({"base": flag(enabled=False), "beta": {**flag(**members), "off": None}})
    expected = {"key": "beta", "variant": "", "reason": reason, "metadata": metadata}
    single = await world.evaluate("beta")
    assert (single.status, single.json) == (200, expected)
    bulk = await world.call("POST", BULK, {"context": {}})
    assert [each for each in bulk.json["flags"] if each["key"] == "beta"] == [expected]


async def test_off_without_a_variation_is_null_on_the_native_route_and_counted_as_none(world: World) -> None:
    """Value and variation are null there; every route counts the answer as no variation's."""
    world.commit({"beta": {**flag(enabled=False), "off": None}})
    await world.evaluate("beta")
    native = await world.call("POST", "/api/v2/evaluate", {"flag": "beta", "context": {}})
    assert native.json.items() >= {"value": None, "variation": None, "reason": "DISABLED"}.items()
    assert [row[2:4] for row in world.counts.rows] == [(None, "DISABLED")] * 2


async def test_an_error_of_a_flag_without_an_off_variation_stays_an_error(world: World) -> None:
    """What cannot be decided is no answer without a value but an error, with its code and no reason."""
    world.commit({"split": {**flag(fallthrough=SPLIT), "off": None}})
    answer = await world.evaluate("split", {})
    assert (answer.status, answer.json["errorCode"]) == (400, "TARGETING_KEY_MISSING")
    assert answer.json.keys() == {"key", "errorCode", "errorDetails", "metadata"}


async def test_float_flags_are_sent_with_a_decimal_point(world: World) -> None:
    """1 of a float flag goes over the wire as 1.0, of an integer flag as 1."""
    world.commit({"ratio": flag(on=1, off=0, number_format="float"), "limit": flag(on=1, off=0)})
    assert b'"value":1.0' in (await world.evaluate("ratio")).body
    assert b'"value":1,' in (await world.evaluate("limit")).body


async def test_an_empty_context_is_legal_and_a_split_says_what_it_lacks(world: World) -> None:
    """Only a flag that needs the targeting key is TARGETING_KEY_MISSING, 400, without a reason."""
    world.commit({"split": flag(fallthrough=SPLIT)})
    assert (await world.evaluate("beta", {})).status == 200
    answer = await world.evaluate("split", {})
    assert (answer.status, answer.json["errorCode"], answer.json["key"]) == (400, "TARGETING_KEY_MISSING", "split")
    assert "reason" not in answer.json
    assert answer.json["errorDetails"]
    assert answer.json["metadata"] == {}


@pytest.mark.parametrize("key", ["nowhere", "a/b", "a%2Fb c", ""])
async def test_an_unknown_flag_is_404_with_its_key(world: World, key: str) -> None:
    """Whatever stands in the path is the key: encoded or not, with slashes or empty."""
    answer = await world.evaluate(key)
    assert (answer.status, answer.json["errorCode"], answer.json["metadata"]) == (404, "FLAG_NOT_FOUND", {})


async def test_a_client_key_sees_client_side_flags_only(world: World) -> None:
    """A flag that is not client-side does not exist for a client key, alone or in bulk."""
    world.commit({"secret": flag(client_side=False)})
    assert (await world.evaluate("secret", key=Kind.SERVER)).status == 200
    assert (await world.evaluate("secret", key=Kind.CLIENT)).status == 404
    bulk = await world.call("POST", BULK, {"context": {}}, key=Kind.CLIENT)
    assert [each["key"] for each in bulk.json["flags"]] == ["beta"]


async def test_bulk_answers_every_flag_and_keeps_errors_apart(world: World) -> None:
    """One flag's error stands in its own element; the answer is 200."""
    world.commit({"split": flag(fallthrough=SPLIT)})
    answer = await world.call("POST", BULK, {"context": {}})
    flags = {each["key"]: each for each in answer.json["flags"]}
    assert answer.status == 200
    assert flags["beta"]["value"] is True
    assert flags["split"]["errorCode"] == "TARGETING_KEY_MISSING"


async def test_the_bulk_etag_holds_until_something_it_depends_on_changes(world: World) -> None:
    """Same context, same revision: 304 with the ETag; another context, another key kind, another revision: 200."""
    first = await world.call("POST", BULK, {"context": {"a": 1, "b": 2}})
    etag = first.headers["etag"]
    named = {"if-none-match": etag}
    same = await world.call("POST", BULK, {"context": {"b": 2, "a": 1}}, headers=named)
    assert (same.status, same.headers["etag"], same.body) == (304, etag, b"")
    assert (await world.call("POST", BULK, {"context": {"a": 2}}, headers=named)).status == 200
    assert (await world.call("POST", BULK, {"context": {"a": 1, "b": 2}}, key=Kind.CLIENT, headers=named)).status == 200
    world.commit({"beta": flag(enabled=False)})
    assert (await world.call("POST", BULK, {"context": {"a": 1, "b": 2}}, headers=named)).status == 200


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"x",W/{} , "y"', "*"])
async def test_if_none_match_may_be_a_list_or_weak(world: World, form: str) -> None:
    """Every form of If-None-Match that names the ETag is answered 304, also one that took it for a strong one."""
    etag = (await world.call("POST", BULK, {"context": {}})).headers["etag"].removeprefix("W/")
    assert (await world.call("POST", BULK, {"context": {}}, headers={"if-none-match": form.format(etag)})).status == 304
    assert (await world.call("POST", BULK, {"context": {}}, headers={"if-none-match": '"no"'})).status == 200


async def test_a_ramps_step_changes_the_etag_without_a_revision(world: World) -> None:
    """Time alone can change values, and then the ETag is another one."""
    world.commit({"ramp": flag(fallthrough=ramp(world.clock.wall_ms(), every_s=60))})
    etag = (await world.call("POST", BULK, {"context": {}})).headers["etag"]
    world.fake.jump_wall(60_000)
    assert (await world.call("POST", BULK, {"context": {}}, headers={"if-none-match": etag})).status == 200


async def test_every_answer_is_counted_once_by_source_except_with_analytics_off(world: World) -> None:
    """Single and bulk answers are counted by flag id; a flag with analytics off is not, and a 304 answers nothing."""
    quiet, loud = flag(analytics=False), flag()
    world.commit({"beta": loud, "quiet": quiet})
    await world.evaluate("beta")
    await world.evaluate("quiet")
    bulk = await world.call("POST", BULK, {"context": {}})
    await world.call("POST", BULK, {"context": {}}, headers={"if-none-match": bulk.headers["etag"]})
    row = (world.ref.id, loud["id"], "on", "STATIC")
    assert world.counts.rows == [(*row, "single", 1, None), (*row, "bulk", 1, None)]


async def test_event_streams_carry_a_token_that_is_stable_within_the_hour(world: World) -> None:
    """The stream's URI is the same for the same client within an hour, and another one for another context."""
    bulk = await world.call("POST", BULK, {"context": {"targetingKey": "u"}})
    (stream,) = bulk.json["eventStreams"]
    assert (stream["type"], stream["inactivityDelaySec"]) == ("sse", 120)
    uri = stream["endpoint"]["requestUri"]
    assert uri.startswith("/ofrep/v1/stream?token=")
    again = await world.call("POST", BULK, {"context": {"targetingKey": "u"}})
    assert again.json["eventStreams"][0]["endpoint"]["requestUri"] == uri
    other = await world.call("POST", BULK, {"context": {"targetingKey": "v"}})
    assert other.json["eventStreams"][0]["endpoint"]["requestUri"] != uri
    world.fake.jump_wall(3_600_000)
    later = await world.call("POST", BULK, {"context": {"targetingKey": "u"}}, headers={"if-none-match": "x"})
    assert later.json["eventStreams"][0]["endpoint"]["requestUri"] != uri


async def test_a_public_origin_makes_stream_urls_absolute() -> None:
    """With `public_origin` the stream is given as `url`."""
    world = World(FakeClock(), Serve(public_origin="https://flags.example.com"))
    world.snapshot({"beta": flag()})
    (stream,) = (await world.call("POST", BULK, {"context": {}})).json["eventStreams"]
    assert stream["url"].startswith("https://flags.example.com/ofrep/v1/stream?token=")
    assert "endpoint" not in stream


@pytest.mark.parametrize("target", [BULK, f"{BULK}/beta"])
async def test_an_answer_waits_for_the_configuration_that_the_request_names(world: World, target: str) -> None:
    """`flagConfigEtag` of a revision that has not arrived holds the answer until it has."""
    asked = asyncio.create_task(world.call("POST", f"{target}?flagConfigEtag=%22e1:2%22", {"context": {}}))
    await settle()
    assert not asked.done()
    world.commit({"beta": flag(enabled=False)})
    answer = (await asked).json
    assert (answer["flags"][0] if "flags" in answer else answer)["value"] is False


@pytest.mark.parametrize("query", ["flagConfigEtag=%22e1:2%22", "flagConfigLastModified=1999999999"])
async def test_a_configuration_that_does_not_arrive_is_503_with_whole_seconds(world: World, query: str) -> None:
    """An older configuration is never answered from; Retry-After is a whole number."""
    ticks = asyncio.create_task(world.services.streams.run_timers())
    asked = asyncio.create_task(world.call("POST", f"{BULK}?{query}", {"context": {}}))
    await world.fake.advance(3)
    answer = await asked
    assert (answer.status, answer.headers["retry-after"], answer.json["errorCode"]) == (503, "1", "GENERAL")
    ticks.cancel()


@pytest.mark.parametrize("query", ["flagConfigEtag=%22e1:1%22", "flagConfigLastModified=1", "flagConfigEtag=junk"])
async def test_a_met_or_unreadable_hint_does_not_wait(world: World, query: str) -> None:
    """What is held already, or cannot have been made here, is answered at once."""
    assert (await world.call("POST", f"{BULK}?{query}", {"context": {}})).status == 200


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1771622898", 1771622898),
        ("2026-02-20T21:28:18Z", 1771622898),
        ("Fri, 20 Feb 2026 21:28:18 GMT", 1771622898),
        ("yesterday", None),
        ("9" * 40, None),
    ],
)
def test_last_modified_is_read_in_all_three_forms(text: str, seconds: int | None) -> None:
    """Unix seconds, ISO 8601 and HTTP dates are the same moment; anything else names nothing."""
    hint = hint_of(None, text)
    assert (None if hint is None else hint.modified_s) == seconds


async def test_revisions_of_another_epoch_are_compared_by_time(world: World) -> None:
    """A hint of another epoch is met by a configuration that was changed no earlier."""
    now_s = world.clock.wall_ms() // 1000
    met = await world.call("POST", f"{BULK}?flagConfigEtag=%22e0:9%22&flagConfigLastModified={now_s}", {"context": {}})
    assert met.status == 200


async def test_a_key_of_many_environments_has_to_name_one(world: World) -> None:
    """A relay key evaluates in the environment that the query names, and is told its choices without."""
    world.snapshot({"beta": flag(enabled=False)}, ref=reference(2, "staging"))
    unclear = await world.evaluate("beta", key=Kind.RELAY)
    assert unclear.status == 422
    assert "shop/production" in unclear.json["errorDetails"]
    answer = await world.call("POST", f"{BULK}/beta?environment=staging", {"context": {}}, key=Kind.RELAY)
    assert answer.json["value"] is False
