"""How long the hot lane remembers, and what it counts: never a moment longer, never one more or less."""

import asyncio
import gc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.model import Evaluation, Reason
from relay.protocol.hashing import canonical
from relay.protocol.keys import Kind
from relay.serve import prepared
from relay.serve.guard import DEFAULT_HEADERS
from relay.serve.served import Served
from tests.relay.objects import SPLIT, Json, credential, flag, ramp, reference
from tests.relay.two_ways import ROUTES, START_MS, TwoWays, Way, expiring, flags, two_ways

SINGLE, BULK = "/ofrep/v1/evaluate/flags/{}", "/ofrep/v1/evaluate/flags"


@pytest.fixture
def both() -> TwoWays:
    return two_ways()


async def often(both: TwoWays, request: bytes, times: int = 3) -> Any:
    """Send a request so often that its answer is kept; return the last one."""
    for _ in range(times):
        (answer,) = await both.same(request)
    return answer


async def test_a_new_revision_is_answered_at_once(both: TwoWays) -> None:
    """What was kept of a revision is not answered once there is the next."""
    requests = [both.request(*route) for route in ROUTES.values()]
    for request in requests:
        assert (await often(both, request)).status == 200
    for enabled in (False, True, False):
        both.commit({"beta": flag(enabled=enabled, id="id-beta")})
        for request in requests:
            assert (b'"beta"' in (await often(both, request)).body) or not enabled
    await both.same_counts()


async def test_a_replaced_configuration_is_let_go_of(both: TwoWays) -> None:
    """Nothing in the lane refers to it any more, also when its keys and heads are never seen again."""
    line = both.hot.connection()
    for route in ROUTES.values():
        for _ in range(3):
            await line.send(both.request(*route))
    await line.close()
    configuration = both.hot.world.configuration()
    assert any(isinstance(each, Served) for each in gc.get_referrers(configuration))
    both.hot.world.commit({"beta": flag(id="id-beta")})
    gc.collect()
    assert [each for each in gc.get_referrers(configuration) if isinstance(each, Served)] == []


async def test_a_flag_that_is_forced_off(both: TwoWays) -> None:
    """A kill at this relay changes no revision and shows at once; so does its end."""
    request = both.request(*ROUTES["single"])
    assert b"STATIC" in (await often(both, request)).body
    for killed in (frozenset({"beta"}), frozenset[str]()):
        for way in both.ways:
            way.world.store.force_off(way.world.ref.id, killed)
        assert (b"DISABLED" in (await often(both, request)).body) == bool(killed)
        await often(both, both.request(*ROUTES["bulk"]))
    await both.same_counts()


async def test_a_revoked_key_opens_nothing(both: TwoWays) -> None:
    """A key that is taken away is refused with the next request, and is served again when it comes back."""
    request = both.request(*ROUTES["bulk"])
    assert (await often(both, request)).status == 200
    for way in both.ways:
        way.world.commit(credentials={})
    assert (await often(both, request)).status == 401
    for way in both.ways:
        way.world.commit(credentials=way.world.credentials())
    assert (await often(both, request)).status == 200
    await both.same_counts()


async def test_a_key_expires_to_the_millisecond(both: TwoWays) -> None:
    """Without any change of the configuration; and a clock that is set back makes it valid again."""
    for way in both.ways:
        way.world.commit(credentials=way.world.credentials(**expiring(START_MS + 1_000)))
    request = both.request(*ROUTES["single"])
    for at_ms, status in ((0, 200), (999, 200), (1_000, 401), (5_000, 401), (500, 200)):
        both.clock.jump_wall(START_MS + at_ms - both.clock.wall_ms())
        assert (await often(both, request)).status == status
    await both.same_counts()


@pytest.mark.parametrize("members", [{"scopes": []}, {"scopes": ["flags:write"]}])
async def test_a_key_of_other_terms(both: TwoWays, members: Any) -> None:
    """Scopes are looked at anew with every change."""
    request = both.request(*ROUTES["single"])
    await often(both, request)
    for way in both.ways:
        way.world.commit(credentials=way.world.credentials(**members))
    await often(both, request)
    await both.same_counts()


async def test_a_key_of_two_environments(both: TwoWays) -> None:
    """It has to name one of them, so it is none of the lane's; when one goes, the key is clear again."""
    request = both.request(*ROUTES["single"])
    await often(both, request)
    other = reference(2, "staging")
    both.snapshot({"beta": flag(enabled=False, id="id-staging")}, ref=other)
    assert (await often(both, request)).status == 422
    for way in both.ways:
        way.world.store.remove(way.world.ref.id)
    assert (await often(both, request)).status == 200
    for way in both.ways:
        way.world.store.remove(other.id)
    assert (await often(both, request)).status == 503
    await both.same_counts()


async def test_time_changes_answers_to_the_millisecond(both: TwoWays) -> None:
    """A ramp's step shows at once, in values and ETags, also when the clock is set back over it."""
    requests = [both.request(SINGLE.format("ramp"), {"context": {"targetingKey": "u"}}), both.request(*ROUTES["bulk"])]
    for at_ms in (0, 4_999, 5_000, 5_001, 4_999, 3_600_000, 0):
        both.clock.jump_wall(START_MS + at_ms - both.clock.wall_ms())
        for request in requests:
            await often(both, request)
    await both.same_counts()


async def test_a_stream_url_lasts_for_its_hour(both: TwoWays) -> None:
    """A kept bulk answer ends with the period of its stream's token."""
    request = both.request(*ROUTES["bulk"])
    first = await often(both, request)
    await both.clock.advance(3_600)
    assert (await often(both, request)).body != first.body


async def test_what_is_named_is_not_sent_again(both: TwoWays) -> None:
    """A 304 for the ETag, evaluated or kept, with nothing counted; its own ETag for every context and key."""
    named = {}
    for kind in (Kind.SERVER, Kind.CLIENT):
        for unit in ("u", "v"):
            for path in (BULK, "/api/v2/bootstrap"):
                body = {"context": {"targetingKey": unit}}
                answer = await often(both, both.request(path, body, kind=kind), 1)
                etag = dict(answer.headers)["etag"]
                named[kind, unit, path] = etag
                asking = both.request(path, body, kind=kind, headers=[("If-None-Match", f'"a", {etag}')])
                await both.same_counts()
                again = await often(both, asking)
                assert (again.status, again.body) == (304, b"")
                assert again.headers == (
                    ("date", "…"), ("etag", etag), *((a.decode(), b.decode()) for a, b in DEFAULT_HEADERS),
                    ("x-request-id", "…"),
                )  # fmt: skip
                await often(both, both.request(path, body, kind=kind))
                assert (await often(both, asking)).status == 304
    assert len(set(named.values())) == len(named)
    assert both.hot.in_lane["bulk", "unchanged"] == 24
    await both.same_counts()


async def test_a_prerequisite_that_becomes_visible(both: TwoWays) -> None:
    """What is told of a blocked flag may change without the flag; pieces do not outlive that."""
    request = both.request(SINGLE.format("needs-private"), {"context": {"targetingKey": "u"}}, kind=Kind.CLIENT)
    bulk = both.request(*ROUTES["bulk"], kind=Kind.CLIENT)
    for visible in (False, True, False):
        both.commit({"private": flag(id="id-private", client_side=visible)})
        assert (b"halyardBlockedBy" in (await often(both, request)).body) == visible
        assert (b'halyardBlockedBy":"private"' in (await often(both, bulk)).body) == visible


async def test_an_environment_with_another_name(both: TwoWays) -> None:
    """A bulk answer names its environment; a new name is another answer with another ETag."""
    request = both.request(*ROUTES["bulk"])
    before = await often(both, request)
    for way in both.ways:
        way.world.snapshot(flags_of(way), ref=reference(1, "live"), revision=1)
    after = await often(both, request)
    assert b'"environment":"live"' in after.body
    assert dict(before.headers)["etag"] != dict(after.headers)["etag"]


def flags_of(way: Way) -> dict[str, Json]:
    return {key: orjson.loads(raw) for key, raw in way.world.configuration().state.flags.items()}


async def test_pieces_are_bounded_and_nothing_is_lost() -> None:
    """Beyond the maximum of prepared answers all are given up, and their counts are in the next flush."""
    tight = two_ways(prepared=3, answers=2, heads=2)
    for number in range(3):
        for unit in ("u", "v", "w"):
            for key in ("beta", "split", "object", "text", "off"):
                await often(tight, tight.request(SINGLE.format(key), {"context": {"targetingKey": unit}}))
            await often(tight, tight.request(BULK, {"context": {"targetingKey": unit}}))
            await often(tight, tight.request(BULK, {"context": {"targetingKey": unit}}, kind=Kind.CLIENT))
        tight.commit({"beta": flag(id="id-beta", enabled=bool(number % 2))})
    await tight.same_counts()


@pytest.mark.parametrize(("settings", "kept"), [({"answers": 3}, 3), ({"answer_bytes": 6_000}, None)])
async def test_kept_answers_are_bounded(settings: Any, kept: int | None) -> None:
    """In number and in bytes; the oldest goes first."""
    both = two_ways(**settings)
    for number in range(12):
        for _ in range(2):
            await both.same(both.request(SINGLE.format("beta"), {"context": {"targetingKey": f"u{number}"}}))
    lane = both.hot.lane
    assert lane is not None
    assert 0 < len(lane._kept) == (kept or len(lane._kept)) < 12
    assert lane._kept._bytes <= 6_000
    before = both.hot.in_lane.get(("single", "cached"), 0)
    await both.same(both.request(SINGLE.format("beta"), {"context": {"targetingKey": "u11"}}))
    assert both.hot.in_lane["single", "cached"] == before + 1


async def test_a_large_answer_is_sent_in_two_pieces_that_nobody_copied() -> None:
    """Byte for byte the app's, however long."""
    both = two_ways({f"flag-{number}": flag(on="x" * 200, off="y") for number in range(150)})
    answer = await often(both, both.request(BULK), 4)
    assert len(answer.body) > 30_000
    await both.same_counts()


async def test_heads_are_bounded() -> None:
    """Heads that differ in what nobody reads do not pile up, and those of refused keys are not remembered."""
    few = two_ways(heads=4)
    lane = few.hot.lane
    assert lane is not None
    for number in range(10):
        await few.same(few.request(headers=[("traceparent", str(number))]))
    assert len(lane._heads) == 4
    await few.same(few.request().replace(b"Bearer hal_", b"Bearer hal-"))
    assert len(lane._heads) == 4
    await few.same_counts()


async def test_counts_stand_under_the_minute_in_which_they_began(both: TwoWays) -> None:
    """Also those that are kept by answer and turned into rows later."""
    hot = both.hot
    line = hot.connection()
    for request in (both.request(*ROUTES["single"]), both.request(*ROUTES["bulk"])):
        for _ in range(4):
            await line.send(request)
    await line.close()
    both.clock.jump_wall(59_000)
    started = START_MS // 60_000 * 60_000
    await hot.counters.flush()
    assert {row.minute_ms for row in hot.sink.rows} == {started}
    assert len({(row.flag_id, row.variation, row.source) for row in hot.sink.rows}) == len(hot.sink.rows)


async def test_many_repeated_answers_are_counted(both: TwoWays, monkeypatch: pytest.MonkeyPatch) -> None:
    """More different answers than have a count of their own are counted flag by flag."""
    monkeypatch.setattr(prepared, "MAX_REPEATS", 2)
    for unit in "abcdef" * 3:
        await often(both, both.request(BULK, {"context": {"targetingKey": unit}}), 2)
    await both.same_counts()


async def test_scarce_rows_flush_early_and_loss_is_known() -> None:
    """Who counts by answer may need many rows; what finds none is counted as lost, as everywhere."""
    both = two_ways({f"flag-{number}": flag(fallthrough=SPLIT, salt=str(number)) for number in range(150)})
    counters = both.hot.counters
    counters._max_rows = 100
    line = both.hot.connection()
    for unit in ("u", "v"):
        await line.send(both.request(BULK, {"context": {"targetingKey": unit}}))
    assert counters._is_crowded.is_set()
    await counters.flush()
    assert sum(row.count for row in both.hot.sink.rows) + counters.lost == 300
    await line.close()


def test_answers_are_told_apart_by_what_they_are() -> None:
    """Equal answers of different flags are equal, and yet have counts of their own."""
    one, other = (Evaluation(value=True, variation="on", reason=Reason.STATIC) for _ in range(2))
    assert one == other
    assert len({one: 1, other: 2}) == 2


CLOCK_MS = {"time": 2_500, "minute": 60_000, "back": -3_000}
CHANGES = ("commit", "kill", "key")
ASKED = {
    "bulk": (BULK, Kind.SERVER),
    "client bulk": (BULK, Kind.CLIENT),
    "bootstrap": ("/api/v2/bootstrap", Kind.SERVER),
}


def change(both: TwoWays, step: str, number: int, key: str) -> None:
    """Change what is served."""
    if step == "commit":
        both.commit({key: flag(id=f"id-{key}", enabled=number % 2 == 0, fallthrough=SPLIT)})
        return
    for way in both.ways:
        if step == "kill":
            way.world.store.force_off(way.world.ref.id, frozenset({key} if number else ()))
        else:
            held: tuple[dict[str, bytes], ...] = (
                {},
                way.world.credentials(),
                way.world.credentials(**expiring(START_MS + 6_000)),
            )
            way.world.commit(credentials=held[number % 3])


@given(st.lists(st.tuples(st.sampled_from(["single", "flush", *CLOCK_MS, *CHANGES, *ASKED]), st.integers(0, 3)),
                max_size=25))  # fmt: skip
def test_no_row_of_events_answers_or_counts_otherwise(steps: list[tuple[str, int]]) -> None:
    """Requests, revisions, kills, keys and the clock in any order: the same answers, and the same counts by row."""
    names = ("beta", "text", "split", "quiet", "needs-private", "private")
    held: dict[str, Json] = {key: flags()[key] for key in names}
    held["slow"] = flag(fallthrough=ramp(START_MS + 5_000, every_s=60))

    async def play() -> None:
        both = two_ways(held, prepared=40)
        for step, number in steps:
            body = {"context": {"targetingKey": f"u{number % 2}", "country": "NL"}}
            key = ("beta", "split", "quiet", "slow")[number]
            if step in CHANGES:
                change(both, step, number, key)
            elif step in CLOCK_MS:
                both.clock.jump_wall(CLOCK_MS[step])
            elif step == "flush":
                await both.same_counts()
            else:
                path, kind = ASKED.get(step, (SINGLE.format(key), Kind.SERVER))
                await often(both, both.request(path, body, kind=kind), 1 + number)
        await both.same_counts()

    asyncio.run(play())


def test_a_credential_object_is_what_the_tests_take_it_for() -> None:
    """The keys of both worlds are the same, or nothing above would compare anything."""
    both = two_ways()
    hot, plain = (way.world.keys[Kind.SERVER] for way in both.ways)
    assert hot == plain
    assert canonical(credential(hot, Kind.SERVER)) == canonical(credential(plain, Kind.SERVER))
