"""The one door through which anything changes.

`execute` runs one command in one transaction (entities, audit entry, revisions, change log), then wakes the streams
of the environments that it touched. A command is refused with `upstream.domain.errors.Rejected` and leaves nothing;
`upstream.storage.database.Unavailable` means that the database could not take it now. Once the transaction has
committed the wake-up is sent even if the caller has gone away. A write that may be repeated keeps its outcome in the
same transaction (`Once`).
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from relay.clock import Clock
from upstream.domain.commands import Command
from upstream.domain.entities import Change, Entity, Environment, JsonObject, Schedule, ScheduleStatus
from upstream.domain.facts import Entropy, Facts, Notice
from upstream.domain.permissions import Actor, system_actor
from upstream.steady import SteadyClock
from upstream.storage import deferral, schedules
from upstream.storage.database import Database
from upstream.storage.deferral import Rehearsal, rehearse
from upstream.storage.edge import Delivery, Taken, take
from upstream.storage.events import FORGOTTEN_AT_ONCE, forget_batches, forget_events
from upstream.storage.history import DAY_MS, compact, forget_idempotency
from upstream.storage.idempotency import UNANSWERED, Claim, claim, keep
from upstream.storage.transaction import Committed, carry_out, expire_credentials

logger = logging.getLogger(__name__)


class SystemEntropy:
    """The operating system's randomness."""

    def token(self, size: int) -> bytes:
        """Return `size` random bytes."""
        return secrets.token_bytes(size)


def _nobody() -> None:
    """Stand for whoever seals the audit log where nobody does."""


class Waker(Protocol):
    """Who wants to know about commits. Called on the event loop, after the commit; losing a call costs 2 s."""

    def wake(self, environment_id: str, revision: int | None) -> None:
        """Note that the environment reached `revision`; None: it was created, renamed or deleted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did.

    `entity` is what the command is about, as it now is (after a deletion: as it last was); `entities` all that was
    written. `revisions` maps environment id to its new revision, where published content changed. `audit_id` is None
    when the command changed nothing at all. `secret` is the raw text of a new key or one-time token, shown this once.
    `report` is what the command says of itself; an import has its changes there, thing by thing. Of a batch, these
    three and `entity` are its last command's.
    """

    entity: Entity
    entities: tuple[Entity, ...]
    revisions: Mapping[str, int]
    changes: tuple[Change, ...] = ()
    warnings: tuple[Notice, ...] = ()
    audit_id: str | None = None
    secret: str | None = None
    report: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Once:
    """A write that has its effect once, however often it comes.

    What `keeping` makes of what was done is kept under the claimed key, in the transaction of the write.
    """

    claim: Claim
    keeping: Callable[[Outcome], bytes]


def outcome_of(done: Committed) -> Outcome:
    """Return what the caller is told of a transaction."""
    decision = done.decision
    return Outcome(
        entity=decision.entity,
        entities=tuple(entity for each in done.decisions for entity in each.save),
        revisions=done.revisions,
        changes=tuple(change for each in done.decisions for change in each.changes) if decision.report is None else (),
        warnings=tuple(notice for each in done.decisions for notice in each.warnings),
        audit_id=None if done.audit is None else done.audit.id,
        secret=decision.secret,
        report=decision.report,
    )


class Authority:
    """Executes commands. `entropy` is the system's randomness, or a seeded one in tests.

    `on_audited` is called on the event loop after each commit that wrote to the audit log.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        notifier: Waker,
        on_audited: Callable[[], None] = _nobody,
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._notifier = notifier
        self._on_audited = on_audited
        self._steady = SteadyClock(clock)
        self.scheduled = asyncio.Event()
        """Set when a change was scheduled: the next one may be due sooner than it was thought."""

    async def execute(self, command: Command, actor: Actor, once: Once | None = None) -> Outcome:
        """Carry out `command` for `actor`; with `once`, keep the outcome for when it comes again.

        Raises:
            Rejected: the command was refused; nothing changed.
            KeyTaken: it was carried out under the same key before; nothing changed.
            Unavailable: the database cannot take it now; nothing changed.
        """
        return await self._done(partial(carry_out, command=command, facts=self._facts(actor)), once)

    async def _done(self, work: Callable[[Connection], Committed], once: Once | None) -> Outcome:
        return outcome_of(await self._database.write(work if once is None else self._kept(work, once), self._wake))

    def _kept(self, work: Callable[[Connection], Committed], once: Once) -> Callable[[Connection], Committed]:
        now_ms = self._clock.wall_ms()

        def carry_and_keep(connection: Connection) -> Committed:
            # Claimed first: what the same request did elsewhere must not make this one be refused.
            claim(connection, once.claim, now_ms)
            done = work(connection)
            keep(connection, once.claim, status=UNANSWERED, response=once.keeping(outcome_of(done)))
            return done

        return carry_and_keep

    async def preview(self, command: Command, actor: Actor, *, is_reviewed: bool = False) -> Rehearsal:
        """Find out what `command` would do (`is_reviewed`: if it were approved); it is carried out and taken back.

        Raises:
            Rejected: the command would be refused.
            Unavailable: the database cannot take it now.
        """
        facts = replace(self._facts(actor), is_reviewed=is_reviewed)
        return await self._database.write(partial(rehearse, command=command, facts=facts))

    async def schedule(self, command: Command, actor: Actor, run_at: int, once: Once | None = None) -> Outcome:
        """Try `command` now and keep it until `run_at`.

        Raises:
            Rejected: it cannot wait, or would be refused now.
            KeyTaken, Unavailable: as for `execute`.
        """
        work = partial(deferral.schedule, command=command, run_at=run_at, facts=self._facts(actor))
        return await self._done(work, once)

    async def propose(self, command: Command, actor: Actor, title: str, once: Once | None = None) -> Outcome:
        """Try `command` now and open a change request with it.

        Raises:
            Rejected: it cannot wait, or would be refused even if it were approved.
            KeyTaken, Unavailable: as for `execute`.
        """
        work = partial(deferral.propose, command=command, title=title, facts=self._facts(actor))
        return await self._done(work, once)

    async def propose_to(self, command: Command, actor: Actor, request_id: str, once: Once | None = None) -> Outcome:
        """Try `command` now, together with what a change request holds, and add it there.

        Raises:
            Rejected: it cannot wait, or the whole would be refused even if it were approved.
            KeyTaken, Unavailable: as for `execute`.
        """
        work = partial(deferral.propose_to, command=command, request_id=request_id, facts=self._facts(actor))
        return await self._done(work, once)

    async def run_schedule(self, schedule_id: str) -> Outcome | None:
        """Carry out a schedule that is due, or note with what it is refused; None when it is not pending any more.

        Raises:
            Unavailable: the database cannot take it now, or another process was first; nothing changed.
        """
        now_ms = self._clock.wall_ms()
        work = partial(schedules.run, schedule_id=schedule_id, now_ms=now_ms, entropy=self._entropy)
        done = await self._database.write(work, self._wake_if_done)
        return None if done is None else outcome_of(done)

    async def fail_schedule(self, schedule_id: str, code: str, detail: str) -> None:
        """Note why a schedule that is due was not carried out, where it could not be noted together with trying it.

        Raises:
            Unavailable: the database cannot take it now; nothing changed.
        """
        facts = self._facts(system_actor())
        work = partial(schedules.fail, schedule_id=schedule_id, code=code, detail=detail, facts=facts)
        await self._database.write(work, self._wake_if_done)

    def _facts(self, actor: Actor) -> Facts:
        return Facts(now_ms=self._clock.wall_ms(), entropy=self._entropy, actor=actor)

    async def take_from_edge(self, delivery: Delivery) -> Taken:
        """Carry out what was done at a relay; once, however often it is handed over.

        Raises:
            Rejected: it does not count; nothing changed.
            Unavailable: the database cannot take it now; nothing changed.
        """
        now_ms = self._clock.wall_ms()
        work = partial(take, delivery=delivery, now_ms=now_ms, entropy=self._entropy)

        def wake(taken: Taken) -> None:
            for done in taken.done:
                self._wake(done)

        return await self._database.write(work, wake)

    async def keep_house(
        self,
        *,
        keep_ms: int = 7 * DAY_MS,
        keep_revisions: int = 10_000,
        keep_idempotency_ms: int = DAY_MS,
        keep_batches_ms: int = 45 * DAY_MS,
        keep_events_ms: int = 400 * DAY_MS,
    ) -> None:
        """Take expired keys out of the streams and let go of history beyond its retention; called now and then.

        While the clock cannot be trusted nothing is let go of.

        Raises:
            Unavailable: the database cannot take it now.
        """
        now_ms = self._clock.wall_ms()
        await self._database.write(partial(expire_credentials, now_ms=now_ms), self._wake_all)
        if not self._steady.is_trusted():
            logger.error("the clock has jumped by more than a day: nothing is deleted by its age until it is mended")
            return
        await self._database.write(partial(compact, now_ms=now_ms, keep_ms=keep_ms, keep_revisions=keep_revisions))
        await self._database.write(partial(forget_idempotency, before_ms=now_ms - keep_idempotency_ms))
        for forget, keep_ms_of in ((forget_batches, keep_batches_ms), (forget_events, keep_events_ms)):
            # In many small transactions, between which others have their turn.
            while await self._database.write(partial(forget, before_ms=now_ms - keep_ms_of)) == FORGOTTEN_AT_ONCE:
                pass

    def _wake(self, done: Committed) -> None:
        self._wake_all(done.revisions)
        if done.audits:
            self._on_audited()
        for decision in done.decisions:
            for entity in (*decision.save, *decision.remove):
                if isinstance(entity, Environment):
                    self._notifier.wake(entity.id, None)
                elif isinstance(entity, Schedule) and entity.status is ScheduleStatus.PENDING:
                    self.scheduled.set()

    def _wake_if_done(self, done: Committed | None) -> None:
        if done is not None:
            self._wake(done)

    def _wake_all(self, revisions: Mapping[str, int]) -> None:
        for environment_id, revision in revisions.items():
            self._notifier.wake(environment_id, revision)
