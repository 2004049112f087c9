"""The change stream: what a follower gets on connecting, on changes, on coming back, and how it is told to go."""

import asyncio
from collections.abc import Sequence

import pytest

from relay.clock import rfc3339
from relay.protocol.changes import Applied, Bookmark, ChangeSet, Environments, Snapshot, apply, mark_of
from relay.protocol.decode import parse_message
from relay.protocol.encode import Audience
from relay.protocol.keys import Kind
from relay.protocol.resume import parse_token, token_of
from relay.protocol.sse import SseEvent
from relay.protocol.state import State
from relay.serve.frames import Frames
from relay.settings import Serve, Streams
from tests.clocks import FakeClock, settle
from tests.relay.live import Live, data
from tests.relay.objects import flag, reference
from tests.relay.world import Connection, World

PATH = "/api/v2/stream"
STAGING = reference(2, "staging")


class Log:
    """A change log that keeps everything, or nothing."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.kept: list[ChangeSet] = []
        self.asked: list[tuple[str, int, int]] = []

    async def changes(self, environment_id: str, after: int, upto: int) -> Sequence[ChangeSet] | None:
        self.asked.append((environment_id, after, upto))
        found = [each for each in self.kept if after < each.revision <= upto]
        return found if self.keeps and (not found or found[0].from_revision <= after) else None


def followed(events: Sequence[SseEvent]) -> dict[str, State]:
    """Apply a stream the way a follower does, and return the states that it leads to."""
    states: dict[str, State] = {}
    for event in events:
        message = parse_message(event.event, event.data)
        if isinstance(message, Snapshot | ChangeSet):
            environment_id = message.state.ref.id if isinstance(message, Snapshot) else message.environment_id
            outcome = apply(states.get(environment_id), message)
            assert isinstance(outcome, Applied), outcome
            states[environment_id] = outcome.state
    return states


def names(stream: Connection) -> list[str]:
    return [event.event for event in stream.events]


async def opened(world: World, target: str = PATH, *, key: Kind = Kind.RELAY, last_id: str | None = None) -> Connection:
    """Open a stream in process and let it say what it has to say."""
    stream = (
        world.connect(target, key=key) if last_id is None else world.connect(target, key=key, last_event_id=last_id)
    )
    await settle()
    return stream


@pytest.fixture
def pair(world: World) -> World:
    """A world with two environments."""
    world.snapshot({"alpha": flag()}, ref=STAGING)
    return world


# --- connecting -------------------------------------------------------------------------------------------------------


async def test_a_new_follower_gets_environments_snapshots_and_a_bookmark(pair: World) -> None:
    """In this order; what it holds then has the authority's hashes."""
    async with pair.running():
        stream = await opened(pair)
        assert names(stream) == ["environments", "snapshot", "snapshot", "bookmark"]
        listed = parse_message("environments", stream.events[0].data)
        assert isinstance(listed, Environments)
        assert {ref.key for ref in listed.refs} == {"production", "staging"}
        states = followed(stream.events)
        for environment_id, state in states.items():
            held = pair.store.get(environment_id)
            assert held is not None
            assert state == held.state
        assert data(stream.events[1])["reason"] == "start"
        assert set(parse_token(stream.events[2].id).positions) == {"000000010000", "000000020000"}
        await stream.leave()


async def test_a_list_says_what_this_process_lacks_itself(pair: World) -> None:
    """While it lacks an environment nobody is to let go of it; once it has all, the list is sent anew."""
    states = [configuration.state for configuration in pair.store.configurations.values()]
    both, gone = token_of(states, states[0].epoch), pair.store.get(STAGING.id)
    assert gone is not None
    pair.store.remove(STAGING.id)
    pair.store.cover(Environments((pair.ref,), is_complete=False))
    pair.store.covered = frozenset({pair.ref.id, STAGING.id})
    async with pair.running():
        knowing, new = await opened(pair, last_id=both), await opened(pair)
        lacking = Environments((pair.ref,), is_complete=False, lacking=frozenset({STAGING.id}))
        assert parse_message("environments", knowing.events[0].data) == lacking
        assert parse_message("environments", new.events[0].data) == Environments((pair.ref,), is_complete=False)
        pair.store.cover(Environments((pair.ref,)))
        pair.commit({"beta": flag(enabled=False)})
        await settle()
        for stream in (knowing, new):
            lists = [parse_message("environments", each.data) for each in stream.events if each.event == "environments"]
            assert lists[1:] == [Environments((pair.ref,))]
            await stream.leave()


async def test_audiences_get_what_is_theirs(world: World) -> None:
    """Relay keys get credentials, limits and secrets; server keys do not, in changes neither."""
    async with world.running():
        relay, server = await opened(world), await opened(world, key=Kind.SERVER)
        world.commit({"beta": flag(enabled=False)}, credentials=world.credentials(origins=["*"]))
        await settle()
        secret = {"credentials", "credentials_hash", "secrets", "limits"}
        assert secret <= set(data(relay.events[1]))
        assert not secret & set(data(server.events[1]))
        assert "credentials" in data(relay.events[-1])["upsert"]
        change = data(server.events[-1])
        assert set(change["upsert"]) == set(change["remove"]) == {"flags", "segments"}
        assert "credentials_hash" not in change
        assert "credentials_hash" in data(relay.events[2])["environments"][world.ref.id]
        assert "credentials_hash" not in data(server.events[2])["environments"][world.ref.id]
        await relay.leave()
        await server.leave()


@pytest.mark.parametrize("chosen", ["staging", "shop/staging", STAGING.id, " staging ,"])
async def test_environments_narrows_the_stream(pair: World, chosen: str) -> None:
    """By key, by project/key or by id."""
    async with pair.running():
        stream = await opened(pair, f"{PATH}?environments={chosen.replace(' ', '%20')}")
        assert [each["key"] for each in data(stream.events[0])["environments"]] == ["staging"]
        pair.commit({"beta": flag(enabled=False)})
        pair.commit({"alpha": flag(enabled=False)}, ref=STAGING)
        await settle()
        assert [data(each)["environment"] for each in stream.events if each.event == "changes"] == [STAGING.id]
        await stream.leave()


async def test_an_environment_that_the_key_does_not_open_is_422(pair: World) -> None:
    """The answer names it and the choices."""
    answer = await pair.call("GET", f"{PATH}?environments=staging,nowhere", key=Kind.RELAY)
    assert (answer.status, answer.json["code"]) == (422, "environment_unclear")
    assert "nowhere" in answer.json["detail"]
    assert "shop/production" in answer.json["detail"]


async def test_a_large_snapshot_comes_in_chunks_that_a_slow_follower_may_take_its_time_over() -> None:
    """What a follower that pauses has got in the end is whole, with changes that came meanwhile after it."""
    world = World(FakeClock())
    world.snapshot({f"flag-{number}": flag(on="x" * 1_000, off="") for number in range(300)})
    async with world.running():
        stream = await opened(world, key=Kind.SERVER)
        assert len(stream.raw) > 300_000
        slow = world.connect(PATH, key=Kind.SERVER)
        slow.stops_after_bytes = 100_000
        await settle()
        assert len(slow.raw) < 200_000
        world.commit({"flag-0": flag(on="y", off="")})
        await settle()
        slow.take_again()
        await settle(50)
        assert followed(slow.events)[world.ref.id].content_hash == world.configuration().state.content_hash
        await stream.leave()
        await slow.leave()


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_every_revision_is_one_message_also_when_the_audience_sees_nothing_of_it(world: World) -> None:
    """From and to leave no hole; the id is the position after it."""
    async with world.running():
        stream = await opened(world, key=Kind.SERVER)
        world.commit({"beta": flag(enabled=False)})
        world.commit(credentials=world.credentials(origins=["*"]))
        world.commit({"beta": None})
        await settle()
        changes = [event for event in stream.events if event.event == "changes"]
        assert [(data(each)["from"], data(each)["to"]) for each in changes] == [(1, 2), (2, 3), (3, 4)]
        assert data(changes[1])["upsert"] == {"flags": {}, "segments": {}}
        assert followed(stream.events)[world.ref.id].content_hash == world.configuration().state.content_hash
        position = parse_token(changes[-1].id).position(world.ref.id)
        assert position is not None
        assert position.revision == 4
        await stream.leave()


async def test_bookmarks_come_every_fifteen_seconds_also_amid_changes(world: World) -> None:
    """A follower's age counts from the last one."""
    async with world.running():
        stream = await opened(world)
        for _ in range(10):
            world.commit({"beta": flag()})
            await world.fake.advance(3.2)
        bookmarks = [data(each) for each in stream.events if each.event == "bookmark"]
        assert len(bookmarks) == 3
        assert bookmarks[-1]["environments"][world.ref.id]["revision"] == 11
        await stream.leave()


async def test_a_relays_bookmark_tells_when_its_own_upstream_confirmed(world: World) -> None:
    """A follower of a cut-off relay can see how old its configuration really is."""
    world.store.confirm(Bookmark({world.ref.id: mark_of(world.configuration().state)}, "now"))
    confirmed = rfc3339(world.clock.wall_ms())
    async with world.running():
        stream = await opened(world)
        await world.fake.advance(60)
        bookmarks = [data(each) for each in stream.events if each.event == "bookmark"]
        assert {each["at"] for each in bookmarks} == {confirmed}
        assert [round(each["age_s"]) for each in bookmarks] == [0, 15, 30, 45]
        await stream.leave()


async def test_a_relay_that_was_never_confirmed_says_so(world: World) -> None:
    """Its bookmarks confirm positions and make nothing fresher."""
    async with world.running():
        stream = await opened(world)
        (bookmark,) = (data(each) for each in stream.events if each.event == "bookmark")
        assert (bookmark["at"], bookmark["age_s"]) == (None, None)
        await stream.leave()


async def test_a_store_that_was_resynchronised_gives_its_followers_a_snapshot(world: World) -> None:
    """Another epoch, a gap, and a step back are each sent whole, with the reason."""
    async with world.running():
        stream = await opened(world)
        world.snapshot({"beta": flag()}, revision=50)
        await settle()
        world.snapshot({"beta": flag()}, revision=7, epoch="e2")
        await settle()
        world.snapshot({"beta": flag()}, revision=3, epoch="e2", reason="diverged")
        await settle()
        snapshots = [data(each) for each in stream.events if each.event == "snapshot"]
        assert [(each["reason"], each["epoch"], each["revision"]) for each in snapshots[1:]] == [
            ("gap", "e1", 50),
            ("epoch", "e2", 7),
            ("diverged", "e2", 3),
        ]
        assert followed(stream.events)[world.ref.id] == world.configuration().state
        await stream.leave()


async def test_a_follower_that_falls_out_of_the_window_gets_a_snapshot(world: World) -> None:
    """Its backlog is a position, not a list: the window holds five changes here."""
    async with world.running():
        stream = await opened(world)
        stream.stop_taking()
        for _ in range(12):
            world.commit({"beta": flag()})
            await settle()
        stream.take_again()
        await settle()
        assert "gap" in [data(each)["reason"] for each in stream.events if each.event == "snapshot"]
        assert followed(stream.events)[world.ref.id] == world.configuration().state
        await stream.leave()


async def test_environments_come_and_go_with_the_key(pair: World) -> None:
    """The new list comes first, then the snapshot of what is new; what is gone is not heard of again."""
    testing = reference(3, "testing")
    async with pair.running():
        stream = await opened(pair)
        before = len(stream.events)
        pair.snapshot({"gamma": flag()}, ref=testing)
        await settle()
        assert names(stream)[before:] == ["environments", "snapshot"]
        assert data(stream.events[-1])["environment"]["key"] == "testing"
        pair.store.remove(STAGING.id)
        await settle()
        assert [each["key"] for each in data(stream.events[-1])["environments"]] == ["production", "testing"]
        await stream.leave()


# --- coming back ------------------------------------------------------------------------------------------------------


async def test_a_follower_that_was_away_gets_exactly_what_it_lacks(world: World) -> None:
    """Three revisions missed, three changes sent, no snapshot; at the head nothing but the bookmark."""
    async with world.running():
        stream = await opened(world)
        await stream.leave()
        for _ in range(3):
            world.commit({"beta": flag()})
        back = await opened(world, last_id=stream.events[-1].id)
        assert names(back) == ["environments", "changes", "changes", "changes", "bookmark"]
        assert followed([*stream.events, *back.events])[world.ref.id] == world.configuration().state
        again = await opened(world, last_id=back.events[-2].id)
        assert names(again) == ["environments", "bookmark"]
        await back.leave()
        await again.leave()


async def test_a_token_of_a_half_sent_start_is_enough_for_the_rest(pair: World) -> None:
    """After the first of two snapshots only the second is owed."""
    async with pair.running():
        stream = await opened(pair)
        await stream.leave()
        back = await opened(pair, last_id=stream.events[1].id)
        assert names(back) == ["environments", "snapshot", "bookmark"]
        await back.leave()


@pytest.mark.parametrize(
    "token",
    ["garbage", "1.ffffffffffffffff.000000000000-1-00000000", "1..", "x" * 4_000, "1.e0.000000010000-1-00000000", "é"],
)
async def test_a_token_that_proves_nothing_gets_a_snapshot(world: World, token: str) -> None:
    """Garbage, another epoch, another environment, over-long: whole snapshots, with the reason, never an error."""
    async with world.running():
        stream = await opened(world, last_id=token)
        assert data(stream.events[1])["reason"] in {"start", "epoch"}
        await stream.leave()


async def test_a_position_with_another_hash_has_diverged(world: World) -> None:
    """The same revision with other content is another history."""
    async with world.running():
        stream = await opened(world, last_id="1.e1.000000010000-1-deadbeef")
        assert data(stream.events[1])["reason"] == "diverged"
        await stream.leave()


async def test_beyond_the_window_an_authority_reads_its_log() -> None:
    """Memory holds five changes; the log leads back to the follower's own revision, and none is missing."""
    log = Log()
    world = World(FakeClock(), history=log)
    world.snapshot({"beta": flag()})
    async with world.running():
        stream = await opened(world)
        await stream.leave()
        log.kept += [world.commit({"beta": flag()}) for _ in range(9)]
        back = await opened(world, last_id=stream.events[-1].id)
        assert names(back) == ["environments", *["changes"] * 9, "bookmark"]
        assert log.asked
        assert followed([*stream.events, *back.events])[world.ref.id] == world.configuration().state
        log.keeps = False
        lost = await opened(world, last_id=stream.events[-1].id)
        assert data(lost.events[1])["reason"] == "expired"
        await back.leave()
        await lost.leave()


async def test_without_a_log_what_left_the_window_is_a_snapshot(world: World) -> None:
    """A relay keeps no log: the reason is `expired`."""
    async with world.running():
        stream = await opened(world)
        await stream.leave()
        for _ in range(9):
            world.commit({"beta": flag()})
        back = await opened(world, last_id=stream.events[-1].id)
        assert data(back.events[1])["reason"] == "expired"
        await back.leave()


AHEAD = "1.e1.000000010000-2-00000000"


async def test_an_authority_calls_a_follower_ahead_of_it_diverged() -> None:
    """Nobody can know more than the authority."""
    world = World(FakeClock(), history=Log())
    world.snapshot({"beta": flag()})
    async with world.running():
        stream = await opened(world, last_id=AHEAD)
        assert data(stream.events[1])["reason"] == "diverged"
        await stream.leave()


async def test_a_relay_that_is_behind_a_follower_waits_and_then_sends_it_elsewhere(world: World) -> None:
    """It catches up in time and leads on, or answers 503 with Retry-After: revisions never go down (I1)."""
    async with world.running():
        stream = await opened(world, last_id=AHEAD)
        assert not stream.started
        world.commit({"beta": flag(enabled=False)})
        await settle()
        assert stream.started["status"] == 200
        await stream.leave()
        late = world.connect(PATH, key=Kind.RELAY, last_event_id="1.e1.000000010000-9-00000000")
        await world.fake.advance(6)
        await late.task
        assert late.started["status"] == 503
        assert (b"retry-after", b"1") in late.started["headers"]


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_a_revoked_relay_key_ends_its_stream_at_once(world: World) -> None:
    """Nothing follows the goodbye, not even the change that revoked the key."""
    async with world.running():
        stream = await opened(world)
        world.commit(credentials={})
        await settle()
        assert data(stream.events[-1])["reason"] == "revoked"
        assert stream.is_complete
        await stream.task


async def test_a_key_revoked_amid_a_snapshot_gets_no_more_of_it(world: World) -> None:
    """What is left of the message is withheld, and so is the goodbye, which would look like a part of it."""
    world.snapshot({f"flag-{number}": flag(on="x" * 1_000, off="") for number in range(300)}, revision=2)
    async with world.running():
        stream = world.connect(PATH, key=Kind.SERVER)
        stream.stops_after_bytes = 100_000
        await settle()
        world.commit(credentials={})
        await settle()
        stream.take_again()
        await settle()
        assert stream.is_complete
        assert b"goodbye" not in stream.raw
        assert len(stream.raw) < 200_000
        await stream.task


async def test_lifetime_drain_and_slow_ends_are_counted(world: World) -> None:
    """600 s give or take a fifth; goodbye on drain; cut after ten seconds without a byte taken."""
    world = World(FakeClock(), Serve(streams=Streams(lifetime_s=30, lifetime_jitter=0)))
    world.snapshot({"beta": flag()})
    async with world.running():
        old = await opened(world)
        await world.fake.advance(31)
        assert data(old.events[-1])["reason"] == "lifetime"
        stuck, fresh = await opened(world), await opened(world)
        stuck.stop_taking()
        world.commit({"beta": flag()})
        await world.fake.advance(11)
        assert stuck.aborts == 1
        leaving = asyncio.create_task(world.services.streams.goodbye_all("drain", 1))
        await world.fake.advance(3)
        await leaving
        assert data(fresh.events[-1])["reason"] == "drain"
        assert [world.metrics.goodbyes.value("change", reason) for reason in ("lifetime", "slow", "drain")] == [1, 1, 1]


async def test_a_follower_over_a_real_connection(live: Live) -> None:
    """Headers, retry, and a change that arrives while the stream is open."""
    async with live.stream(PATH, key=Kind.RELAY) as stream:
        await stream.next("bookmark")
        assert stream.retry_ms is not None
        assert stream.answer.headers["X-Accel-Buffering"] == "no"
        assert stream.answer.headers["Cache-Control"] == "no-store, no-transform"
        live.world.commit({"beta": flag(enabled=False)})
        assert data(await stream.next())["upsert"]["flags"]["beta"]["enabled"] is False
    assert live.world.metrics.change_latency.count() == 1


# --- shared bytes -----------------------------------------------------------------------------------------------------


def test_a_change_is_encoded_once_per_audience(world: World) -> None:
    """Two followers of one audience are sent the very same object; the other audience has its own."""
    frames = Frames()
    change = world.commit({"beta": flag(enabled=False)})
    assert frames.changes(change, Audience.RELAY) is frames.changes(change, Audience.RELAY)
    assert frames.changes(change, Audience.RELAY) != frames.changes(change, Audience.SERVER)


def test_a_snapshot_is_shared_while_it_is_sent_and_let_go_after(world: World) -> None:
    """Pieces are made once for all who read them, at whatever pace, and are not kept for nobody."""
    frames = Frames()
    state = world.configuration().state
    first, second = (frames.snapshot(state, "start", Audience.RELAY) for _ in range(2))
    pieces = list(first)
    assert [id(piece) for piece in second] == [id(piece) for piece in pieces]
    del first, second
    assert not frames.snapshots_shared


async def test_a_drain_over_a_real_connection_lets_the_goodbye_through(live: Live) -> None:
    """The response is completed, not cut: a follower knows that it was told to go."""
    async with live.stream(PATH, key=Kind.RELAY) as stream:
        await stream.next("bookmark")
        await live.world.services.streams.goodbye_all("drain", 0)
        (goodbye,) = await stream.end()
        assert (goodbye.event, data(goodbye)["reason"]) == ("goodbye", "drain")
