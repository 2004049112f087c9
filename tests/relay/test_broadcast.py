"""The registry of streams: its limits, its fairness, and what one stream's trouble means to the others."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from relay.engine.model import Evaluation, Reason
from relay.engine.program import Program
from relay.protocol.encode import Audience
from relay.protocol.keys import Kind
from relay.serve import broadcast, relevance
from relay.serve.frames import Frames
from relay.serve.outlet import Outlet, connection_of
from relay.settings import Serve, Streams
from relay.sync.store import Swap
from tests.clocks import FakeClock, settle
from tests.relay.live import data
from tests.relay.objects import equals, flag, rule
from tests.relay.world import Connection, World

PATH = "/api/v2/client/stream?context=e30"


def small(**streams: Any) -> World:
    world = World(FakeClock(), Serve(streams=Streams(**streams)))
    world.snapshot({"beta": flag()})
    return world


async def opened(world: World, count: int = 1, key: Kind = Kind.CLIENT) -> list[Connection]:
    connections = [world.connect(PATH, key=key) for _ in range(count)]
    await settle()
    return connections


async def leave(connections: list[Connection]) -> None:
    for connection in connections:
        await connection.leave()


async def test_the_total_is_capped_with_503_and_a_keys_share_with_429() -> None:
    """Both say when to come back; a place that becomes free is given again."""
    world = small(total=3, per_key=2)
    first = await opened(world, 2)
    refused = await world.call("GET", PATH, key=Kind.CLIENT)
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (
        429,
        "too_many_streams_of_key",
        "5",
    )
    third = await opened(world, 1, Kind.SERVER)
    full = await world.call("GET", PATH, key=Kind.SERVER)
    assert (full.status, full.json["code"], full.headers["retry-after"]) == (503, "too_many_streams", "5")
    await leave(third)
    again = await opened(world, 1, Kind.SERVER)
    assert again[0].started["status"] == 200
    await leave([*first, *again])


async def test_counts_and_metrics_know_every_kind(world: World) -> None:
    """What is open is read from the registry itself, so it cannot drift."""
    clients = await opened(world, 2)
    follower = world.connect("/api/v2/stream", key=Kind.RELAY)
    await settle()
    assert world.services.streams.counts() == {"client": 2, "change": 1}
    assert 'halyard_relay_streams_open{kind="client"} 2.0' in world.metrics.exposition().decode()
    assert world.metrics.streams_opened.value("change") == 1
    await leave([*clients, follower])
    assert world.services.streams.counts() == {}


async def test_a_publish_gives_requests_their_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are gone through in slices; between two slices the loop turns."""
    monkeypatch.setattr("relay.serve.registry.SLICE", 2)
    async with world.running():
        connections = await opened(world, 7)
        turns: list[int] = []
        world.commit({"beta": flag(enabled=False)})
        for _ in range(10):
            turns.append(sum(len(each.events) - 1 for each in connections))
            await asyncio.sleep(0)
        assert turns[-1] == 7
        assert len({count for count in turns if 0 < count < 7}) >= 2
        await leave(connections)


async def test_a_stream_that_fails_is_cut_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one client's evaluation is logged, counted and nobody else's."""
    evaluate = Program.evaluate

    def failing(program: Program, key: str, context: Any, now_ms: int, **options: bool) -> Any:
        if context.get("bad"):
            raise RuntimeError("broken")
        return evaluate(program, key, context, now_ms, **options)

    on_bad = [rule(equals("bad", "never"))]
    world.commit({"beta": flag(rules=on_bad)})
    monkeypatch.setattr(Program, "evaluate", failing)
    async with world.running():
        (good,) = await opened(world)
        bad = world.connect("/api/v2/client/stream?context=eyJiYWQiOnRydWV9")
        await settle()
        world.commit({"beta": flag(rules=on_bad, fallthrough={"variation": "off"})})
        await settle()
        assert bad.aborts == 1
        assert [event.event for event in good.events] == ["put", "patch"]
        assert world.metrics.goodbyes.value("client", "error") == 1
        await good.leave()


async def test_drain_is_spread_over_its_window_and_ends_when_nobody_is_left(world: World) -> None:
    """Goodbyes are dealt out evenly, and the call returns once the last stream has gone."""
    async with world.running():
        connections = await opened(world, 10)
        leaving = asyncio.create_task(world.services.streams.goodbye_all("drain", 10))
        await world.fake.advance(4.9)
        assert 4 <= sum(each.is_complete for each in connections) <= 6
        await world.fake.advance(6)
        await leaving
        assert all(each.is_complete for each in connections)


async def test_drain_without_streams_returns_at_once(world: World) -> None:
    """Ctrl-C waits for nobody who is not there."""
    await asyncio.wait_for(world.services.streams.goodbye_all("drain", 30), 1)


async def test_drain_does_not_wait_for_a_client_that_takes_nothing(world: World) -> None:
    """After the last goodbye the stuck ones are cut."""
    async with world.running():
        (stuck,) = await opened(world)
        stuck.stop_taking()
        world.commit({"beta": flag(enabled=False)})
        await settle()
        leaving = asyncio.create_task(world.services.streams.goodbye_all("drain", 0))
        await world.fake.advance(1.5)
        await leaving
        assert stuck.aborts == 1


async def test_changes_that_come_faster_than_a_pass_are_told_as_one(world: World) -> None:
    """A pass starts from the newest configuration, and compares with what each client was told."""
    async with world.running():
        (stream,) = await opened(world)
        for enabled in (False, True, False, True):
            world.commit({"beta": flag(enabled=enabled)})
        await settle()
        assert len(stream.events) == 1
        for enabled in (False, True, False):
            world.commit({"beta": flag(enabled=enabled)})
        await settle()
        assert [data(event)["revision"] for event in stream.events] == [1, 8]
        await stream.leave()


async def test_the_loops_may_be_started_again(world: World) -> None:
    """The supervisor restarts them after a failure; what was noted meanwhile is not lost."""
    streams = world.services.streams
    (stream,) = await opened(world)
    for enabled in (False, True):
        publisher = asyncio.create_task(streams.run_publisher())
        await settle()
        publisher.cancel()
        await asyncio.gather(publisher, return_exceptions=True)
        world.commit({"beta": flag(enabled=enabled)})
    publisher = asyncio.create_task(streams.run_publisher())
    world.commit({"beta": flag(enabled=False)})
    await settle()
    assert data(stream.events[-1])["flags"]["beta"]["value"] is False
    publisher.cancel()
    await stream.leave()


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (True, True, True),
        (1, True, False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ("x", "y", False),
    ],
)
def test_answers_are_compared_by_type_and_value(before: Any, after: Any, same: bool) -> None:  # noqa: FBT001 - a table
    """A client that is strict about types must hear that 1 became true."""
    one, two = (Evaluation(value, "on", Reason.STATIC) for value in (before, after))
    assert relevance.same_answer(one, two) is same
    assert not relevance.same_answer(one, Evaluation(before, "other", Reason.STATIC))


# --- writing ----------------------------------------------------------------------------------------------------------


class Sink:
    """ASGI send that takes or holds back."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.error: Exception | None = None

    async def __call__(self, message: Any) -> None:
        await self.takes.wait() if not self.takes.is_set() else None
        if self.error is not None:
            raise self.error
        self.taken.append(message["body"])


async def test_an_outlet_writes_in_the_very_turn() -> None:
    """No task, no queue: when `write` returns, the server has the bytes."""
    sink = Sink()
    outlet = Outlet(sink, connection_of({}), lambda: None, lambda: None)
    before = len(asyncio.all_tasks())
    outlet.write(b"a")
    outlet.write(b"b", is_last=True)
    assert sink.taken == [b"a", b"b"]
    assert len(asyncio.all_tasks()) == before
    assert not outlet.is_open


async def test_an_outlet_that_is_held_back_says_so_and_finishes_by_itself() -> None:
    """Blocked until the server takes the bytes, then ready, told once each."""
    sink, heard = Sink(), []
    outlet = Outlet(sink, connection_of({}), lambda: heard.append("blocked"), lambda: heard.append("ready"))
    sink.takes.clear()
    outlet.write(b"a")
    assert (outlet.is_blocked, heard) == (True, ["blocked"])
    sink.takes.set()
    await settle()
    assert (outlet.is_blocked, heard, sink.taken) == (False, ["blocked", "ready"], [b"a"])


@pytest.mark.parametrize("held_back", [False, True])
async def test_an_outlet_closes_when_the_client_has_gone(held_back: bool) -> None:  # noqa: FBT001 - both ways to fail
    """A write that fails ends the writing; the request's own task sees the disconnect."""
    sink = Sink()
    sink.error = BrokenPipeError()
    outlet = Outlet(sink, connection_of({}), lambda: None, lambda: None)
    if held_back:
        sink.takes.clear()
    outlet.write(b"a")
    sink.takes.set()
    await settle()
    assert not outlet.is_open
    assert not outlet.is_blocked


async def test_an_unexpected_error_of_a_held_back_write_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It happens in a task of its own, so nobody else would hear of it."""
    sink = Sink()
    sink.error = RuntimeError("odd")
    outlet = Outlet(sink, connection_of({}), lambda: None, lambda: None)
    sink.takes.clear()
    outlet.write(b"a")
    sink.takes.set()
    await settle()
    assert not outlet.is_open
    assert "odd" in caplog.text


async def test_without_a_lent_connection_a_cut_leaves_the_request(world: World) -> None:
    """The server then closes the connection as it does for any answer that was not completed."""
    async with world.running():
        stuck = world.connect(PATH)
        stuck.scope["extensions"] = {}
        await settle()
        stuck.stop_taking()
        world.commit({"beta": flag(enabled=False)})
        await world.fake.advance(11)
        await stuck.task
        assert not stuck.is_complete
        assert world.services.streams.counts() == {}


async def test_a_request_that_the_server_cancels_stays_cancelled(world: World) -> None:
    """Only a cut of our own is taken for an end."""
    (stream,) = await opened(world)
    stream.task.cancel()
    assert isinstance((await asyncio.gather(stream.task, return_exceptions=True))[0], asyncio.CancelledError)
    assert world.services.streams.counts() == {}


# --- failures of the publisher ----------------------------------------------------------------------------------------


async def restarted(world: World) -> None:
    """Run the publisher as the supervisor does, once more after it has failed."""
    first = asyncio.create_task(world.services.streams.run_publisher())
    await settle()
    assert isinstance(first.exception(), RuntimeError)
    again = asyncio.create_task(world.services.streams.run_publisher())
    await settle()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


def fails_once(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> None:
    """Let a function fail the first time that it is called."""
    real, calls = getattr(target, name), []

    def failing(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("broken")
        return real(*args)

    monkeypatch.setattr(target, name, failing)


async def test_a_change_survives_the_failure_of_the_publisher(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays noted until its streams were told."""
    (stream,) = await opened(world)
    fails_once(monkeypatch, broadcast, "Update")
    world.commit({"beta": flag(enabled=False)})
    await restarted(world)
    assert [event.event for event in stream.events] == ["put", "patch"]
    await stream.leave()


async def test_a_revocation_survives_the_failure_of_the_publisher(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys are looked up again after the restart."""
    (stream,) = await opened(world)
    fails_once(monkeypatch, world.services.access, "lookup")
    world.commit(credentials={})
    await restarted(world)
    assert data(stream.events[-1])["reason"] == "revoked"
    await stream.task


async def test_a_revocation_waits_for_no_end_of_changes(world: World) -> None:
    """Keys are looked up again between two changes, also while changes come faster than they can be told."""
    async with world.running():
        (stream,) = await opened(world)
        world.commit({"beta": flag(enabled=False)})
        tell = world.services.streams._publish
        published = 0

        async def publish(environment_id: str, committed_ms: int | None) -> None:
            nonlocal published
            published += 1
            await tell(environment_id, committed_ms)
            if published < 50:
                world.commit({"beta": flag(enabled=published % 2 == 0)}, credentials={} if published == 2 else None)
            if stream.is_complete and not ended_after:
                ended_after.append(published)

        ended_after: list[int] = []
        world.services.streams._publish = publish  # type: ignore[method-assign]
        for _ in range(40):
            await settle()
        assert published == 50
        assert data(stream.events[-1])["reason"] == "revoked"
        assert ended_after[0] <= 4


async def test_a_commit_time_that_cannot_be_read_costs_a_measurement_and_no_change(world: World) -> None:
    """The streams are told all the same."""
    async with world.running():
        (stream,) = await opened(world)
        change = replace(world.commit({"other": flag()}), committed_at="soon")
        configuration = world.configuration()
        await settle()
        measured = world.metrics.change_latency.count()
        world.services.streams._on_swap(Swap(configuration, configuration, change))
        await settle()
        assert world.services.streams._stale == {}
        assert world.metrics.change_latency.count() == measured
        world.commit({"beta": flag(enabled=False)})
        await settle()
        assert stream.events[-1].event == "patch"
        await stream.leave()


def test_a_revision_that_was_made_twice_is_encoded_twice(world: World) -> None:
    """An authority that was restored reuses numbers: the hashes tell the two changes apart."""
    frames = Frames()
    change = world.commit({"beta": flag(enabled=False)})
    other = replace(change, content_hash="0" * 32, upsert_flags={})
    assert frames.changes(change, Audience.SERVER) != frames.changes(other, Audience.SERVER)
