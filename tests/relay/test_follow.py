"""The follower against a real server on loopback: resume, cuts, refusals, backoff."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from relay.clock import rfc3339
from relay.protocol.changes import MAX_ENVIRONMENTS, Bookmark, EnvironmentRef, Environments, Goodbye, State, mark_of
from relay.protocol.encode import (
    Audience,
    encode_bookmark,
    encode_changes,
    encode_environments,
    encode_goodbye,
    snapshot_lines,
)
from relay.protocol.keys import Kind, mint
from relay.protocol.resume import parse_token, token_of
from relay.protocol.sse import encode_event
from relay.protocol.state import change_between
from relay.sync.backoff import Backoff, retry_after_s
from relay.sync.follow import Follower, FollowSettings
from relay.sync.store import Store
from tests.clocks import FakeClock
from tests.protocol.build import COMMITTED_AT, environment_ref, flag, state
from tests.protocol.invariants import UNUSABLE
from tests.relay.stream_server import Connection, StreamServer, stream_server, until

KEY = mint(Kind.RELAY, bytes(32))
FIRST = state(1)
SECOND = state(2, flags={"checkout": flag(2)})
THIRD = state(3, flags={"checkout": flag(3)})
BAD = state(2, flags={"checkout": UNUSABLE})
OTHER = state(1, number=2)
ID = FIRST.ref.id


def environments(*refs: EnvironmentRef) -> bytes:
    return encode_event("environments", [encode_environments(Environments(refs or (FIRST.ref,)))])


def snapshot(of: State, reason: str = "start") -> bytes:
    return encode_event("snapshot", snapshot_lines(of, reason, Audience.RELAY), event_id="1.e1.")


def changes(before: State, after: State) -> bytes:
    return encode_event("changes", [encode_changes(change_between(before, after, COMMITTED_AT), Audience.RELAY)])


def bookmark(*states: State) -> bytes:
    marks = {each.ref.id: mark_of(each) for each in states}
    return encode_event("bookmark", [encode_bookmark(Bookmark(marks, COMMITTED_AT), Audience.RELAY)])


def goodbye(reason: str, retry_ms: int) -> bytes:
    return encode_event("goodbye", [encode_goodbye(Goodbye(reason, retry_ms))])


class Stage:
    """A follower at work, its store, its clock and the server that it follows."""

    def __init__(self, server: StreamServer, session: aiohttp.ClientSession, settings: FollowSettings) -> None:
        self.server = server
        self.clock = FakeClock()
        self.store = Store(self.clock)
        self.follower = Follower(settings, self.store, session, self.clock, fraction=lambda: 1.0)
        self.slept = self.clock.slept

    def revision(self, environment_id: str = ID) -> int | None:
        configuration = self.store.get(environment_id)
        return None if configuration is None else configuration.revision

    async def synced(self, *states: State) -> Connection:
        """Serve the follower's first connection with these environments."""
        connection = await self.server.next_connection()
        connection.open(environments(*(each.ref for each in states)), *map(snapshot, states), bookmark(*states))
        await until(lambda: self.store.last_bookmark is not None)
        return connection

    async def ended(self, reason: str) -> float:
        """Wait for the connection's end; returns how long the follower waits, and lets that time pass."""
        await until(lambda: self.follower.last_error is not None and reason in self.follower.last_error)
        await until(lambda: self.slept)
        delay_s = self.slept[-1]
        await self.clock.advance(delay_s)
        return delay_s


@asynccontextmanager
async def running(**settings: float) -> AsyncIterator[Stage]:
    async with stream_server() as server, aiohttp.ClientSession() as session:
        stage = Stage(server, session, FollowSettings(server.url, KEY, **settings))  # type: ignore[arg-type]
        task = asyncio.create_task(stage.follower.run())
        try:
            yield stage
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not stage.follower.connected


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running() as stage:
        yield stage


async def test_follows_from_nothing(stage: Stage) -> None:
    """Asks with its key and without a position, takes the snapshot, then each change as it comes."""
    connection = await stage.server.next_connection()
    assert connection.headers["Authorization"] == f"Bearer {KEY}"
    assert connection.headers["Accept"] == "text/event-stream"
    assert connection.headers["Accept-Encoding"] == "identity"
    assert "Last-Event-ID" not in connection.headers
    connection.open(environments(), snapshot(FIRST))
    await until(stage.follower.first_sync.is_set)
    assert stage.follower.connected
    connection.send(changes(FIRST, SECOND))
    await until(lambda: stage.revision() == 2)
    assert stage.store.configurations[ID].state == SECOND
    assert stage.follower.stats.applied == 2


async def test_resumes_where_the_store_stands(stage: Stage) -> None:
    """After a cut it presents its position, gets exactly what it lacks, and no snapshot."""
    connection = await stage.synced(FIRST)
    connection.close()
    assert await stage.ended("closed the stream") == 0.5
    connection = await stage.server.next_connection()
    assert connection.headers["Last-Event-ID"] == token_of([FIRST], "e1")
    connection.open(environments(), changes(FIRST, SECOND), changes(SECOND, THIRD))
    await until(lambda: stage.revision() == 3)
    assert stage.store.recent(ID, 1) is not None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_a_cut_within_an_event_discards_it(stage: Stage, share: float) -> None:
    """Half an event has no effect, and the position asked from is that of the last whole one."""
    connection = await stage.synced(FIRST)
    frame = changes(SECOND, THIRD)
    connection.send(changes(FIRST, SECOND), frame[: int(len(frame) * share)])
    await until(lambda: stage.revision() == 2)
    connection.abort()
    await stage.ended("connection failed")
    connection = await stage.server.next_connection()
    assert connection.headers["Last-Event-ID"] == token_of([SECOND], "e1")
    assert stage.revision() == 2


async def test_one_gap_causes_one_resync(stage: Stage) -> None:
    """A missing revision ends the stream; the next one asks for that environment's snapshot and resumes the other."""
    connection = await stage.synced(FIRST, OTHER)
    connection.send(changes(SECOND, THIRD))
    await stage.ended("changes from revision 2, held revision 1")
    connection = await stage.server.next_connection()
    assert connection.headers["Last-Event-ID"] == token_of([OTHER], "e1")
    connection.open(environments(FIRST.ref, OTHER.ref), snapshot(THIRD, "start"))
    await until(lambda: stage.revision() == 3)
    assert stage.follower.stats.resync_causes == {"gap": 1}
    assert stage.follower.stats.connections == 2


async def test_changes_before_the_snapshot_asked_for_are_left_alone(stage: Stage) -> None:
    """While a snapshot is awaited, changes of that environment neither apply nor cause another resync."""
    connection = await stage.synced(FIRST)
    connection.send(changes(SECOND, THIRD))
    await stage.ended("held revision 1")
    connection = await stage.server.next_connection()
    connection.open(environments(), changes(SECOND, THIRD), snapshot(THIRD))
    await until(lambda: stage.revision() == 3)
    assert (stage.follower.stats.resyncs, stage.follower.stats.ignored) == (1, 1)


async def test_a_bookmark_finds_what_was_lost(stage: Stage) -> None:
    """A change set that never came shows when the bookmark speaks of it."""
    connection = await stage.synced(FIRST)
    connection.send(bookmark(SECOND))
    await stage.ended("bookmark at revision 2, held revision 1")
    assert stage.follower.stats.resyncs == 1


async def test_repeats_are_counted_and_ignored(stage: Stage) -> None:
    """A change set or a snapshot that is held already changes nothing."""
    connection = await stage.synced(FIRST)
    connection.send(changes(FIRST, SECOND), changes(FIRST, SECOND), snapshot(FIRST), snapshot(SECOND))
    await until(lambda: stage.follower.stats.duplicates == 3)
    assert stage.revision() == 2


async def test_unknown_events_are_ignored(stage: Stage) -> None:
    """A newer upstream's messages do no harm."""
    connection = await stage.synced(FIRST)
    connection.send(encode_event("of_tomorrow", [b"{}"]), changes(FIRST, SECOND))
    await until(lambda: stage.revision() == 2)
    assert stage.follower.stats.ignored == 1


async def test_an_unusable_configuration_leaves_the_last_good_and_the_others(stage: Stage) -> None:
    """The refusal is kept with path and reason, the other environments follow on, and a cure is taken up (I8)."""
    connection = await stage.synced(FIRST, OTHER)
    other_second = state(2, number=2, flags={})
    connection.send(changes(FIRST, BAD), changes(OTHER, other_second))
    await until(lambda: stage.revision(OTHER.ref.id) == 2)
    refusal = stage.follower.refusals[ID]
    assert refusal.path.startswith("flags.checkout")
    assert (refusal.environment_id, refusal.count) == (ID, 1)
    assert stage.revision() == 1
    connection.send(bookmark(BAD, other_second))
    await until(lambda: stage.follower.stats.bookmarks == 2)
    await stage.clock.advance(1.0)
    connection.send(bookmark(BAD, other_second))
    await stage.ended("asking again")
    connection = await stage.server.next_connection()
    assert connection.headers["Last-Event-ID"] == token_of([other_second], "e1")
    connection.open(environments(FIRST.ref, OTHER.ref), snapshot(BAD))
    await until(lambda: stage.follower.refusals[ID].count == 2)
    connection.send(snapshot(state(3, flags={"checkout": flag(3)})))
    await until(lambda: stage.revision() == 3)
    assert not stage.follower.refusals


async def test_first_sync_does_not_wait_for_what_cannot_be_used(stage: Stage) -> None:
    """An environment that is refused at the start must not keep the others from being ready."""
    connection = await stage.server.next_connection()
    connection.open(environments(FIRST.ref, OTHER.ref), snapshot(OTHER))
    await until(lambda: stage.revision(OTHER.ref.id) == 1)
    assert not stage.follower.first_sync.is_set()
    connection.send(snapshot(BAD))
    await until(stage.follower.first_sync.is_set)


@pytest.mark.parametrize(
    "frame",
    [
        encode_event("changes", [b"{not JSON"]),
        encode_event("snapshot", [b"[]"]),
        b"data: " + b"x" * 2_000_000,
    ],
)
async def test_a_message_too_broken_to_belong_anywhere_restarts_the_stream(frame: bytes) -> None:
    """It is counted and reported, the position stays, and the next good bookmark ends the report."""
    async with running(max_message_bytes=1 << 20) as stage:
        connection = await stage.synced(FIRST)
        connection.send(frame)
        await stage.ended("message refused at")
        assert stage.follower.refusals[None].count == 1
        connection = await stage.server.next_connection()
        assert connection.headers["Last-Event-ID"] == token_of([FIRST], "e1")
        connection.open(environments(), bookmark(FIRST))
        await until(lambda: not stage.follower.refusals)


async def test_environments_no_longer_covered_are_let_go(stage: Stage) -> None:
    """Their configuration goes, and with it what was refused of them."""
    connection = await stage.synced(FIRST, OTHER)
    assert stage.store.covered == frozenset({FIRST.ref.id, OTHER.ref.id})
    connection.send(changes(FIRST, BAD), environments(OTHER.ref))
    await until(lambda: set(stage.store.configurations) == {OTHER.ref.id})
    assert stage.store.covered == frozenset({OTHER.ref.id})
    assert not stage.follower.refusals


async def test_what_upstream_lacks_itself_is_kept(stage: Stage) -> None:
    """A relay that lacks an environment after a restart cannot tell its followers that it is gone; others it can."""
    connection = await stage.synced(FIRST, OTHER)
    told = Environments((OTHER.ref,), is_complete=False, lacking=frozenset({FIRST.ref.id}))
    connection.send(encode_event("environments", [encode_environments(told)]), bookmark(OTHER))
    await until(lambda: stage.follower.stats.bookmarks == 2)
    assert set(stage.store.configurations) == {FIRST.ref.id, OTHER.ref.id}
    assert not stage.store.is_complete
    connection.send(environments(OTHER.ref))
    await until(lambda: set(stage.store.configurations) == {OTHER.ref.id})
    assert stage.store.is_complete


@pytest.mark.parametrize("ahead_ms", [-20_000, 0, 3_600_000])
async def test_bookmarks_tell_the_authoritys_time(stage: Stage, ahead_ms: int) -> None:
    """When it confirmed, how long ago that was, and what has passed since; the wall clock here has no say in it."""
    assert stage.follower.authority_ms() is None
    connection = await stage.server.next_connection()
    connection.open(environments(), snapshot(FIRST))
    now_ms = stage.clock.wall_ms() + ahead_ms
    marks = {FIRST.ref.id: mark_of(FIRST)}
    late = Bookmark(marks, rfc3339(now_ms - 30_000), 0.0)  # thirty seconds on its way
    for each in (Bookmark(marks, rfc3339(now_ms - 1_500), 1.5), late, Bookmark(marks, None, None)):
        connection.send(encode_event("bookmark", [encode_bookmark(each, Audience.RELAY)]))
    await until(lambda: stage.follower.stats.bookmarks == 3)
    stage.clock.jump_wall(-7_200_000)
    await stage.clock.advance(10)
    assert stage.follower.authority_ms() == now_ms + 10_000


async def test_a_new_epoch_replaces_everything(stage: Stage) -> None:
    """Another lineage's snapshot is taken though its revision is lower, and the token speaks of the new epoch."""
    connection = await stage.synced(THIRD)
    restored = replace(FIRST, epoch="e2")
    connection.send(snapshot(restored, "epoch"))
    await until(lambda: stage.revision() == 1)
    connection.close()
    await stage.ended("closed the stream")
    connection = await stage.server.next_connection()
    assert parse_token(connection.headers["Last-Event-ID"]).epoch == "e2"


async def test_silence_is_death(stage: Stage) -> None:
    """After 45 s without a message the connection is given up, comments or not; messages keep it alive."""
    connection = await stage.synced(FIRST)
    await stage.clock.advance(40)
    connection.send(bookmark(FIRST))
    await until(lambda: stage.follower.stats.bookmarks == 2)
    await stage.clock.advance(40)
    assert stage.follower.connected
    connection.send(b": ping\n\n")
    await stage.clock.advance(5)
    await stage.ended("nothing heard for 45 s")
    await connection.closed.wait()


async def test_a_large_event_on_its_way_is_no_silence(stage: Stage) -> None:
    """A snapshot that takes longer than the deadline arrives, as long as its bytes keep coming."""
    connection = await stage.server.next_connection()
    frame = snapshot(FIRST)
    connection.open(frame[:40])
    await until(lambda: stage.follower.connected)
    for start in range(40, len(frame), 200):
        heard = stage.follower._heard_at
        await stage.clock.advance(30)
        connection.send(frame[start : start + 200])
        await until(lambda heard=heard: stage.follower._heard_at > heard)  # type: ignore[misc]
    await until(lambda: stage.revision() == 1)
    assert stage.follower.stats.connections == 1


async def test_a_server_that_never_answers_is_given_up(stage: Stage) -> None:
    """The deadline covers the wait for the answer, too."""
    connection = await stage.server.next_connection()
    await stage.clock.advance(45)
    await stage.ended("nothing heard")
    await connection.closed.wait()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_tried_slowly_and_never_logged(
    stage: Stage, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute, with a log line that says which key without showing it."""
    with caplog.at_level(logging.DEBUG):
        (await stage.server.next_connection()).answer(status)
        assert await stage.ended(f"is refused ({status})") == 60
        (await stage.server.next_connection()).answer(status)
    assert "hal_relay_…" in caplog.text
    assert KEY not in caplog.text
    assert KEY[:20] not in repr(stage.follower._settings)


@pytest.mark.parametrize(
    ("status", "headers", "delay_s"),
    [
        (503, {"Retry-After": "7"}, 7),
        (429, {"Retry-After": "31536000"}, 600),
        (503, {"Retry-After": "soon"}, 0.5),
        (500, {}, 0.5),
        (404, {}, 0.5),
        (302, {"Location": "http://127.0.0.1:9/"}, 0.5),
    ],
)
async def test_retry_after_is_obeyed(stage: Stage, status: int, headers: dict[str, str], delay_s: float) -> None:
    """What upstream asks for is waited at least, within reason; redirects are not followed with the key."""
    (await stage.server.next_connection()).answer(status, headers)
    assert await stage.ended(f"the answer is {status}") == delay_s
    await stage.server.next_connection()


async def test_an_answer_that_is_no_stream_is_refused(stage: Stage) -> None:
    """A login page with status 200 is not taken for an idle stream."""
    (await stage.server.next_connection()).open(b"<html>", content_type="text/html")
    await stage.ended("text/html and no stream")
    assert not stage.follower.connected


async def test_goodbye_is_followed_by_a_return_at_the_time_named(stage: Stage) -> None:
    """The server's wait is kept, but not beyond the longest backoff."""
    connection = await stage.synced(FIRST)
    connection.send(goodbye("drain", 2_500))
    assert await stage.ended("said goodbye ('drain')") == 2.5
    connection = await stage.server.next_connection()
    connection.open(goodbye("lifetime", 10**9))
    assert await stage.ended("said goodbye ('lifetime')") == 60


async def test_backoff_doubles_and_good_news_resets_it(stage: Stage) -> None:
    """Failures in a row wait longer and longer; a connection on which something good was heard starts anew."""
    delays = []
    for _ in range(9):
        (await stage.server.next_connection()).answer(500)
        delays.append(await stage.ended("500"))
        stage.slept.clear()
        stage.follower.last_error = None
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    connection = await stage.synced(FIRST)
    connection.close()
    assert await stage.ended("closed the stream") == 0.5


async def test_an_upstream_that_is_away_is_reported_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The same failure again and again is one warning, not one per attempt."""
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            (await stage.server.next_connection()).answer(500)
            await stage.ended("500")
            stage.slept.clear()
            stage.follower.last_error = None
    assert caplog.text.count("the answer is 500") == 1


async def test_an_address_where_nobody_listens(unused_tcp_port: int) -> None:
    """A connection that is refused is a reason to wait, not to die."""
    clock = FakeClock()
    async with aiohttp.ClientSession() as session:
        settings = FollowSettings(f"http://127.0.0.1:{unused_tcp_port}", KEY)
        follower = Follower(settings, Store(clock), session, clock)
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.last_error is not None)
        assert "connection failed" in (follower.last_error or "")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_defect_reaches_the_supervisor(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no fault of network or upstream is not swallowed by the retry loop."""

    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.store, "cover", broken)
    connection = await stage.server.next_connection()
    connection.open(environments())
    task = next(task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "run")
    with pytest.raises(ZeroDivisionError):
        await task


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, None),
        ("Sat, 21 Nov 2026 06:31:00 GMT", 60.0),
        ("Sat, 21 Nov 2026 06:31:00 -0000", 60.0),
        ("Sat, 21 Nov 2026 06:29:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """Both forms are read, and anything else is as if it were not there."""
    assert retry_after_s(header, 1_795_242_600_000) == seconds


def test_full_jitter_stays_within_its_bounds() -> None:
    """From nothing to the doubled bound, never over the maximum, also after a million failures."""
    backoff = Backoff(0.5, 60)
    assert backoff.delay_s(3, 0.0) == 0
    assert backoff.delay_s(3, 0.25) == 1.0
    assert backoff.delay_s(1_000_000, 1.0) == 60


async def test_a_stale_snapshot_is_left_alone(stage: Stage) -> None:
    """A snapshot that is older than what is held is left alone, and following goes on from what is held."""
    connection = await stage.synced(SECOND)
    connection.send(snapshot(FIRST), changes(FIRST, SECOND), changes(SECOND, THIRD))
    await until(lambda: stage.revision() == 3)
    assert stage.follower.stats.connections == 1


async def test_refusals_are_bounded(stage: Stage) -> None:
    """An upstream that invents environments cannot fill the relay's memory with refusals of them."""
    connection = await stage.synced(FIRST)
    frame = changes(FIRST, SECOND).replace(b'"to":2', b'"to":3')
    for number in range(2, MAX_ENVIRONMENTS + 10):
        connection.send(frame.replace(ID.encode(), environment_ref(number).id.encode()))
    await stage.ended("message refused at to")
    assert len(stage.follower.refusals) <= MAX_ENVIRONMENTS + 2
