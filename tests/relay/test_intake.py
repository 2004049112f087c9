"""The intake: what is answered, what is kept, and what happens when nothing more fits."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from relay.errors import Problem
from relay.events.disk import Disk
from relay.events.intake import Accepted, SpoolIntake
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.protocol.events import Event, EventRecord, encode_event, parse_record
from relay.settings import Events
from tests.clocks import FakeClock


@asynccontextmanager
async def opened(
    directory: Path, *, metrics: RelayMetrics | None = None, disk: Disk | None = None, **changes: object
) -> AsyncIterator[tuple[SpoolIntake, Spool]]:
    small = {"spool_bytes": 1_048_576, "segment_bytes": 65_536, "commit_s": 0}
    settings = Events.model_validate(small | changes)
    clock = FakeClock()
    metrics = metrics or RelayMetrics()
    spool = await Spool.open(directory, settings, clock, metrics, disk)
    try:
        yield SpoolIntake(spool, settings, clock, metrics, max_recent_ids=3), spool
    finally:
        await spool.close()


def track(event_id: str, size: int = 0) -> Event:
    return Event(event_id, "track", "user-1", name="purchase", properties={"x": "y" * size} if size else None)


async def test_events_are_in_the_spool_when_accepted(tmp_path: Path) -> None:
    """`accept` returns once the events are durable, and counts them."""
    metrics = RelayMetrics()
    async with opened(tmp_path, metrics=metrics) as (intake, spool):
        assert await intake.accept("env", [track("a"), track("b")]) == Accepted(2, 0)
        batch = await spool.peek()
    assert batch is not None
    assert batch.records == tuple(encode_event("env", track(name), FakeClock().wall_ms()) for name in "ab")
    assert metrics.events_accepted.total() == 2


async def test_a_sender_whose_clock_is_wrong_loses_no_event(tmp_path: Path) -> None:
    """A time over a day ahead becomes the moment of receipt; any other, also one long past, stays as it was sent."""
    now_ms = FakeClock().wall_ms()
    sent = {"past": 0, "behind": now_ms - 3_600_000, "ahead": now_ms + 86_400_000, "wrong": now_ms + 86_400_001}
    async with opened(tmp_path) as (intake, spool):
        events = [replace(track(name), at_ms=at_ms) for name, at_ms in sent.items()]
        assert await intake.accept("env", events) == Accepted(4, 0)
        batch = await spool.peek()
    assert batch is not None
    records = [parse_record(orjson.loads(record)) for record in batch.records]
    kept = {record.event.id: record.event.at_ms for record in records if isinstance(record, EventRecord)}
    assert kept == sent | {"wrong": now_ms}


async def test_repeats_are_told_apart(tmp_path: Path) -> None:
    """A repeat in the same call or a recent one is a duplicate, the first one wins; another environment's is not."""
    metrics = RelayMetrics()
    async with opened(tmp_path, metrics=metrics) as (intake, spool):
        first = Event("a", "track", "first", name="n")
        assert await intake.accept("env", [first, track("a"), track("b")]) == Accepted(2, 1)
        assert await intake.accept("env", [track("b"), track("a")]) == Accepted(0, 2)
        assert await intake.accept("other", [track("a")]) == Accepted(1, 0)
        batch = await spool.peek()
    assert batch is not None
    assert [b'"unit":"first"' in record for record in batch.records] == [True, False, False]
    assert metrics.events_duplicate.total() == 3


async def test_the_window_of_recent_ids_is_bounded(tmp_path: Path) -> None:
    """Beyond the window a repeat is taken again; the authority recognises it."""
    async with opened(tmp_path) as (intake, _):
        await intake.accept("env", [track(name) for name in "abcd"])
        assert await intake.accept("env", [track("d")]) == Accepted(0, 1)
        assert await intake.accept("env", [track("a")]) == Accepted(1, 0)


async def accept_until_refused(intake: SpoolIntake) -> None:
    for number in range(1_000):
        await intake.accept("env", [track(str(number), 8_000)])


async def test_a_full_spool_is_a_503_with_retry_after(tmp_path: Path) -> None:
    """F08: when nothing fits the answer is 503 with Retry-After, and the event may be sent again later."""
    metrics = RelayMetrics()
    async with opened(tmp_path, metrics=metrics) as (intake, spool):
        with pytest.raises(Problem) as caught:
            await accept_until_refused(intake)
        assert (caught.value.status, caught.value.code) == (503, "spool_full")
        assert caught.value.headers == {"Retry-After": "5"}
        assert metrics.events_refused.value("full") == 1
        while batch := await spool.peek():
            await spool.acknowledge(batch)
        assert await intake.accept("env", [track("again")]) == Accepted(1, 0)


async def test_an_event_that_was_refused_is_no_duplicate_later(tmp_path: Path) -> None:
    """An id is remembered once it is durable, not before: after a refusal the repeat is taken."""
    failing = True

    def write(descriptor: int, data: bytes | memoryview) -> int:
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return Disk().write(descriptor, data)

    async with opened(tmp_path, disk=Disk(write=write)) as (intake, _):
        with pytest.raises(Problem):
            await intake.accept("env", [track("a")])
        failing = False
        assert await intake.accept("env", [track("a")]) == Accepted(1, 0)


def broken(_descriptor: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


async def test_a_failed_disk_is_a_503(tmp_path: Path) -> None:
    """F10: once the disk has failed every call is answered 503, counted under its own reason."""
    metrics = RelayMetrics()
    async with opened(tmp_path, metrics=metrics) as (intake, spool):
        spool._writer._disk = Disk(sync=broken)
        for _ in range(2):
            with pytest.raises(Problem, match="disk failed"):
                await intake.accept("env", [track("a")])
    assert metrics.events_refused.value("failed") == 2


async def test_the_oldest_can_be_given_up_instead(tmp_path: Path) -> None:
    """With `shed = "oldest"` new events push the oldest out, and each loss is counted."""
    metrics = RelayMetrics()
    async with opened(tmp_path, metrics=metrics, shed="oldest") as (intake, spool):
        for number in range(300):
            await intake.accept("env", [track(str(number), 8_000)])
        kept: list[bytes] = []
        while batch := await spool.peek():
            kept += batch.records
            await spool.acknowledge(batch)
    assert b'"id":"299"' in kept[-1]
    assert metrics.events_shed.value("full") == 300 - len(kept) > 0


async def test_giving_up_the_oldest_has_an_end(tmp_path: Path) -> None:
    """When giving up segments makes no room, or there is none to give up, the call is refused."""

    def no_room(_descriptor: int, _data: bytes | memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with opened(tmp_path, shed="oldest") as (intake, spool):
        for number in range(70):
            await intake.accept("env", [track(str(number), 8_000)])
        spool._writer._disk = Disk(write=no_room)
        with pytest.raises(Problem):
            await intake.accept("env", [track("x")])
        assert spool.stats().records > 0


async def test_a_disk_that_cannot_give_up_the_oldest_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When even deleting fails, the call is refused like any other that finds no room."""

    async def failing() -> bool:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path, shed="oldest") as (intake, spool):
        monkeypatch.setattr(spool, "shed_oldest", failing)
        with pytest.raises(Problem) as caught:
            await accept_until_refused(intake)
        assert (caught.value.status, caught.value.code) == (503, "spool_full")


async def test_a_call_that_comes_after_the_end_is_a_503(tmp_path: Path) -> None:
    """A connection that outlives the spool is told to come back, and reaches another process then."""
    async with opened(tmp_path) as (intake, _):
        pass
    with pytest.raises(Problem) as caught:
        await intake.accept("env", [track("a")])
    assert (caught.value.status, caught.value.code) == (503, "spool_closed")


async def test_memory_durability_answers_before_the_disk(tmp_path: Path) -> None:
    """With `durability = "memory"` the answer does not wait for the disk; what the disk then refuses is counted."""
    metrics = RelayMetrics()
    async with opened(tmp_path, metrics=metrics, durability="memory") as (intake, spool):
        assert await intake.accept("env", [track("a")]) == Accepted(1, 0)
        spool._writer._disk = Disk(sync=broken)
        assert await intake.accept("env", [track("b"), track("c")]) == Accepted(2, 0)
    assert metrics.events_shed.value("memory") in {2, 3}
