"""Counting: every evaluation is in the spool once, under its minute, whatever happens in between."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import orjson
from hypothesis import given
from hypothesis import strategies as st

from relay.events.counters import Counters
from relay.events.disk import SpoolFull
from relay.protocol.events import CounterRow, parse_record
from relay.settings import Events
from tests.clocks import FakeClock, settle

MINUTE_MS = 60_000
START_MS = 1_790_000_040_000


class Sink:
    """Keeps what is appended, unless it is full."""

    def __init__(self) -> None:
        self.appends: list[list[CounterRow]] = []
        self.is_full = False

    async def append(self, records: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        if self.is_full:
            raise SpoolFull("full")
        rows = [parse_record(orjson.loads(record)) for record in records]
        self.appends.append([row for row in rows if isinstance(row, CounterRow)])

    def rows(self) -> list[CounterRow]:
        return [row for rows in self.appends for row in rows]

    def total(self) -> int:
        return sum(row.count for row in self.rows())


def made(sink: Sink, clock: FakeClock | None = None, **changes: object) -> Counters:
    return Counters(sink, Events.model_validate(changes), clock or FakeClock(START_MS))


async def test_evaluations_are_summed() -> None:
    """Equal evaluations are one row with their number; different results, sources and errors are rows of their own."""
    sink = Sink()
    counters = made(sink)
    for _ in range(3):
        counters.count("env", "flag", "on", "SPLIT", "single")
    counters.count("env", "flag", "on", "SPLIT", "bulk", 5)
    counters.count("env", "flag", None, "ERROR", "single", error_code="TYPE_MISMATCH")
    assert await counters.flush()
    assert sorted(sink.rows(), key=lambda row: row.count) == [
        CounterRow("env", "flag", None, "ERROR", "single", START_MS, 1, "TYPE_MISMATCH"),
        CounterRow("env", "flag", "on", "SPLIT", "single", START_MS, 3),
        CounterRow("env", "flag", "on", "SPLIT", "bulk", START_MS, 5),
    ]
    assert await counters.flush()
    assert len(sink.appends) == 1


async def test_it_flushes_every_ten_seconds_and_at_full_minutes() -> None:
    """The task flushes on time, and no row mixes two minutes."""
    sink, clock = Sink(), FakeClock(START_MS + 55_000)
    counters = made(sink, clock)
    task = asyncio.create_task(counters.run())
    counters.count("env", "flag", "on", "SPLIT", "single")
    await clock.advance(5)
    await settle()
    counters.count("env", "flag", "on", "SPLIT", "single")
    await clock.advance(9)
    await settle()
    assert [row.minute_ms for row in sink.rows()] == [START_MS]
    await clock.advance(1)
    await settle()
    assert [row.minute_ms for row in sink.rows()] == [START_MS, START_MS + MINUTE_MS]
    task.cancel()
    await asyncio.wait({task})


async def test_a_full_spool_delays_counts_without_losing_them() -> None:
    """Rows that the spool refuses stay under their minute and go with a later flush."""
    sink, clock = Sink(), FakeClock(START_MS)
    counters = made(sink, clock)
    sink.is_full = True
    counters.count("env", "flag", "on", "SPLIT", "single", 2)
    assert not await counters.flush()
    await clock.advance(60)
    counters.count("env", "flag", "on", "SPLIT", "single", 3)
    assert not await counters.flush()
    sink.is_full = False
    assert await counters.flush()
    assert [(row.minute_ms, row.count) for row in sink.rows()] == [(START_MS, 2), (START_MS + MINUTE_MS, 3)]


async def test_rows_are_bounded_and_the_rest_is_counted() -> None:
    """Beyond the maximum of rows evaluations are not counted by flag, but how many were lost is known."""
    sink = Sink()
    counters = made(sink, max_counters=100)
    for number in range(150):
        counters.count("env", f"flag{number}", "on", "SPLIT", "single", 2)
    counters.count("env", "flag0", "on", "SPLIT", "single")
    assert counters.lost == 100
    await counters.flush()
    assert sink.total() == 201


async def test_rows_that_wait_for_the_spool_are_bounded_too() -> None:
    """While the spool is full, rows held back are bounded as well; what finds no place is counted as lost."""
    sink, clock = Sink(), FakeClock(START_MS)
    counters = made(sink, clock, max_counters=100)
    sink.is_full = True
    for _ in range(3):
        for number in range(60):
            counters.count("env", f"flag{number}", "on", "SPLIT", "single")
        await counters.flush()
        await clock.advance(60)
    sink.is_full = False
    await counters.flush()
    assert (len(sink.rows()), sink.total() + counters.lost) == (100, 180)


async def test_scarce_rows_are_flushed_early() -> None:
    """When half of the rows are taken the task flushes at once instead of waiting."""
    sink = Sink()
    counters = made(sink, max_counters=100)
    task = asyncio.create_task(counters.run())
    await settle()
    for number in range(60):
        counters.count("env", f"flag{number}", "on", "SPLIT", "single")
    await settle(20)
    assert sink.total() == 60
    task.cancel()
    await asyncio.wait({task})


async def test_many_rows_are_appended_in_pieces() -> None:
    """A flush of many rows gives the event loop its turn in between."""
    sink = Sink()
    counters = made(sink)
    for number in range(1_200):
        counters.count("env", f"flag{number}", "on", "SPLIT", "single")
    await counters.flush()
    assert [len(rows) for rows in sink.appends] == [500, 500, 200]


async def test_a_cancelled_flush_counts_nothing_twice() -> None:
    """A flush that is cancelled while the disk works has handed its rows over; the next one does not repeat them."""
    sink = Sink()
    counters = made(sink)
    counters.count("env", "flag", "on", "SPLIT", "single")
    task = asyncio.create_task(counters.flush())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await counters.flush()
    assert sink.total() == 0


@given(st.lists(st.tuples(st.sampled_from(["count", "flush", "fill", "minute"]), st.integers(0, 5)), max_size=30))
def test_no_order_of_events_loses_or_doubles_a_count(steps: list[tuple[str, int]]) -> None:
    """Counting, flushing, full spools and passing minutes in any order: the sums per flag are exact."""

    async def play() -> None:
        sink, clock, expected = Sink(), FakeClock(START_MS), Counter[str]()
        counters = made(sink, clock)
        for name, number in steps:
            if name == "count":
                counters.count("env", f"flag{number}", "on", "SPLIT", "single", number + 1)
                expected[f"flag{number}"] += number + 1
            elif name == "minute":
                await clock.advance(60)
            else:
                sink.is_full = name == "fill"
                await counters.flush()
        sink.is_full = False
        await counters.flush()
        summed = Counter[str]()
        for row in sink.rows():
            summed[row.flag_id] += row.count
        assert summed == expected

    asyncio.run(play())
