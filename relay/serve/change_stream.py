"""One follower of the change stream: where it stands, what it lacks, and the next bytes that lead it on.

It gets `environments` first, then for each environment the revisions it lacks or a snapshot with the reason, then every
revision as it comes, and bookmarks. What a message says is encoded once per audience and shared; only the resume token
at its end is the follower's own. A backlog is a position in the store's window, never a list of messages: a follower
that falls out of the window gets a snapshot. Flags that are forced off are told before the revisions that come next,
and let go of after those that came before, so that a follower is at no moment wrong about them.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from relay.clock import Clock, rfc3339
from relay.protocol.changes import Bookmark, ChangeSet, Environments, Mark, MessageName, State, mark_of
from relay.protocol.encode import Audience, encode_bookmark, encode_environments
from relay.protocol.keys import Kind
from relay.protocol.resume import short_id
from relay.protocol.sse import encode_event
from relay.serve.access import Grant
from relay.serve.frames import Frames, token_line
from relay.serve.stream import Stream
from relay.serve.told_overlays import ToldOverlays
from relay.serve.update import Update
from relay.settings import Streams as StreamSettings
from relay.sync.store import Configuration, Store


@dataclass(frozen=True, slots=True)
class Debt:
    """What a follower lacks of one environment when it connects.

    `held` is where it stands, None for a snapshot with `reason`; `missing` leads from there to where the store stood.
    """

    held: Mark | None
    missing: tuple[ChangeSet, ...] = ()
    reason: str = "start"


class ChangeStream(Stream):
    """One follower."""

    kind: ClassVar[str] = "change"

    __slots__ = (
        "_audience", "_behind", "_bookmark_at_s", "_bookmark_is_due", "_chunks", "_epoch", "_frames", "_held",
        "_missing", "_must_list", "_names", "_overlays", "_reasons", "_refs", "_remembered", "_store",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - one argument per thing that a follower is
        self,
        grant: Grant,
        *,
        debts: Mapping[str, Debt],
        names: frozenset[str] | None,
        remembered: frozenset[str],
        store: Store,
        frames: Frames,
        settings: StreamSettings,
        clock: Clock,
    ) -> None:
        super().__init__(grant, frozenset(debts), settings, clock)
        self._audience = Audience.RELAY if grant.credential.kind == Kind.RELAY else Audience.SERVER
        self._names = names
        self._store = store
        self._frames = frames
        self._held = {each: debt.held for each, debt in debts.items() if debt.held is not None}
        self._missing = {each: deque(debt.missing) for each, debt in debts.items() if debt.missing}
        self._reasons = {each: debt.reason for each, debt in debts.items()}
        self._behind: dict[str, None] = dict.fromkeys(debts)
        self._refs = Environments(())
        self._remembered = remembered  # short ids of what the follower held when it came
        self._must_list = True
        self._overlays = ToldOverlays(store.overlays)
        self._chunks: Iterator[bytes] | None = None
        self._epoch = ""  # of the snapshot that the chunks are part of
        self._bookmark_is_due = True
        self._bookmark_at_s = 0.0

    # --- what is new ------------------------------------------------------------------------------------------------

    def take(self, update: Update) -> bool:
        """Note that an environment has moved on."""
        self._behind[update.after.ref.id] = None
        if update.after.ref not in self._refs.refs:
            self._must_list = True
        return True

    def covered_by(self, grant: Grant) -> frozenset[str]:
        """Return the environments of a renewed grant that the follower asked for."""
        return frozenset(each.ref.id for each in chosen(grant, self._names))

    def regrant(self, grant: Grant) -> None:
        """Note which environments came and went; the registry has set `environment_ids` already."""
        super().regrant(grant)
        listed = {ref.id for ref in self._refs.refs}
        # Also what is not listed yet: the follower may have been about to be sent it.
        for environment_id in (listed | self._held.keys() | self._behind.keys()) - self.environment_ids:
            self._held.pop(environment_id, None)
            self._missing.pop(environment_id, None)
            self._behind.pop(environment_id, None)
        if listed != self.environment_ids:
            self._must_list = True
            self._behind |= dict.fromkeys(self.environment_ids - listed)

    # --- what is sent -----------------------------------------------------------------------------------------------

    @property
    def is_between_messages(self) -> bool:
        """Whether no snapshot is half sent."""
        return self._chunks is None

    def next_frame(self) -> bytes | None:
        """Return the next message, or the next part of a large one."""
        if self._chunks is not None:
            return self._next_chunk(self._chunks)
        if self._must_list or (self._store.is_complete and not self._refs.is_complete):
            return self._list()
        news = self._overlays.begun(self.environment_ids) or self._lead_on_any()
        news = news or self._overlays.ended(self.environment_ids)
        if news is None and self._bookmark_is_due:
            return self.beat()
        return news

    def on_time(self, now_s: float) -> float:
        """Send a bookmark whenever it is time, also amid other messages: a follower's age counts from the last one."""
        if now_s >= self._bookmark_at_s:
            self._bookmark_is_due = True
            self.flush()
        return min(now_s + self._settings.heartbeat_s, self.ends_at_s)

    def beat(self) -> bytes:
        """Return a bookmark: all up to here has been sent."""
        self._bookmark_is_due = False
        self._bookmark_at_s = self._clock.monotonic() + self._settings.heartbeat_s
        # A relay passes on when its own upstream last confirmed this: its followers' news is as old as its own.
        confirmed_ms = self._store.confirmed_at_ms
        at = None if confirmed_ms is None else rfc3339(confirmed_ms)
        bookmark = Bookmark(dict(self._held), at, self._store.age_s())
        return encode_event(MessageName.BOOKMARK, (encode_bookmark(bookmark, self._audience),))

    def _list(self) -> bytes:
        is_first = not self._refs.refs
        self._must_list = False
        configurations = map(self._store.get, sorted(self.environment_ids))
        refs = tuple(each.ref for each in configurations if each is not None)
        # Of what this process lacks, only what the follower holds concerns it; the rest may be none of its business.
        lacking = frozenset(each for each in self._store.lacking if short_id(each) in self._remembered)
        self._refs = Environments(refs, self._store.is_complete, lacking)
        data = encode_environments(self._refs)
        return encode_event(MessageName.ENVIRONMENTS, (data,), retry_ms=self.retry_ms() if is_first else None)

    def _lead_on_any(self) -> bytes | None:
        while self._behind:
            environment_id = next(iter(self._behind))
            frame = self._lead_on(environment_id)
            if frame is not None:
                return frame
            del self._behind[environment_id]
        return None

    def _lead_on(self, environment_id: str) -> bytes | None:
        configuration = self._store.get(environment_id)
        if configuration is None:
            return None
        head, held = configuration.state, self._held.get(environment_id)
        if held is None:
            return self._begin_snapshot(head, self._reasons.get(environment_id, "start"))
        if held.epoch != head.epoch:
            return self._begin_snapshot(head, "epoch")
        if held.revision == head.revision and held.content_hash == head.content_hash:
            return None
        if held.revision >= head.revision:
            return self._begin_snapshot(head, "diverged")
        change = self._next_change(environment_id, held, head)
        return self._begin_snapshot(head, "gap") if change is None else self._changes(change)

    def _next_change(self, environment_id: str, held: Mark, head: State) -> ChangeSet | None:
        missing = self._missing.get(environment_id)
        if not missing or missing[0].from_revision != held.revision:
            missing = deque(self._store.recent(environment_id, held.revision) or ())
            self._missing[environment_id] = missing
        if not missing or missing[0].epoch != held.epoch or missing[0].from_revision != held.revision:
            return None
        if missing[0].revision > head.revision:
            # The store was led back by a snapshot of a diverged history; this change is not part of it.
            return None
        return missing.popleft()

    def _changes(self, change: ChangeSet) -> bytes:
        self._held[change.environment_id] = Mark(
            change.epoch, change.revision, change.content_hash, change.credentials_hash
        )
        return self._frames.changes(change, self._audience) + token_line(change.epoch, self._held)

    def _begin_snapshot(self, head: State, reason: str) -> bytes | None:
        self._missing.pop(head.ref.id, None)
        self._reasons.pop(head.ref.id, None)
        self._held[head.ref.id] = mark_of(head)
        self._overlays.repeat(head.ref.id)
        self._epoch = head.epoch
        self._chunks = self._frames.snapshot(head, reason, self._audience)
        return self._next_chunk(self._chunks)

    def _next_chunk(self, chunks: Iterator[bytes]) -> bytes:
        chunk = next(chunks, None)
        if chunk is not None:
            return chunk
        self._chunks = None
        return token_line(self._epoch, self._held)


def chosen(grant: Grant, names: frozenset[str] | None) -> list[Configuration]:
    """Return the environments of a grant that are named by id, key or project/key; all without names."""
    return [each for each in grant.configurations if names is None or not names.isdisjoint(names_of(each))]


def names_of(configuration: Configuration) -> frozenset[str]:
    """Return every name under which an environment may be asked for."""
    ref = configuration.ref
    return frozenset({ref.id, ref.key, f"{ref.project_key}/{ref.key}"})
