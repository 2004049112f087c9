"""A model authority: a durable history per environment, and two replicas that may lag behind it.

It is what the change stream's promises are judged by, so it is written as plainly as can be: lists and dictionaries,
no incremental anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay.protocol.changes import Bookmark, ChangeSet, Environments, State, mark_of
from relay.protocol.encode import Audience, encode_bookmark, encode_changes, encode_environments, snapshot_lines
from relay.protocol.overlays import ForcedOff, OverlayEnd, encode_overlay, encode_overlay_end
from relay.protocol.resume import Plan, Replay, ResumeToken, SendSnapshot, Wait, plan_resume
from relay.protocol.sse import encode_event
from relay.protocol.state import build_state, change_between
from tests.protocol.build import COMMITTED_AT, state

ENVIRONMENTS = (1, 2)

Position = tuple[str, str, int]
"""Environment id, epoch, revision."""


@dataclass
class Authority:
    """The database, and what was ever committed to it."""

    epoch_number: int = 1
    states: dict[str, State] = field(default_factory=dict)
    log: dict[str, list[ChangeSet]] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    history: dict[Position, State] = field(default_factory=dict)
    staged: State | None = None
    overlays: dict[str, ForcedOff] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in ENVIRONMENTS:
            self._begin(state(number=number, epoch=self.epoch))

    @property
    def epoch(self) -> str:
        return f"e{self.epoch_number}"

    def _begin(self, first: State) -> None:
        self.states[first.ref.id] = first
        self.log[first.ref.id] = []
        self.floors[first.ref.id] = first.revision
        self.history[_position(first)] = first

    def stage(self, environment_id: str, edit: Callable[[dict[str, dict[str, bytes]]], None]) -> None:
        """Begin a transaction; nothing of it may be seen before `commit`."""
        now = self.states[environment_id]
        objects = {
            "flags": dict(now.flags),
            "segments": dict(now.segments),
            "credentials": dict(now.credentials),
            "limits": {"": now.limits or b"{}"},
        }
        edit(objects)
        self.staged = build_state(
            now.ref,
            now.epoch,
            now.revision + 1,
            flags=objects["flags"],
            segments=objects["segments"],
            credentials=objects["credentials"],
            limits=objects["limits"][""],
            secrets=now.secrets,
        )

    def commit(self) -> None:
        after = self.staged
        if after is None:
            return
        before = self.states[after.ref.id]
        self.log[after.ref.id].append(change_between(before, after, COMMITTED_AT))
        self.states[after.ref.id] = after
        self.history[_position(after)] = after
        self.staged = None

    def crash(self) -> None:
        """Lose what was not committed."""
        self.staged = None

    def compact(self, environment_id: str, keep: int) -> None:
        """Forget all but the last `keep` change sets."""
        head = self.states[environment_id].revision
        self.floors[environment_id] = max(self.floors[environment_id], head - keep)

    def restore(self, age: int) -> None:
        """Come back from a backup that is `age` revisions old, as a new lineage."""
        self.staged = None
        old_epoch = self.epoch
        self.epoch_number += 1
        for environment_id, head in list(self.states.items()):
            oldest = min(r for (e, epoch, r) in self.history if (e, epoch) == (environment_id, old_epoch))
            backup = self.history[environment_id, old_epoch, max(oldest, head.revision - age)]
            self._begin(replace(backup, epoch=self.epoch))


def _position(of: State) -> Position:
    return of.ref.id, of.epoch, of.revision


class Replica:
    """One server process: it publishes what it has read of the authority's log, which may be less than there is."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.heads: dict[str, State] = dict(authority.states)
        self.sessions: list[Session] = []

    def catch_up(self) -> None:
        """Read the log to its end and publish what is new, or start anew after a restore."""
        for environment_id, head in list(self.heads.items()):
            newest = self.authority.states[environment_id]
            if newest.epoch == head.epoch:
                for change in self.authority.log[environment_id]:
                    if change.revision > head.revision:
                        self._publish(change_frame(change))
            else:
                self._publish(snapshot_frame(newest, "epoch"))
            self.heads[environment_id] = newest

    def bookmark(self) -> None:
        self._publish(self.bookmark_frame())

    def bookmark_frame(self) -> bytes:
        marks = {environment_id: mark_of(head) for environment_id, head in self.heads.items()}
        return _frame("bookmark", encode_bookmark(Bookmark(marks, COMMITTED_AT), Audience.RELAY))

    def kill(self, overlay: ForcedOff) -> None:
        """Force a flag off, as a relay does; it tells all who are connected to it or to its twin."""
        self.authority.overlays[overlay.id] = overlay
        self._publish(overlay_frame(overlay))

    def release(self, overlay: ForcedOff) -> None:
        """Let go of it."""
        self.authority.overlays.pop(overlay.id, None)
        self._publish(encode_event("overlay_end", [encode_overlay_end(OverlayEnd(overlay.environment_id, overlay.id))]))

    def _publish(self, frame: bytes) -> None:
        for session in self.sessions:
            session.frames.append(frame)

    def lookup(self, environment_id: str, after: int) -> Sequence[ChangeSet] | None:
        if after < self.authority.floors[environment_id]:
            return None
        head = self.heads[environment_id]
        return [each for each in self.authority.log[environment_id] if after < each.revision <= head.revision]

    def accept(self, token: ResumeToken | None) -> "Session | None":
        """Open a session, or refuse it because this replica is behind the follower."""
        plans: dict[str, Plan] = {}
        for environment_id, head in self.heads.items():
            plans[environment_id] = plan_resume(
                token,
                head,
                lambda after, environment_id=environment_id: self.lookup(environment_id, after),  # type: ignore[misc]
                authoritative=head == self.authority.states[environment_id],
            )
        if any(isinstance(plan, Wait) for plan in plans.values()):
            return None
        return Session(self, plans)


class Session:
    """One stream that a replica serves; `frames` is what is on its way."""

    def __init__(self, replica: Replica, plans: Mapping[str, Plan]) -> None:
        self.replica = replica
        self.plans = plans
        refs = tuple(head.ref for head in replica.heads.values())
        self.frames = [_frame("environments", encode_environments(Environments(refs)))]
        overlays = [overlay_frame(each) for each in replica.authority.overlays.values()]
        self.frames += overlays
        for environment_id, plan in plans.items():
            if isinstance(plan, Replay):
                self.frames += [change_frame(change) for change in plan.changes]
            elif isinstance(plan, SendSnapshot):
                self.frames += [snapshot_frame(replica.heads[environment_id], plan.reason), *overlays]
        replica.sessions.append(self)

    def close(self) -> None:
        self.replica.sessions.remove(self)
        self.frames.clear()


def change_frame(change: ChangeSet) -> bytes:
    return _frame("changes", encode_changes(change, Audience.RELAY))


def overlay_frame(overlay: ForcedOff) -> bytes:
    return encode_event("overlay", [encode_overlay(overlay)])


def snapshot_frame(head: State, reason: str) -> bytes:
    return encode_event("snapshot", snapshot_lines(head, reason, Audience.RELAY), event_id="t")


def _frame(event: str, data: bytes) -> bytes:
    return encode_event(event, [data], event_id="t")
