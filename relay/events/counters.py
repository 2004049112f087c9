"""Sums evaluations, and puts the sums into the spool every few seconds.

Counting is one addition in a dictionary whose keys say everything but the time; the time is the minute of the
dictionary's first count, and a new dictionary is begun at every full minute. Who counts answers by the thousand keeps
count itself and is asked for its sums before that. A crash loses what was counted since the last flush, ten seconds by
default; an orderly stop flushes. Rows are bounded: what finds no row is counted as lost.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import Protocol

from relay.clock import Clock
from relay.events.disk import SpoolError
from relay.protocol.events import MINUTE_MS, CounterRow, encode_counters
from relay.settings import Events

logger = logging.getLogger(__name__)

ROWS_PER_APPEND = 500
"""Rows encoded in one turn of the event loop."""

Key = tuple[str, str, str | None, str, str, str | None]


class Sink(Protocol):
    """Where the sums go, as records; a relay's is its spool."""

    def append(self, records: Sequence[bytes]) -> Awaitable[None]:
        """Keep the records.

        Raises:
            SpoolError: not now; none of them was kept.
        """
        ...


class Teller(Protocol):
    """Keeps count of its own between two flushes; it says `begin` before the first count after each `take`."""

    @property
    def rows(self) -> int:
        """How many distinct counts it keeps. May be asked from another thread."""
        ...

    def take(self) -> Iterable[tuple[Key, int]]:
        """Hand over what was counted since the last time. Counts nothing twice, whatever becomes of the flush."""
        ...


class Counters:
    """Counts by environment, flag id, variation, reason, source, error code and minute; for one event loop."""

    def __init__(self, sink: Sink, settings: Events, clock: Clock) -> None:
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._max_rows = settings.max_counters
        self._rows: dict[Key, int] = {}
        self._minute_ms: int | None = None
        self._tellers: list[Teller] = []
        self._held: dict[tuple[Key, int], int] = {}
        self._is_crowded = asyncio.Event()
        self._flushing = asyncio.Lock()
        self.lost = 0

    def count(  # noqa: PLR0913, PLR0917 - one argument per part of the key; an object per call would cost more
        self,
        environment_id: str,
        flag_id: str,
        variation: str | None,
        reason: str,
        source: str,
        n: int = 1,
        error_code: str | None = None,
    ) -> None:
        """Count `n` evaluations. On the path of every evaluation: one addition in a dictionary."""
        key = (environment_id, flag_id, variation, reason, source, error_code)
        try:
            self._rows[key] += n
        except KeyError:
            self._begin_row(key, n)

    def begin(self) -> None:
        """Note the minute, unless something has been counted since the last flush."""
        if self._minute_ms is None:
            self._minute_ms = self._clock.wall_ms() // MINUTE_MS * MINUTE_MS

    def attach(self, teller: Teller) -> None:
        """Ask this teller for its sums from now on, whenever rows are put aside."""
        self._tellers.append(teller)

    def detach(self, teller: Teller) -> None:
        """Take the last sums of a teller."""
        self._tellers.remove(teller)
        self._take(teller)

    def note_rows(self, rows: int) -> None:
        """Flush early if a teller may come to need so many rows."""
        if rows >= self._max_rows // 2:
            self._is_crowded.set()

    @property
    def rows(self) -> int:
        """How many distinct counts wait. May be asked from another thread."""
        return len(self._rows) + len(self._held) + sum(teller.rows for teller in self._tellers.copy())

    async def run(self) -> None:
        """Flush for ever: every `flush_s`, at every full minute, and early when rows become scarce."""
        while True:
            await self._due()
            await self.flush()

    async def flush(self) -> bool:
        """Put every sum into the spool. False: the spool would not take them all; they stay here for the next flush."""
        async with self._flushing:
            self._hold()
            while self._held:
                taken = dict(itertools.islice(self._held.items(), ROWS_PER_APPEND))
                # Gone from here first: were this task cancelled while the disk works, they would be counted twice.
                for held in taken:
                    del self._held[held]
                try:
                    await self._sink.append([_encode(key, minute, n) for (key, minute), n in taken.items()])
                except SpoolError as error:
                    self._held |= taken
                    logger.warning("evaluation counts wait for the spool: %s", error, extra={"rows": len(self._held)})
                    return False
        return True

    def _begin_row(self, key: Key, n: int) -> None:
        rows = len(self._rows)
        if rows >= self._max_rows:
            self.lost += n
            return
        self.begin()
        self._rows[key] = n
        if rows >= self._max_rows // 2:
            self._is_crowded.set()

    def _hold(self) -> None:
        """Begin anew; what was counted until now is held under its minute."""
        lost_before = self.lost
        for teller in self._tellers:
            self._take(teller)
        rows, self._rows = self._rows, {}
        minute_ms, self._minute_ms = self._minute_ms or 0, None
        self._is_crowded.clear()
        for key, n in rows.items():
            held = (key, minute_ms)
            if held in self._held or len(self._held) < self._max_rows:
                self._held[held] = self._held.get(held, 0) + n
            else:
                self.lost += n
        if self.lost > lost_before:
            logger.error("evaluation counts were lost: too many rows", extra={"lost": self.lost})

    def _take(self, teller: Teller) -> None:
        for key, n in teller.take():
            try:
                self._rows[key] += n
            except KeyError:
                self._begin_row(key, n)

    async def _due(self) -> None:
        now_ms = self._clock.wall_ms()
        to_next_minute_s = (MINUTE_MS - now_ms % MINUTE_MS) / 1_000
        slept = asyncio.ensure_future(self._clock.sleep(min(self._settings.flush_s, to_next_minute_s)))
        crowded = asyncio.ensure_future(self._is_crowded.wait())
        try:
            await asyncio.wait((slept, crowded), return_when=asyncio.FIRST_COMPLETED)
        finally:
            slept.cancel()
            crowded.cancel()


def _encode(key: Key, minute_ms: int, n: int) -> bytes:
    environment_id, flag_id, variation, reason, source, error_code = key
    return encode_counters(
        CounterRow(environment_id, flag_id, variation, reason, source, minute_ms, n, error_code=error_code)
    )
