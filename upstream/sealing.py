"""Seals the audit log after its commits, and verifies the chain of seals.

`Sealer.run` is one supervised task of the process. A commit wakes it, and every few seconds it looks by itself, also
for what another process has committed. Sealing inside the commit would make all writers of an organisation wait for
each other. What is committed and not yet sealed is sealed after the next start.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Final

from sqlalchemy.exc import IntegrityError

from relay.clock import Clock
from upstream.domain.audit_chain import Mark, Report, Seal, Verifier
from upstream.storage.audit_chain import missing_of, seal, sealed_after, unsealed_after, unsealed_of
from upstream.storage.database import Database, Unavailable

logger = logging.getLogger(__name__)

FLOOR_S: Final = 5.0
PAUSE_S: Final = 1.0
# An entry that commits this much later than one after it is found by the next process that starts.
_SETTLED_AFTER_S: Final = 30.0
_TOLD_EVERY_S: Final = 3_600.0


class Sealer:
    """Adds what was committed to the chains. `wake` is called on the event loop."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._woken = asyncio.Event()
        # Below this place everything was looked at when nothing there could be under way any more.
        self._settled = 0
        self._looked: deque[tuple[float, int]] = deque()
        self._told: dict[str, float] = {}

    def wake(self) -> None:
        """Note that something was committed."""
        self._woken.set()

    async def run(self) -> None:
        """Seal until cancelled."""
        while True:
            try:
                await self.seal()
            except Unavailable as error:
                logger.warning("the audit log cannot be sealed now; it is tried again", extra={"reason": str(error)})
            # One transaction a second at most, however many commits there are.
            await self._clock.sleep(PAUSE_S)
            await self._wait()

    async def seal(self) -> None:
        """Seal everything that is committed now.

        Raises:
            Unavailable: the database cannot take it now.
        """
        self._woken.clear()
        now = self._clock.monotonic()
        while self._looked and now - self._looked[0][0] >= _SETTLED_AFTER_S:
            self._settled = self._looked.popleft()[1]
        after, is_end = self._settled, False
        while not is_end:
            found = await self._database.read(partial(unsealed_after, seq=after))
            if found.rows:
                try:
                    self._tell(await self._database.write(partial(seal, rows=found.rows)))
                except IntegrityError:
                    # Another process was faster; what it left is there at the next look.
                    return
            after, is_end = found.looked_upto, found.is_end
        self._looked.append((now, after))

    async def _wait(self) -> None:
        """Wait for a commit or the floor, whichever is first."""
        woken = asyncio.ensure_future(self._woken.wait())
        floor = asyncio.ensure_future(self._clock.sleep(FLOOR_S))
        try:
            await asyncio.wait((woken, floor), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            floor.cancel()

    def _tell(self, heads: Mapping[str, Seal]) -> None:
        """Log the end of each chain now and then: kept elsewhere, it shows whether the end was cut off."""
        now = self._clock.monotonic()
        for organisation_id, head in heads.items():
            if now - self._told.get(organisation_id, -_TOLD_EVERY_S) >= _TOLD_EVERY_S:
                self._told[organisation_id] = now
                extra = {"organisation": organisation_id, "mark": str(Mark(head.number, head.hash))}
                logger.info("the audit log is sealed up to here", extra=extra)


async def verified(database: Database, organisation_id: str, expected: Mark | None = None) -> Report:
    """Return whether an organisation's audit log is as it was sealed.

    Reads in many short transactions, as nothing sealed ever changes.

    Raises:
        Unavailable: the database cannot answer now.
    """
    verifier, number = Verifier(organisation_id, expected), 0
    while part := await database.read(partial(sealed_after, organisation_id=organisation_id, number=number)):
        for each, row in part:
            verifier.take(each, row)
        number = part[-1][0].number
        await asyncio.sleep(0)  # others are served between two parts
    unsealed = await database.read(partial(unsealed_of, organisation_id=organisation_id))
    missing = await database.read(partial(missing_of, organisation_id=organisation_id))
    return verifier.finish(unsealed, missing)
