"""What a relay forces off is off at all that follow it, and for as long: messages, order, ends, reconnection."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.protocol.keys import Kind
from relay.protocol.overlays import ForcedOff
from relay.protocol.sse import SseEvent
from relay.sync import overlays as overlays_module
from relay.sync.backoff import Backoff
from relay.sync.inbox import Inbox
from relay.sync.overlays import OverlayBoard
from relay.sync.store import Store
from tests.clocks import FakeClock, settle
from tests.relay.live import data
from tests.relay.objects import flag, reference
from tests.relay.world import Connection, World

PATH = "/api/v2/stream"
STAGING = reference(2, "staging")
HOUR_MS = 3_600_000


def kill(world: World, *flags: str, environment_id: str | None = None) -> None:
    """Let exactly these flags be killed at the world's relay."""
    place = environment_id or world.ref.id
    now_ms = world.clock.wall_ms()
    world.store.overlays.hold(place, [ForcedOff(place, f"kill-{key}", key, now_ms, now_ms + HOUR_MS) for key in flags])


class Follower:
    """A store and an inbox that are fed what a stream in process has brought."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = Store(self.clock)
        self.inbox = Inbox(self.store, self.clock, Backoff(), lambda: 1.0)
        self._stream: Connection | None = None
        self._taken = 0

    def connect(self, world: World) -> None:
        token = self.inbox.begin_stream()
        headers = {} if token is None else {"last_event_id": token}
        self._stream, self._taken = world.connect(PATH, key=Kind.RELAY, **headers), 0

    def received(self) -> Iterator[SseEvent]:
        assert self._stream is not None
        for event in self._stream.events[self._taken :]:
            self._taken += 1
            yield event

    async def catch_up(self) -> None:
        await settle()
        for event in self.received():
            await self.inbox.take(event)

    async def leave(self) -> None:
        assert self._stream is not None
        await self._stream.leave()

    def is_on(self, key: str = "beta", environment_id: str | None = None) -> bool:
        configuration = self.store.get(environment_id or reference(1, "production").id)
        assert configuration is not None
        return configuration.environment.flags[key].enabled


@pytest.fixture
def follower() -> Follower:
    return Follower()


@pytest.mark.parametrize("kind", [Kind.RELAY, Kind.SERVER])
async def test_both_audiences_are_told_on_connecting_and_when_it_happens(world: World, kind: Kind) -> None:
    """Before the snapshots, and again after each; later ones at once; nothing of it has an id of its own."""
    kill(world, "beta")
    async with world.running():
        stream = world.connect(PATH, key=kind)
        await settle()
        names = [event.event for event in stream.events]
        assert names == ["environments", "overlay", "snapshot", "overlay", "bookmark"]
        told = data(stream.events[1])
        assert told == data(stream.events[3])
        assert (told["environment"], told["id"], told["flag"]) == (world.ref.id, "kill-beta", "beta")
        assert set(told) == {"environment", "id", "flag", "at", "expires_at"}
        kill(world)
        await settle()
        assert [event.event for event in stream.events[5:]] == ["overlay_end"]
        assert data(stream.events[5]) == {"environment": world.ref.id, "id": "kill-beta"}
        assert stream.events[5].id == stream.events[2].id
        await stream.leave()


async def test_a_follower_is_not_told_of_other_environments(world: World) -> None:
    """What its key does not open, or it did not ask for, is none of its business."""
    world.snapshot({"alpha": flag()}, ref=STAGING)
    kill(world, "alpha", environment_id=STAGING.id)
    async with world.running():
        stream = world.connect(f"{PATH}?environments=production", key=Kind.RELAY)
        await settle()
        kill(world, environment_id=STAGING.id)
        await settle()
        assert {event.event for event in stream.events} == {"environments", "snapshot", "bookmark"}
        await stream.leave()


async def test_a_follower_obeys_and_passes_it_on(world: World, follower: Follower) -> None:
    """Killed and released at the relay above, on at no moment in between, and held for followers of its own."""
    async with world.running():
        follower.connect(world)
        await follower.catch_up()
        assert follower.is_on()
        kill(world, "beta")
        await follower.catch_up()
        assert not follower.is_on()
        assert [each.flag for each in follower.store.overlays.all()] == ["beta"]
        kill(world)
        await follower.catch_up()
        assert follower.is_on()
        await follower.leave()


async def test_the_flag_stays_off_while_the_kill_moves_into_the_configuration(world: World, follower: Follower) -> None:
    """The revision is told before the overlay ends, and another overlay before the revision that needs it."""
    async with world.running():
        kill(world, "beta")
        follower.connect(world)
        await follower.catch_up()
        # All of it happens before the publisher's next turn.
        world.commit({"beta": flag(enabled=False)})
        kill(world)
        await settle()
        seen = []
        for event in follower.received():
            await follower.inbox.take(event)
            seen.append((event.event, follower.is_on()))
        assert seen == [("changes", False), ("overlay_end", False)]
        kill(world, "beta")
        world.commit({"beta": flag(enabled=True)})
        await settle()
        seen.clear()
        for event in follower.received():
            await follower.inbox.take(event)
            seen.append((event.event, follower.is_on()))
        assert seen == [("overlay", False), ("changes", False)]
        await follower.leave()


async def test_what_a_new_connection_does_not_repeat_is_gone(world: World, follower: Follower) -> None:
    """While nobody is connected it holds; the first bookmark of the next connection ends it, and not sooner."""
    async with world.running():
        kill(world, "beta")
        follower.connect(world)
        await follower.catch_up()
        await follower.leave()
        kill(world)
        assert not follower.is_on()
        follower.connect(world)
        await settle()
        *before, last = follower.received()
        for event in before:
            await follower.inbox.take(event)
        assert not follower.is_on()
        assert last.event == "bookmark"
        await follower.inbox.take(last)
        assert follower.is_on()
        await follower.leave()


async def test_a_resumed_follower_is_told_again(world: World, follower: Follower) -> None:
    """A connection that resumes without a snapshot repeats the overlay, so it goes on."""
    async with world.running():
        kill(world, "beta")
        follower.connect(world)
        await follower.catch_up()
        await follower.leave()
        follower.connect(world)
        await settle()
        received = list(follower.received())
        assert [event.event for event in received] == ["environments", "overlay", "bookmark"]
        for event in received:
            await follower.inbox.take(event)
        assert not follower.is_on()
        await follower.leave()


async def test_time_ends_what_upstream_never_ended(world: World, follower: Follower) -> None:
    """By the follower's own steady clock from when it heard of it, however wrong its wall clock is."""
    async with world.running():
        kill(world, "beta")
        follower.clock.jump_wall(-86_400_000)
        follower.connect(world)
        await follower.catch_up()
        await follower.leave()
        await follower.clock.advance(HOUR_MS / 1000 - 1)
        follower.store.overlays.expire()
        assert not follower.is_on()
        await follower.clock.advance(1)
        follower.store.overlays.expire()
        assert follower.is_on()


OPS = st.lists(
    st.lists(st.sampled_from(["kill", "release", "switch on", "switch off", "another flag", "reconnect"]), max_size=3),
    max_size=6,
)
"""What happens between one delivery and the next."""


@given(ops=OPS)
@example([["kill"], ["switch off", "release"]])
@example([["switch off"], ["kill", "switch on"], ["reconnect", "release"]])
def test_a_killed_flag_is_on_at_a_follower_at_no_moment(ops: list[list[str]]) -> None:
    """Whatever happens above in whatever order: a flag that was off there all the while is off here at each message."""
    asyncio.run(_follow_through(ops))


async def _follow_through(ops: list[list[str]]) -> None:
    world, follower = World(FakeClock()), Follower()
    world.snapshot({"beta": flag(), "other": flag()})

    def is_on_above() -> bool:
        return world.configuration().environment.flags["beta"].enabled

    async with world.running():
        follower.connect(world)
        await follower.catch_up()
        may_be_on = is_on_above()
        for op in (op for together in ops for op in (*together, "publish")):
            match op:
                case "kill":
                    kill(world, "beta")
                case "release":
                    kill(world)
                case "switch on" | "switch off":
                    world.commit({"beta": flag(enabled=op == "switch on", salt=str(world.configuration().revision))})
                case "another flag":
                    world.commit({"other": flag(salt=str(world.configuration().revision))})
                case "reconnect":
                    await follower.leave()
                    follower.connect(world)
            may_be_on = may_be_on or is_on_above()
            if op in {"publish", "reconnect"}:
                await settle()
                for event in follower.received():
                    await follower.inbox.take(event)
                    assert may_be_on or not follower.is_on(), (op, event)
                assert follower.is_on() == is_on_above()
                assert follower.store.overlays.all() == world.store.overlays.all()
                may_be_on = is_on_above()
        await follower.leave()


async def test_an_overlay_that_cannot_be_read_costs_no_configuration(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, logged and passed over: the environment that it names is followed as before."""
    environment_id = reference(1, "production").id
    await follower.inbox.take(SseEvent("overlay", (b'{"environment":"%b"}' % environment_id.encode(),)))
    assert (follower.inbox.stats.refused, follower.inbox.refusals) == (1, {})
    assert "an overlay cannot be read at id: must be a string; it is passed over" in caplog.text


def test_there_is_a_most_that_is_followed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One more is passed over and logged once; what ended makes room."""
    monkeypatch.setattr(overlays_module, "MAX_FOLLOWED", 1)
    told: list[frozenset[str]] = []
    board = OverlayBoard(lambda _, flags: told.append(flags), FakeClock())
    first, second = (ForcedOff("env", each, each, 0, HOUR_MS) for each in ("one", "two"))
    board.take(first)
    board.take(second)
    board.take(second)
    assert (told, len(caplog.records)) == ([frozenset({"one"})], 1)
    board.end("one")
    board.take(second)
    assert told[-1] == {"two"}


def test_a_flag_is_off_as_long_as_anybody_holds_it(world: World) -> None:
    """A kill made here and one that came from above are two: the end of one is not the end of the other."""
    board = world.store.overlays
    kill(world, "beta")
    board.take(ForcedOff(world.ref.id, "from-above", "beta", 0, HOUR_MS))
    kill(world)
    assert not world.configuration().environment.flags["beta"].enabled
    board.end("from-above")
    assert world.configuration().environment.flags["beta"].enabled
