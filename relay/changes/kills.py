"""Kills at this relay, from the operator's word to the authority's: durable, in effect at once, and let go in time.

`kill` returns when the record is on disk and the flag is off. From then on the overlay stays over every revision that
comes, and over restarts, until the configuration in use contains the kill (or what superseded it), the authority
refuses it, or its time is over. The record stays a little longer: until a restart would not need it any more.

Two clocks are told apart. What the authority weighs against its own times is dated by the authority's clock, as far as
it is known here; how long and since when a kill holds here is told by the clock of this machine.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from uuid import uuid4

from relay.changes.outbox import Outbox, Record
from relay.changes.overlay import Overlay, Overlays, Position, contains, is_past, is_undone
from relay.clock import Clock, rfc3339
from relay.metrics import RelayMetrics
from relay.protocol.edge import EdgeChange, Kill, encode, proof_of
from relay.protocol.overlays import ForcedOff
from relay.settings import Changes

logger = logging.getLogger(__name__)

SETTLED_EVERY_S: Final = 1.0
SAME_KILL_MS: Final = 1_000
"""A kill that is asked for again within this time is the same one, such as a request that was sent twice."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What the configuration in use is told and asked.

    Args:
        hold: lets exactly these overlays be what this relay forces off in an environment.
        served: where the configuration in use stands; None = there is none.
        kept: where the configuration stands that a restart would begin with.
    """

    hold: Callable[[str, tuple[ForcedOff, ...]], None]
    served: Callable[[str], Position | None]
    kept: Callable[[str], Position | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A kill as an operator asked for it; whoever hands it over has checked that they may."""

    project: str
    project_id: str
    environment: str
    environment_id: str
    flag: str
    flag_id: str
    credential_id: str
    edge_key: str = field(repr=False)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kill that the authority did not accept, and so was taken back here."""

    id: str
    environment: str
    flag: str
    at: str
    code: str
    reason: str


class Kills:
    """Every kill of this relay.

    Args:
        outbox: keeps the records.
        serving: the configuration in use.
        relay_id: tells the authority where it happened.
        settings: how long an overlay lasts at most.
        clock: for times and expiry.
        authority_ms: returns what the authority's wall clock shows now, as far as it is known.
        metrics: counts what becomes of kills.

    Attributes:
        last_refusal: the newest kill that was taken back; None = none since the start.
    """

    def __init__(  # noqa: PLR0913 - wiring
        self,
        outbox: Outbox,
        serving: Serving,
        *,
        relay_id: str,
        settings: Changes,
        clock: Clock,
        authority_ms: Callable[[], int],
        metrics: RelayMetrics,
    ) -> None:
        self.last_refusal: Refusal | None = None
        self._outbox = outbox
        self._serving = serving
        self._relay_id = relay_id
        self._settings = settings
        self._clock = clock
        self._authority_ms = authority_ms
        self._metrics = metrics
        self._overlays = Overlays()
        self._pending: dict[str, bool] = {}  # whether it has been tried in vain
        self._committed: dict[str, Position] = {}
        self._leaving: dict[str, None] = {}
        self._has_pending = asyncio.Event()
        self._killing = asyncio.Lock()
        self._last_error: str | None = None

    # --- for operators ----------------------------------------------------------------------------------------------

    async def kill(self, order: Order) -> Overlay:
        """Switch a flag off here and now, or return the overlay of a moment ago that does so already.

        A later kill of the same flag counts anew, as the flag may have been switched on at the authority meanwhile; it
        takes the place of the one that the same token made and that still waits.

        Raises:
            OutboxFull: too many kills wait for the authority.
            OSError: the disk did not keep it; nothing has changed.
        """
        async with self._killing:
            # What is about to end must not be taken for an answer.
            self._let_go()
            waiting = self._overlays.find_pending(order.environment_id, order.flag, order.credential_id)
            if waiting is not None and 0 <= self._clock.wall_ms() - waiting.at_ms < SAME_KILL_MS:
                return waiting
            record = self._record(order)
            await self._outbox.add(record, replaces=None if waiting is None else waiting.id)
            self._take_up(record.overlay, self._settings.overlay_ttl_s)
            if waiting is not None and waiting.id in self._pending:
                self._end(waiting, "replaced")
            self._metrics.kills.add("taken")
            logger.warning("flag killed at this relay", extra={**_named(record.overlay), "by": order.credential_id})
            return record.overlay

    def status(self) -> list[dict[str, Any]]:
        """Return every overlay as `/status` shows it. May be asked from another thread."""
        now_ms = self._clock.wall_ms()
        return [
            {
                **_named(each),
                "at": rfc3339(each.at_ms),
                "age_s": max(0.0, (now_ms - each.at_ms) / 1000),
                "expires_at": rfc3339(each.expires_at_ms),
                "state": each.stage,
            }
            for each in self._overlays.all()
        ]

    def outbox_status(self) -> dict[str, Any]:
        """Return what waits, and what went wrong. May be asked from another thread."""
        refusal = self.last_refusal
        return {
            "records": len(self._outbox.records),
            "last_error": self._last_error,
            "last_refusal": None if refusal is None else asdict(refusal),
        }

    def counts(self) -> dict[tuple[str, ...], float]:
        """Return how many overlays there are at each stage. May be asked from another thread."""
        counts: dict[tuple[str, ...], float] = {}
        for each in self._overlays.all():
            counts[each.stage,] = counts.get((each.stage,), 0) + 1
        return counts

    # --- for the way to the authority -------------------------------------------------------------------------------

    async def wait_pending(self) -> None:
        """Return once there is a kill that the authority has not answered for."""
        await self._has_pending.wait()

    def next_pending(self) -> Record | None:
        """Return the oldest kill that the authority has not answered for; postponed ones come after all others."""
        record_id = min(self._pending, key=self._pending.__getitem__, default=None)
        if record_id is None:
            self._has_pending.clear()
            return None
        return self._outbox.records[record_id]

    def postpone(self, record: Record) -> None:
        """Let all others that the authority has not answered for come first, those of the next moments included."""
        if self._pending.pop(record.overlay.id, None) is not None:
            self._pending[record.overlay.id] = True

    def commit(self, record: Record, position: Position, *, is_superseded: bool = False) -> None:
        """Note that the authority's configuration contains a kill from `position` on, or what superseded it."""
        overlay = record.overlay
        if overlay.id not in self._pending:
            return  # its time ran out meanwhile
        del self._pending[overlay.id]
        self._committed[overlay.id] = position
        self._overlays.move(overlay.id, position)
        named = {**_named(overlay), "revision": position.revision}
        if is_superseded:
            self._metrics.kills.add("superseded")
            logger.warning("the flag was switched on at the authority after its kill here; it is not killed", extra=named)  # fmt: skip  # noqa: E501
        else:
            self._metrics.kills.add("committed")
            logger.info("the authority has a kill of this relay", extra=named)
        self._let_go()

    def withdraw(self, record: Record, code: str, reason: str) -> None:
        """Take a kill back that the authority refuses."""
        if not self._end(record.overlay, "refused"):
            return
        refusal = Refusal(
            record.overlay.id, _place(record.overlay), record.overlay.flag, rfc3339(self._clock.wall_ms()), code, reason
        )
        self.last_refusal = refusal
        logger.error("the authority refuses a kill; the flag is as configured again", extra=asdict(refusal))

    # --- in the background ------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take up what an earlier process left. Call before anything is served."""
        now_ms = self._clock.wall_ms()
        for record in tuple(self._outbox.records.values()):
            # At most the whole time anew: the wall clock may have been wrong then, or be wrong now.
            left_s = min(self._settings.overlay_ttl_s, (record.overlay.expires_at_ms - now_ms) / 1000)
            if left_s > 0:
                self._take_up(record.overlay, left_s)
                logger.warning("a kill of an earlier run still holds", extra=_named(record.overlay))
            else:
                self._end(record.overlay, "expired")
        await self.settle()

    async def run(self) -> None:
        """End overlays in time, and forget records that are not needed any more; for ever."""
        while True:
            await self._clock.sleep(SETTLED_EVERY_S)
            await self.settle()

    async def settle(self) -> None:
        """Do now what `run` does every second."""
        self._let_go()
        for overlay in self._overlays.over(self._clock.monotonic()):
            logger.warning("a kill's time is over; the flag is as configured again", extra=_named(overlay))
            self._end(overlay, "expired")
        error = None
        for record_id in tuple(self._leaving):
            try:
                await self._outbox.remove(record_id)
            except OSError as refused:
                error = str(refused)
            else:
                del self._leaving[record_id]
        if error is not None and error != self._last_error:
            logger.error("the record of a kill cannot be removed; trying again", extra={"reason": error})
        self._last_error = error

    def _record(self, order: Order) -> Record:
        now_ms = self._clock.wall_ms()
        overlay = Overlay(
            id=str(uuid4()),
            project=order.project,
            environment=order.environment,
            environment_id=order.environment_id,
            flag=order.flag,
            credential_id=order.credential_id,
            at_ms=now_ms,
            expires_at_ms=now_ms + round(self._settings.overlay_ttl_s * 1000),
        )
        change = EdgeChange(
            idempotency_key=overlay.id,
            ops=(
                Kill(
                    project=order.project_id,
                    environment=order.environment_id,
                    flag=order.flag_id,
                    reason=order.reason,
                ),
            ),
            relay=self._relay_id,
            at=rfc3339(self._authority_ms()),
            credential=order.credential_id,
        )
        return Record(overlay, encode(change, proof_of(order.edge_key, change)))

    def _take_up(self, overlay: Overlay, left_s: float) -> None:
        self._overlays.add(overlay, self._clock.monotonic() + left_s)
        self._force(overlay.environment_id)
        self._wait_for_answer(overlay.id)

    def _let_go(self) -> None:
        """End the overlays whose kill is in the configuration in use; mark the records that nothing needs any more."""
        for record_id, committed in tuple(self._committed.items()):
            environment_id = self._outbox.records[record_id].overlay.environment_id
            served, kept = self._serving.served(environment_id), self._serving.kept(environment_id)
            if contains(served, committed) and self._overlays.drop(record_id) is not None:
                self._force(environment_id)
            if record_id not in self._overlays:
                if contains(kept, committed) or is_past(served, kept, committed):
                    del self._committed[record_id]
                    self._leaving[record_id] = None
            elif is_undone(served, committed):
                # Another lineage, such as a restored backup: nobody knows whether the kill is part of it.
                del self._committed[record_id]
                self._overlays.move(record_id, None)
                self._wait_for_answer(record_id)

    def _wait_for_answer(self, record_id: str) -> None:
        self._pending[record_id] = False
        self._has_pending.set()

    def _end(self, overlay: Overlay, outcome: str) -> bool:
        """End a kill that has not come into the configuration; false when it has ended before."""
        is_known = overlay.id in self._outbox.records and overlay.id not in self._leaving
        if is_known:
            self._overlays.drop(overlay.id)
            self._pending.pop(overlay.id, None)
            self._committed.pop(overlay.id, None)
            self._leaving[overlay.id] = None
            self._force(overlay.environment_id)
            self._metrics.kills.add(outcome)
        return is_known

    def _force(self, environment_id: str) -> None:
        self._serving.hold(environment_id, self._overlays.of_environment(environment_id))


def _place(overlay: Overlay) -> str:
    return f"{overlay.project}/{overlay.environment}"


def _named(overlay: Overlay) -> dict[str, str]:
    return {"id": overlay.id, "environment": _place(overlay), "flag": overlay.flag}
