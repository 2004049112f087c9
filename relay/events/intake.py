"""Takes events from applications: the answer comes once they are on disk.

`SpoolIntake.accept` is the door. It never answers "accepted" for an event that a crash could still lose, unless the
operator chose `durability = "memory"`, and it never gives up an acknowledged event, unless the operator chose
`shed = "oldest"`; both losses are counted. Whether the caller may track is the caller's matter. Repeats within a
bounded window are told apart here; the authority recognises all others by their id. A sender's clock is believed
unless it is plainly wrong.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

from relay.clock import Clock
from relay.errors import Problem
from relay.events.disk import SpoolClosed, SpoolError, SpoolFull
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.protocol.events import Event, encode_event
from relay.settings import Events

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
MAX_RECENT_IDS = 10_000
MAX_SHED_PER_CALL = 4
"""Segments that one call may push out; each is many times larger than a call."""
MAX_AHEAD_MS = 86_400_000
"""How far a sender's clock may be ahead: more than any mistaken time zone, and than this machine's own error."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of the events of one call."""

    accepted: int
    duplicates: int


class Intake(Protocol):
    """Where the routes hand events over."""

    async def accept(self, environment_id: str, events: Sequence[Event]) -> Accepted:
        """Return once the events are as safe as the operator asked for.

        Raises:
            Problem: 503 with Retry-After; none of the events may be taken as kept.
        """
        ...


class SpoolIntake:
    """The intake of a relay: everything goes through its spool."""

    def __init__(
        self,
        spool: Spool,
        settings: Events,
        clock: Clock,
        metrics: RelayMetrics,
        *,
        max_recent_ids: int = MAX_RECENT_IDS,
    ) -> None:
        self._spool = spool
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._max_recent_ids = max_recent_ids
        self._recent: dict[tuple[str, str], None] = {}

    async def accept(self, environment_id: str, events: Sequence[Event]) -> Accepted:
        """See `Intake.accept`."""
        fresh: dict[str, Event] = {}
        for event in events:
            if (environment_id, event.id) not in self._recent:
                fresh.setdefault(event.id, event)
        now_ms = self._clock.wall_ms()
        if fresh:
            await self._keep([encode_event(environment_id, _timely(event, now_ms), now_ms) for event in fresh.values()])
        # Only now: a repeat that comes while the first is being written must wait for the disk as well.
        for event_id in fresh:
            self._remember(environment_id, event_id)
        accepted = Accepted(len(fresh), len(events) - len(fresh))
        self._metrics.events_accepted.add(n=accepted.accepted)
        self._metrics.events_duplicate.add(n=accepted.duplicates)
        return accepted

    async def _keep(self, records: Sequence[bytes]) -> None:
        for _ in range(MAX_SHED_PER_CALL):
            try:
                written = self._spool.append(records)
                if self._settings.durability == "memory":
                    written.add_done_callback(lambda done: self._count_unwritten(done, len(records)))
                    return
                await written
            except SpoolFull as error:
                if self._settings.shed == "none" or not await self._made_room():
                    self._refuse("full", len(records), error)
            except SpoolClosed as error:
                self._refuse("closed", len(records), error)
            except SpoolError as error:
                self._refuse("failed", len(records), error)
            else:
                return
        self._refuse("full", len(records), None)

    async def _made_room(self) -> bool:
        try:
            return await self._spool.shed_oldest()
        except OSError:
            logger.exception("the oldest events could not be given up; new ones are refused")
            return False

    def _remember(self, environment_id: str, event_id: str) -> None:
        self._recent[environment_id, event_id] = None
        if len(self._recent) > self._max_recent_ids:
            del self._recent[next(iter(self._recent))]

    def _count_unwritten(self, done: asyncio.Future[None], records: int) -> None:
        if not done.cancelled() and done.exception() is not None:
            self._metrics.events_shed.add("memory", n=records)

    def _refuse(self, reason: str, records: int, cause: SpoolError | None) -> NoReturn:
        self._metrics.events_refused.add(reason, n=records)
        raise Problem(
            503,
            f"spool_{reason}",
            f"Events cannot be taken now: {cause or 'the spool is full'}. Send them again later; ids make it safe.",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        ) from cause


def _timely(event: Event, now_ms: int) -> Event:
    """Leave out a time that cannot be: the moment of receipt takes its place.

    A wrong clock is no reason to lose an event, but one of next year would be in no report of this one. A time long
    past is believed: it is that of a device that was offline.
    """
    if event.at_ms is None or event.at_ms <= now_ms + MAX_AHEAD_MS:
        return event
    return replace(event, at_ms=None)
