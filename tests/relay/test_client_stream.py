"""The stream of evaluated values: who is told what, when time changes a value, and how streams live and end."""

import asyncio

import pytest

from relay.clock import rfc3339
from relay.protocol.keys import Kind
from relay.serve.client_stream import ClientStream
from relay.serve.kept_context import KeptContext
from relay.settings import Serve, Streams
from tests.clocks import FakeClock, settle
from tests.relay.live import Live, context_parameter, data, serving, until
from tests.relay.objects import SPLIT, equals, flag, ramp, reference, rule
from tests.relay.world import Connection, World

PATH = "/api/v2/client/stream"


def target(**context: object) -> str:
    return f"{PATH}?context={context_parameter(**context)}"


async def opened(world: World, **context: object) -> Connection:
    """Open a stream in process and wait until its `put` is there."""
    connection = world.connect(target(**context))
    await settle()
    assert [event.event for event in connection.events] == ["put"]
    return connection


# --- over a real connection -------------------------------------------------------------------------------------------


async def test_a_stream_begins_with_everything_that_the_client_may_see(live: Live) -> None:
    """`put` holds all client-side flags with their values for this context, under the id epoch:revision."""
    live.world.commit({"plan": flag(on="pro", off="free", rules=[rule(equals("tier", 1), "off")]), "secret": flag(client_side=False)})  # fmt: skip  # noqa: E501
    async with live.stream(target(tier=1)) as stream:
        put = await stream.next()
        assert (put.event, put.id) == ("put", "e1:2")
        assert data(put) == {
            "flags": {
                "beta": {"value": True, "variation": "on", "reason": "STATIC"},
                "plan": {"value": "free", "variation": "off", "reason": "RULE_MATCH"},
            },
            "revision": 2,
        }
        assert stream.retry_ms is not None
        assert 1_000 <= stream.retry_ms <= 5_000
        headers = stream.answer.headers
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"


async def test_a_toggle_is_one_patch_for_those_concerned_and_nothing_for_the_others(live: Live) -> None:
    """Exactly the changed flag goes to the clients whose value changed; the others hear of the next change only."""
    world = live.world
    pro_only = rule(equals("plan", "pro"))
    off = {"variation": "off"}
    world.commit({"pro": flag(rules=[pro_only], fallthrough=off), "mark": flag()})
    async with live.stream(target(plan="pro")) as pro, live.stream(target(plan="free")) as free:
        await pro.next("put")
        await free.next("put")
        world.commit({"pro": flag(rules=[pro_only], fallthrough=off, enabled=False)})
        patch = await pro.next()
        assert (patch.event, patch.id) == ("patch", "e1:3")
        assert data(patch) == {
            "flags": {"pro": {"value": False, "variation": "off", "reason": "DISABLED"}},
            "revision": 3,
        }
        world.commit({"mark": flag(enabled=False)})
        for stream in (pro, free):
            event = await stream.next()
            assert (event.event, list(data(event)["flags"])) == ("patch", ["mark"])
            assert not stream.has_more


async def test_a_context_may_be_posted_and_a_client_key_may_stand_in_the_url(live: Live) -> None:
    """Large contexts go in a body; `EventSource` can send no header."""
    async with live.stream(PATH, body={"context": {"plan": "pro"}}) as stream:
        assert (await stream.next()).event == "put"
    async with live.stream(f"{target()}&key={live.world.keys[Kind.CLIENT]}", key=None) as stream:
        assert (await stream.next()).event == "put"


async def test_a_client_that_leaves_is_forgotten_at_once(live: Live) -> None:
    """The registry does not wait for a write to fail."""
    streams = live.world.services.streams
    async with live.stream(target()) as stream:
        await stream.next("put")
        assert streams.counts() == {"client": 1}
    await until(lambda: not streams.counts())


async def test_a_revoked_key_ends_its_streams_at_once_and_no_others(live: Live) -> None:
    """The stream of the revoked key gets `goodbye`; that of another key goes on."""
    world = live.world
    async with live.stream(target()) as revoked, live.stream(target(), key=Kind.SERVER) as kept:
        await revoked.next("put")
        await kept.next("put")
        world.commit(
            credentials={each: raw for each, raw in world.credentials().items() if b'"kind":"client"' not in raw}
        )
        goodbye = await revoked.next()
        assert (goodbye.event, data(goodbye)["reason"]) == ("goodbye", "revoked")
        assert await revoked.end() == []
        world.commit({"beta": flag(enabled=False)})
        assert (await kept.next()).event == "patch"
    assert world.metrics.goodbyes.value("client", "revoked") == 1


async def test_drain_says_goodbye_to_all_and_admits_nobody(live: Live) -> None:
    """Every stream ends with the reason; a new one is sent elsewhere with Retry-After."""
    async with live.stream(target()) as one, live.stream(target()) as two:
        await one.next("put")
        await two.next("put")
        await live.world.services.streams.goodbye_all("drain", 0.05)
        for stream in (one, two):
            (goodbye,) = await stream.end()
            assert (goodbye.event, data(goodbye)["reason"]) == ("goodbye", "drain")
            assert 1_000 <= data(goodbye)["retry_ms"] <= 5_000
    refused = await live.refused(target())
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")


async def test_a_client_that_stops_reading_is_cut_for_real() -> None:
    """Once the kernel and the server hold enough for it, the deadline runs out and the connection is aborted."""
    world = World(FakeClock(), Serve(streams=Streams(send_deadline_s=1, heartbeat_s=60)))
    world.snapshot({"big": flag(on="x" * 100_000, off="")})
    async with serving(world) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port, limit=1_024)
        head = f"GET {target()} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.keys[Kind.CLIENT]}\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        for number in range(200):
            world.commit({"big": flag(on=str(number) + "x" * 100_000, off="")})
            await asyncio.sleep(0)
            await settle()
            if world.services.streams.blocked:
                break
        assert world.services.streams.blocked == 1
        await world.fake.advance(2)
        await until(lambda: not world.services.streams.counts())
        assert world.metrics.goodbyes.value("client", "slow") == 1
        writer.close()
        assert reader is not None


# --- in process, on a clock that the test turns -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"beta": None},
        {"beta": flag(client_side=False)},
    ],
)
async def test_a_flag_that_is_gone_or_hidden_is_deleted(world: World, change: dict[str, object]) -> None:
    """`delete` names it; it comes back as a `patch`."""
    async with world.running():
        stream = await opened(world)
        world.commit(change)  # type: ignore[arg-type]
        await settle()
        assert (stream.events[1].event, data(stream.events[1])) == ("delete", {"flags": ["beta"], "revision": 2})
        world.commit({"beta": flag()})
        await settle()
        assert (stream.events[2].event, list(data(stream.events[2])["flags"])) == ("patch", ["beta"])
        await stream.leave()


async def test_changes_that_leave_the_value_as_it_is_are_not_sent(world: World) -> None:
    """Another name, another rule that does not match, a credential: no event."""
    async with world.running():
        stream = await opened(world)
        world.commit({"beta": flag(name="renamed", rules=[rule(equals("plan", "pro"), "off")])})
        world.commit(credentials=world.credentials(origins=["*"]))
        await settle()
        assert len(stream.events) == 1
        await stream.leave()


async def test_a_segments_change_reaches_those_whom_it_moves(world: World) -> None:
    """A flag is touched by a segment that one of its rules names, through a segment inside it too."""
    world.commit(
        {"vip": flag(rules=[rule({"segment": "outer"})], fallthrough={"variation": "off"})},
        segments={
            "inner": {"version": 1, "include": [], "exclude": [], "when": None},
            "outer": {"version": 1, "include": [], "exclude": [], "when": {"segment": "inner"}},
        },
    )
    async with world.running():
        inside, outside = await opened(world, targetingKey="u"), await opened(world, targetingKey="v")
        world.commit(segments={"inner": {"version": 2, "include": ["u"], "exclude": [], "when": None}})
        await settle()
        assert data(inside.events[1])["flags"]["vip"]["value"] is True
        assert len(outside.events) == 1
        await inside.leave()
        await outside.leave()


async def test_flags_that_depend_on_a_changed_one_change_with_it(world: World) -> None:
    """Prerequisites over two steps, and the other members of an exclusion group."""
    world.commit(
        {
            "a": flag(),
            "b": flag(prerequisites=[{"flag": "a"}]),
            "c": flag(prerequisites=[{"flag": "b"}]),
            "x": flag(group="g"),
            "y": flag(group="g"),
        }
    )
    async with world.running():
        stream = await opened(world, targetingKey="u")
        world.commit({"a": flag(enabled=False)})
        await settle()
        assert set(data(stream.events[1])["flags"]) == {"a", "b", "c"}
        winner = next(key for key in "xy" if data(stream.events[0])["flags"][key]["value"])
        loser = "xy".replace(winner, "")
        world.commit({winner: flag(group="g", enabled=False)})
        await settle()
        assert {key: each["value"] for key, each in data(stream.events[2])["flags"].items()} == {
            winner: False,
            loser: True,
        }
        await stream.leave()


async def test_a_ramps_step_is_sent_when_its_time_has_come(world: World) -> None:
    """No revision is needed: the value changes because time passed, once."""
    world.commit({"ramp": flag(fallthrough=ramp(world.clock.wall_ms(), every_s=60))})
    async with world.running():
        stream = await opened(world, targetingKey="u")
        assert data(stream.events[0])["flags"]["ramp"]["value"] is False
        await world.fake.advance(59)
        assert len(stream.events) == 1
        await world.fake.advance(2)
        assert [(e.event, e.id) for e in stream.events[1:]] == [("patch", "e1:2")]
        assert data(stream.events[1])["flags"] == {"ramp": {"value": True, "variation": "on", "reason": "SPLIT"}}
        await world.fake.advance(120)
        assert len(stream.events) == 2
        await stream.leave()


async def test_a_slow_client_skips_to_the_newest_values(world: World) -> None:
    """While it takes nothing, changes are kept as a set of flags; then it gets each of them once, as it is now."""
    world.commit({"text": flag(on="0", off=""), "gone": flag()})
    async with world.running():
        stream = await opened(world)
        stream.stop_taking()
        world.commit({"beta": flag(enabled=False)})
        await settle()
        for number in range(1, 4):
            world.commit({"text": flag(on=str(number), off=""), "gone": None if number == 3 else flag()})
            await settle()
        stream.take_again()
        await settle()
        told = [(event.event, data(event)["flags"]) for event in stream.events[1:]]
        assert [name for name, _ in told] == ["patch", "delete", "patch"]
        assert list(told[0][1]) == ["beta"]
        assert told[1][1] == ["gone"]
        assert {key: each["value"] for key, each in told[2][1].items()} == {"text": "3"}
        assert [event.id for event in stream.events[2:]] == ["e1:6", "e1:6"]
        await stream.leave()


async def test_a_client_that_takes_nothing_for_ten_seconds_is_cut_and_counted(world: World) -> None:
    """The connection is aborted, so that what is buffered for it is freed; others are not held up."""
    async with world.running():
        stuck, other = await opened(world), await opened(world)
        assert stuck.send_buffer_bytes == 16 * 1024
        stuck.stop_taking()
        world.commit({"beta": flag(enabled=False)})
        await settle()
        assert len(other.events) == 2
        await world.fake.advance(9.8)
        assert stuck.aborts == 0
        await world.fake.advance(0.4)
        assert stuck.aborts == 1
        await stuck.task
        assert world.metrics.goodbyes.value("client", "slow") == 1
        assert world.services.streams.counts() == {"client": 1}
        await other.leave()


async def test_a_silent_stream_is_kept_alive_and_ends_with_its_lifetime() -> None:
    """A comment after every 15 s of silence; after 600 s give or take a fifth, goodbye with a time to come back."""
    world = World(FakeClock(), Serve(streams=Streams(lifetime_jitter=0)))
    world.snapshot({"beta": flag()})
    async with world.running():
        stream = await opened(world)
        await world.fake.advance(14)
        assert stream.raw.split(b"\n").count(b":") == 0
        await world.fake.advance(2)
        assert stream.raw.endswith(b"\n\n:\n")
        await world.fake.advance(580)
        assert stream.raw.split(b"\n").count(b":") == 39
        await world.fake.advance(10)
        goodbye = stream.events[-1]
        assert (goodbye.event, data(goodbye)["reason"]) == ("goodbye", "lifetime")
        await stream.task


def test_lifetimes_are_spread_by_a_fifth(world: World) -> None:
    """So that streams that were opened together do not end together."""
    grant = world.services.access.lookup(next(iter(world.configuration().credentials)))
    assert grant is not None
    ends = [
        ClientStream(
            grant,
            configuration=world.configuration(),
            context=KeptContext({}, 1_000),
            ledger=world.services.ledger,
            settings=Streams(),
            clock=world.clock,
        ).ends_at_s
        for _ in range(100)
    ]
    assert 480 <= min(ends) < max(ends) <= 720
    assert len(set(ends)) > 50


async def test_an_expired_keys_streams_end_within_a_second_or_so(world: World) -> None:
    """The clock alone ends them."""
    world.commit(credentials=world.credentials(expires_at=rfc3339(world.clock.wall_ms() + 5_000)))
    async with world.running():
        stream = await opened(world)
        await world.fake.advance(7)
        assert data(stream.events[-1])["reason"] == "revoked"
        await stream.task


async def test_a_deleted_environments_streams_end(world: World) -> None:
    """With the environment its keys are gone."""
    async with world.running():
        stream = await opened(world)
        world.store.remove(world.ref.id)
        await settle()
        assert data(stream.events[-1])["reason"] == "revoked"
        await stream.task


async def test_values_told_on_a_stream_are_counted_as_such(world: World) -> None:
    """Each value in a put or patch counts once, with source stream."""
    async with world.running():
        stream = await opened(world)
        world.commit({"beta": flag(enabled=False)})
        await settle()
        assert [(row[2], row[3], row[4]) for row in world.counts.rows] == [
            ("on", "STATIC", "stream"),
            ("off", "DISABLED", "stream"),
        ]
        await stream.leave()


async def test_a_flag_without_its_unit_is_told_with_its_error(world: World) -> None:
    """The off value stands in, and the error code beside it."""
    world.commit({"beta": flag(fallthrough=SPLIT)})
    async with world.running():
        stream = await opened(world)
        told = data(stream.events[0])["flags"]["beta"]
        assert told == {"value": False, "variation": "off", "reason": "ERROR", "error_code": "TARGETING_KEY_MISSING"}
        await stream.leave()


async def test_only_the_environment_of_the_stream_is_told(world: World) -> None:
    """A change in another environment is nothing to it."""
    staging = reference(2, "staging")
    world.snapshot({"beta": flag()}, ref=staging, credentials={})
    async with world.running():
        stream = await opened(world)
        world.commit({"beta": flag(enabled=False)}, ref=staging)
        await settle()
        assert len(stream.events) == 1
        await stream.leave()
