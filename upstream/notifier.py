"""Leads the authority's own store on from what was committed, so that its streams and evaluation are the relay's code.

`wake` says that something was committed; the task `Feed.run` then reads the rows from the database and applies them.
A wake-up is a hint only: every 2 s the feed looks by itself, so a lost one costs 2 s and nothing else. What cannot be
applied as change sets (a gap, a new environment, a restored database) is read as a whole environment.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from relay.clock import Clock, rfc3339
from relay.protocol.changes import (
    Applied,
    Bookmark,
    ChangeSet,
    Duplicate,
    Environments,
    Mark,
    NeedResync,
    Outcome,
    Refused,
    Snapshot,
    State,
)
from relay.protocol.decode import BadMessage
from relay.sync.collector import collector_paused, size_of
from relay.sync.slices import in_slices
from relay.sync.store import Store
from upstream.storage.database import Database, Unavailable
from upstream.storage.history import Head, heads, lineage, read_changes, read_snapshot

logger = logging.getLogger(__name__)

POLL_S = 2.0
_CHANGES_AT_ONCE = 500
_MOST_WOKEN = 10_000
"""Environments that are followed one by one; beyond that all are looked at."""


class Notifier:
    """Collects wake-ups on the event loop. Holds at most one entry per environment."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._revisions: dict[str, int] = {}
        self._look_at_all = False

    def wake(self, environment_id: str, revision: int | None) -> None:
        """Note that the environment reached `revision`; None: it was created, renamed or deleted."""
        if revision is None or (len(self._revisions) >= _MOST_WOKEN and environment_id not in self._revisions):
            self._look_at_all = True
        else:
            self._revisions[environment_id] = max(revision, self._revisions.get(environment_id, 0))
        self._woken.set()

    async def wait(self) -> None:
        """Return when somebody woke the feed since `take`."""
        await self._woken.wait()

    def take(self) -> tuple[dict[str, int], bool]:
        """Return the revisions to reach, and whether to look at every environment."""
        taken = self._revisions, self._look_at_all
        self._revisions, self._look_at_all = {}, False
        self._woken.clear()
        return taken


class Feed:
    """Applies the change log to the store. Started once under the supervisor, after `load`."""

    def __init__(self, database: Database, store: Store, notifier: Notifier, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._notifier = notifier
        self._clock = clock
        self.refused: dict[str, Refused] = {}
        """Environments whose newest content the engine refuses, with why; the last good one is served."""
        self._next_look = clock.monotonic()

    async def load(self) -> None:
        """Bring the store to what is committed now; called before anything is served.

        Raises:
            Unavailable: the database cannot answer.
        """
        self._notifier.take()
        await self._look_at_all()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._wait()
            revisions, at_all = self._notifier.take()
            # Also when wake-ups never cease: the floor is what finds a lost one and confirms the store.
            is_due = self._clock.monotonic() >= self._next_look
            try:
                for environment_id, revision in revisions.items():
                    await self._lead_to(environment_id, revision)
                if at_all or is_due:
                    await self._look_at_all()
            except Unavailable:
                # The next look, in 2 s, covers what was missed now.
                self._next_look = self._clock.monotonic() + POLL_S
                logger.warning("the change log cannot be read; streams wait", exc_info=True)

    async def _wait(self) -> None:
        """Wait for a wake-up or the floor, whichever is first."""
        left_s = max(0.0, self._next_look - self._clock.monotonic())
        woken = asyncio.ensure_future(self._notifier.wait())
        floor = asyncio.ensure_future(self._clock.sleep(left_s))
        try:
            await asyncio.wait((woken, floor), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            floor.cancel()

    async def _look_at_all(self) -> None:
        """Compare every environment with the database: take up new ones, let go of deleted ones, follow the rest."""
        self._next_look = self._clock.monotonic() + POLL_S
        epoch, found = await self._database.read(lambda connection: (lineage(connection), heads(connection)))
        self._store.cover(Environments(tuple(head.ref for head in found)))
        existing = {head.ref.id for head in found}
        self.refused = {each: refused for each, refused in self.refused.items() if each in existing}
        for head in found:
            await self._follow(head, epoch)
        self._confirm(found, epoch)
        await self._tidy()

    async def _follow(self, head: Head, epoch: str) -> None:
        held = self._store.get(head.ref.id)
        if held is None or held.state.epoch != epoch:
            await self._load_whole(head.ref.id, "start")
        elif held.revision < head.revision:
            await self._lead_to(head.ref.id, head.revision)
        elif (held.revision, held.state.content_hash) != (head.revision, head.content_hash):
            await self._load_whole(head.ref.id, "diverged")

    async def _lead_to(self, environment_id: str, revision: int) -> None:
        """Apply the committed change sets up to at least `revision`."""
        while (held := self._store.get(environment_id)) is not None and held.revision < revision:
            changes = await read_log(self._database, environment_id, held.revision, at_most=_CHANGES_AT_ONCE)
            if changes == ():
                return  # nothing is committed beyond what is held: whoever spoke of that revision was mistaken
            if not changes or not await self._are_applied(changes):
                break
        if held is None or held.revision < revision:
            await self._load_whole(environment_id, "gap")

    async def _are_applied(self, changes: Sequence[ChangeSet]) -> bool:
        for change in changes:
            if not await self._is_applied(change):
                return False
        return True

    async def _is_applied(self, change: ChangeSet) -> bool:
        outcome = await self._outcome_of(change)
        match outcome:
            case Applied() | Duplicate():
                self.refused.pop(change.environment_id, None)
                return True
            case NeedResync():
                logger.warning(
                    "a change set does not fit",
                    extra={"environment": change.environment_id, "why": outcome.reason},
                )
            case Refused():
                self._note_refused(change.environment_id, outcome)
        return False

    async def _load_whole(self, environment_id: str, reason: str) -> None:
        state: State | None = await self._database.read(partial(read_snapshot, environment_id=environment_id))
        if state is None:
            self._store.remove(environment_id)
            return
        outcome = await self._outcome_of(Snapshot(state, reason))
        if isinstance(outcome, Refused):
            self._note_refused(environment_id, outcome)
        else:
            self.refused.pop(environment_id, None)

    async def _outcome_of(self, message: Snapshot | ChangeSet) -> Outcome:
        # A large one, an import for example, is taken up in slices between which others are served.
        with collector_paused(size_of(message)):
            outcome = await in_slices(self._store.apply_steps(message))
        await self._tidy()
        return outcome

    async def _tidy(self) -> None:
        await asyncio.sleep(0)  # for whoever was told of a swap, and lets go of what it replaced as well
        await in_slices(self._store.tidy_steps())

    def _note_refused(self, environment_id: str, refused: Refused) -> None:
        if self.refused.get(environment_id) != refused:
            extra = {"environment": environment_id, "path": refused.path, "why": refused.reason}
            logger.error("the engine refuses a committed configuration; the last good one is served", extra=extra)
        self.refused[environment_id] = refused

    def _confirm(self, found: Sequence[Head], epoch: str) -> None:
        """Tell the store that it holds at least what was committed at the look, so that its age counts from now."""
        marks = {head.ref.id: Mark(epoch, head.revision, head.content_hash, head.credentials_hash) for head in found}
        bookmark = Bookmark(marks, rfc3339(self._clock.wall_ms()))
        for environment_id, need in self._store.confirm(bookmark, held=self.refused.keys()).items():
            # Deleted or restored in the meantime; the next look finds out.
            extra = {"environment": environment_id, "why": need.reason}
            logger.info("an environment changed while it was looked at", extra=extra)


class StoredHistory:
    """The change log behind a change stream, for followers that were away longer than memory reaches back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def changes(self, environment_id: str, after: int, upto: int) -> tuple[ChangeSet, ...] | None:
        """Return the change sets (after, upto]; None when they are not all kept any more."""
        kept = await read_log(self._database, environment_id, after, upto=upto)
        reached = after if not kept else kept[-1].revision
        return kept if reached == upto else None


async def read_log(
    database: Database, environment_id: str, after: int, *, upto: int | None = None, at_most: int | None = None
) -> tuple[ChangeSet, ...] | None:
    """Return what the log holds after a revision; None when it does not reach back, or is damaged there."""
    read = partial(read_changes, environment_id=environment_id, after=after, upto=upto, at_most=at_most)
    try:
        return await database.read(read)
    except BadMessage as error:
        # Whoever asks gets the whole environment instead, so the damage stops at this log entry.
        extra = {"environment": environment_id, "path": error.path, "why": error.reason}
        logger.exception("the change log is damaged", extra=extra)
        return None
