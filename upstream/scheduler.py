"""Carries out scheduled changes when their time comes: the one task that asks the authority to.

Wakes when the next one is due, when one was scheduled, and every few seconds: another process may have scheduled one,
or the clock may have been set. What became due while nobody ran is carried out once, in the order of its times.
"""

import asyncio
import logging
from functools import partial

from relay.clock import Clock
from upstream.authority import Authority
from upstream.storage import schedules
from upstream.storage.database import Database, Unavailable

logger = logging.getLogger(__name__)

POLL_S = 5.0
_AT_ONCE = 100


class Scheduler:
    """Run once under the supervisor."""

    def __init__(self, database: Database, authority: Authority, clock: Clock) -> None:
        self._database = database
        self._authority = authority
        self._clock = clock

    async def run(self) -> None:
        """Carry out what is due, for ever."""
        while True:
            self._authority.scheduled.clear()
            wait_s = POLL_S
            try:
                await self.carry_out_due()
                wait_s = await self._until_next_s()
            except Unavailable as error:
                logger.warning("scheduled changes have to wait for the database", extra={"reason": str(error)})
            await self._wait(wait_s)

    async def carry_out_due(self) -> int:
        """Carry out what is due now, one after the other; returns how many there were.

        Raises:
            Unavailable: the database cannot take it now; the rest stays due.
        """
        now_ms = self._clock.wall_ms()
        found = await self._database.read(partial(schedules.due, now_ms=now_ms, at_most=_AT_ONCE))
        for schedule_id in found:
            await self._carry_out(schedule_id)
        return len(found)

    async def _carry_out(self, schedule_id: str) -> None:
        try:
            await self._authority.run_schedule(schedule_id)
        except Unavailable:
            raise
        except Exception:
            # One that cannot be carried out must not keep all that come after it from their time.
            logger.exception("a scheduled change failed", extra={"schedule": schedule_id})
            detail = "The authority failed while it carried this out; its log says why. Nothing was changed."
            await self._authority.fail_schedule(schedule_id, "internal_error", detail)

    async def _until_next_s(self) -> float:
        next_ms = await self._database.read(schedules.next_run_at)
        if next_ms is None:
            return POLL_S
        return min(POLL_S, max(0.0, (next_ms - self._clock.wall_ms()) / 1_000))

    async def _wait(self, wait_s: float) -> None:
        """Wait for the time, or for somebody who schedules a change."""
        woken = asyncio.ensure_future(self._authority.scheduled.wait())
        floor = asyncio.ensure_future(self._clock.sleep(wait_s))
        try:
            await asyncio.wait((woken, floor), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            floor.cancel()
