"""Takes the events of a change stream and brings the store along; knows nothing of connections.

Nothing is ever passed over: a message that does not fit the store ends the stream and asks for a snapshot of that
environment (I2); one that is invalid is counted, kept in `refusals` and asked for again after a backoff, while the last
good configuration and every other environment go on (I8).
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from relay.clock import Clock, parse_rfc3339_ms
from relay.protocol.changes import (
    MAX_ENVIRONMENTS,
    Applied,
    Bookmark,
    ChangeSet,
    Duplicate,
    Environments,
    Goodbye,
    MessageName,
    NeedResync,
    Refused,
    Snapshot,
)
from relay.protocol.decode import BadMessage, decode_steps
from relay.protocol.overlays import ForcedOff, OverlayEnd
from relay.protocol.resume import token_of
from relay.protocol.sse import SseEvent
from relay.sync.backoff import Backoff
from relay.sync.collector import collector_paused, size_of
from relay.sync.slices import in_slices
from relay.sync.store import Store
from relay.telemetry import NO_TRACING, Tracing

log = logging.getLogger(__name__)

_CLOCKS_COMPARED = 8


class StreamEnded(Exception):
    """The stream is over. `at_least_s` is the shortest wait before the next one."""

    def __init__(self, reason: str, at_least_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at_least_s = at_least_s


@dataclass(frozen=True, slots=True)
class Refusal:
    """A configuration that upstream offers and that cannot be used: where, why, since when, how often in a row.

    `environment_id` is None when the message was too broken to name one.
    """

    environment_id: str | None
    path: str
    reason: str
    since_ms: int
    count: int


@dataclass(slots=True)
class FollowStats:
    """What happened so far, for metrics."""

    connections: int = 0
    applied: int = 0
    bookmarks: int = 0
    duplicates: int = 0
    ignored: int = 0
    resyncs: int = 0
    refused: int = 0
    resync_causes: Counter[str] = field(default_factory=Counter)


class Inbox:
    """The receiving end of the change stream, across connections.

    Attributes:
        first_sync: set once upstream has confirmed every environment that the key covers and that can be used.
        refusals: by environment id; None = in a message too broken to name one.
        stats: counters.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        backoff: Backoff,
        fraction: Callable[[], float],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self.first_sync = asyncio.Event()
        self.refusals: dict[str | None, Refusal] = {}
        self.stats = FollowStats()
        self._authority_clock: deque[tuple[int, float]] = deque(maxlen=_CLOCKS_COMPARED)
        self._store = store
        self._clock = clock
        self._backoff = backoff
        self._fraction = fraction
        self._wanted: set[str] = set()  # environments to ask for as a snapshot
        self._covered: frozenset[str] | None = None  # None until this upstream has said what the key covers
        self._confirmed: set[str] = set()
        self._ask_again_at = 0.0
        self._overlays: set[str] | None = None  # named on this connection; None once its first bookmark has come

    def authority_ms(self) -> int | None:
        """Return the authority's wall time as far as bookmarks tell it, None as long as none has come.

        Counted on from there by the clock that only runs forward, as the wall clock here may be wrong and be put right.
        What a bookmark takes on its way makes it late; so the one of the last few that came fastest tells.
        """
        now_s = self._clock.monotonic()
        found = [at_ms + round((now_s - heard_s) * 1000) for at_ms, heard_s in self._authority_clock]
        return max(found, default=None)

    def begin_stream(self) -> str | None:
        """Take note of a new stream; returns what to resume from, environments that need a snapshot left out."""
        self._overlays = set()
        # This very stream asks again for what was refused; give it time to answer.
        self._ask_again_at = self._clock.monotonic() + self._backoff.max_s
        held = self._store.configurations.values()
        states = [each.state for each in held if each.ref.id not in self._wanted]
        if not states:
            return None
        # All are of one epoch, but for the moment in which upstream changes from one to the next.
        epoch = Counter(state.epoch for state in states).most_common(1)[0][0]
        return token_of(states, epoch)

    async def take(self, event: SseEvent) -> bool:
        """Handle one event; true when it shows that upstream and store go together.

        Raises:
            StreamEnded: the stream must be closed and opened again.
        """
        try:
            # Looking at a snapshot of 10,000 flags takes a second; the loop must turn meanwhile.
            message = await in_slices(decode_steps(event.event, event.lines))
        except BadMessage as error:
            self._refuse_event(event.event, error)
            return False
        progress = False
        match message:
            case Snapshot() | ChangeSet():
                with self._tracing.span("apply configuration", {"halyard.message": event.event}):
                    progress = await self._apply(message)
            case Bookmark():
                progress = self._compare(message)
            case Environments():
                self._cover(message)
            case ForcedOff() | OverlayEnd():
                self._obey(message)
            case Goodbye():
                wait_s = min(message.retry_ms / 1000, self._backoff.max_s)
                raise StreamEnded(f"upstream said goodbye ({message.reason[:32]!r})", wait_s)
            case None:
                self.stats.ignored += 1
        if self._wanted and self.refusals and self._clock.monotonic() >= self._ask_again_at:
            raise StreamEnded("asking again for a configuration that could not be used")
        return progress

    def refuse_stream(self, path: str, reason: str) -> StreamEnded:
        """Count what is too broken to belong to an environment; returns what then ends the stream."""
        self._count_refusal(None, path, reason)
        return StreamEnded(f"message refused at {path}: {reason}")

    async def _apply(self, message: Snapshot | ChangeSet) -> bool:
        is_snapshot = isinstance(message, Snapshot)
        environment_id = message.state.ref.id if isinstance(message, Snapshot) else message.environment_id
        if environment_id in self._wanted and not is_snapshot:
            # A snapshot is needed first, and it will hold this, too.
            self.stats.ignored += 1
            return False
        with collector_paused(size_of(message)):
            outcome = await in_slices(self._store.apply_steps(message))
        match outcome:
            case Applied():
                self.stats.applied += 1
                self._usable(environment_id)
                self._confirm({environment_id})
            case Duplicate():
                self.stats.duplicates += 1
                if is_snapshot:
                    self._usable(environment_id)
            case NeedResync():
                self._resync({environment_id: outcome})
            case Refused():
                self._refuse(environment_id, outcome.path, outcome.reason)
        return isinstance(outcome, Applied) and not is_snapshot

    def _compare(self, bookmark: Bookmark) -> bool:
        self.stats.bookmarks += 1
        self._measure_clock(bookmark)
        refused = {environment_id for environment_id in self.refusals if environment_id is not None}
        self._resync(self._store.confirm(bookmark, held=refused))
        # Whatever the broken message was to bring has come since.
        self.refusals.pop(None, None)
        self._confirm(bookmark.marks.keys() - refused)
        if self._overlays is not None:
            # All up to here was sent: what upstream holds still has been named on this connection.
            self._store.overlays.keep_only(self._overlays)
            self._overlays = None
        return True

    def _obey(self, message: ForcedOff | OverlayEnd) -> None:
        overlays = self._store.overlays
        if isinstance(message, OverlayEnd):
            overlays.end(message.id)
            return
        overlays.take(message)
        if self._overlays is not None:
            self._overlays.add(message.id)

    def _measure_clock(self, bookmark: Bookmark) -> None:
        if bookmark.at is not None and bookmark.age_s is not None:
            now_ms = parse_rfc3339_ms(bookmark.at) + round(bookmark.age_s * 1000)
            self._authority_clock.append((now_ms, self._clock.monotonic()))

    def _cover(self, environments: Environments) -> None:
        self._store.cover(environments)
        self._covered = self._store.covered or frozenset()
        self._confirmed &= self._covered
        self._wanted &= self._covered
        for gone in self.refusals.keys() - self._covered - {None}:
            del self.refusals[gone]
        self._confirm(())

    def _confirm(self, environment_ids: Iterable[str]) -> None:
        self._confirmed.update(environment_ids)
        if self._covered is not None and self._covered <= self._confirmed | self.refusals.keys():
            self.first_sync.set()

    def _usable(self, environment_id: str) -> None:
        self._wanted.discard(environment_id)
        if self.refusals.pop(environment_id, None) is not None:
            log.info("environment %s: the configuration can be used again", environment_id)

    def _resync(self, needs: Mapping[str, NeedResync]) -> None:
        if not needs:
            return
        self.stats.resyncs += len(needs)
        self.stats.resync_causes.update(each.cause for each in needs.values())
        self._wanted.update(needs)
        environment_id, need = next(iter(needs.items()))
        raise StreamEnded(f"out of step in {len(needs)} environments, first {environment_id}: {need.reason}")

    def _refuse_event(self, name: str, error: BadMessage) -> None:
        if name in {MessageName.OVERLAY, MessageName.OVERLAY_END}:
            # It is no part of any configuration, so asking for one again would not make it right.
            self.stats.refused += 1
            log.error("an overlay cannot be read at %s: %s; it is passed over", error.path, error.reason)
            return
        self._refuse(error.environment_id, error.path, error.reason)

    def _refuse(self, environment_id: str | None, path: str, reason: str) -> None:
        if environment_id is None or len(self.refusals) > MAX_ENVIRONMENTS:
            raise self.refuse_stream(path, reason)
        count = self._count_refusal(environment_id, path, reason)
        self._wanted.add(environment_id)
        self._ask_again_at = self._clock.monotonic() + self._backoff.delay_s(count, self._fraction())
        self._confirm(())

    def _count_refusal(self, environment_id: str | None, path: str, reason: str) -> int:
        self.stats.refused += 1
        last = self.refusals.get(environment_id)
        count = 1 if last is None else last.count + 1
        since_ms = self._clock.wall_ms() if last is None else last.since_ms
        self.refusals[environment_id] = Refusal(environment_id, path, reason, since_ms, count)
        if last is None or (last.path, last.reason) != (path, reason):
            log.warning("environment %s: refused at %s: %s; the last good one stays", environment_id, path, reason)
        return count
