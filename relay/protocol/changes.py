"""The change stream's messages, and the rule by which a message turns a follower's state into the next.

Owns the follower's half of the invariants: revisions never go down within an epoch, no gap is ever stepped over, a
revision is applied whole or not at all, what was applied already is a no-op, and a state whose hash differs from its
authority's is never kept as good. Pure and total: `apply` answers with an outcome and never raises.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from relay.engine.steps import finished
from relay.protocol.overlays import ForcedOff, OverlayEnd
from relay.protocol.state import ChangeSet, EnvironmentRef, State, advance_steps

__all__ = [
    "MAX_ENVIRONMENTS",
    "SNAPSHOT_REASONS",
    "Applied",
    "Bookmark",
    "Cause",
    "ChangeSet",
    "Duplicate",
    "EnvironmentRef",
    "Environments",
    "Goodbye",
    "Mark",
    "Message",
    "MessageName",
    "NeedResync",
    "Outcome",
    "Refused",
    "Snapshot",
    "State",
    "apply",
    "apply_steps",
    "mark_of",
    "verify",
]

MAX_ENVIRONMENTS = 256
"""Most environments on one stream; also what fits a resume token into a request header."""

SNAPSHOT_REASONS = frozenset({"start", "gap", "expired", "epoch", "resync", "diverged"})
"""Why an authority sends a whole environment. `diverged`: it has shown that the follower's position is not in its
history, so that the follower may even go back."""


class MessageName(StrEnum):
    """The names of the stream's events. A follower ignores every other name."""

    SNAPSHOT = "snapshot"
    CHANGES = "changes"
    BOOKMARK = "bookmark"
    ENVIRONMENTS = "environments"
    GOODBYE = "goodbye"
    OVERLAY = "overlay"
    OVERLAY_END = "overlay_end"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole environment. Decoding has proved that the state has the hash that its sender claims."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A position: where an authority says that an environment stands."""

    epoch: str
    revision: int
    content_hash: str
    credentials_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to these marks (environment id -> mark) has been sent; also the heartbeat.

    A sender that itself follows somebody says how old its own news is: `at` is when the authority last confirmed the
    marks to it, `age_s` how many seconds that is ago (no clocks need agree for that). Both are None if it never did.
    """

    marks: Mapping[str, Mark]
    at: str | None
    age_s: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The server closes the stream: why, and when to come back."""

    reason: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Environments:
    """The environments that the stream's key covers now.

    Not complete while the sender itself lacks an environment, and with it the keys that open it. `lacking` are the ids
    of those that the follower may hold already: they are not gone, as every other one is that is not listed.
    """

    refs: tuple[EnvironmentRef, ...]
    is_complete: bool = True
    lacking: frozenset[str] = frozenset()


Message = Snapshot | ChangeSet | Bookmark | Goodbye | Environments | ForcedOff | OverlayEnd


@dataclass(frozen=True, slots=True)
class Applied:
    """The message led to this state."""

    state: State = field(repr=False)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The message says nothing new; the state stays."""


class Cause(StrEnum):
    """Why a follower is out of step: in one word, for counting."""

    MISSING = "missing"
    EPOCH = "epoch"
    GAP = "gap"
    HASH = "hash"
    RACE = "race"


@dataclass(frozen=True, slots=True)
class NeedResync:
    """The state cannot be led on by this message; the follower must ask for a snapshot. The state stays."""

    reason: str
    cause: Cause = field(default=Cause.MISSING, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The message is invalid at `path`; it must be counted and reported, and the last good state stays."""

    path: str
    reason: str


Outcome = Applied | Duplicate | NeedResync | Refused


def apply(state: State | None, message: Snapshot | ChangeSet) -> Outcome:
    """Decide what a message makes of the state that the follower holds of this environment (None = none yet)."""
    return finished(apply_steps(state, message))


def apply_steps(state: State | None, message: Snapshot | ChangeSet) -> Generator[None, None, Outcome]:
    """Do what `apply` does, pausing (`yield`) as often as a large change set needs it."""
    if isinstance(message, Snapshot):
        return _apply_snapshot(state, message)
    if state is None:
        return NeedResync("changes for an environment without a snapshot")
    misplaced = _misplaced(state, message)
    if misplaced is not None:
        return misplaced
    after = yield from advance_steps(state, message)
    return _applied(after, message)


def _misplaced(state: State, change: ChangeSet) -> NeedResync | Duplicate | None:
    if change.epoch != state.epoch:
        return NeedResync(f"changes of epoch {change.epoch}, held epoch {state.epoch}", Cause.EPOCH)
    if change.revision <= state.revision:
        return Duplicate()
    if change.from_revision != state.revision:
        return NeedResync(f"changes from revision {change.from_revision}, held revision {state.revision}", Cause.GAP)
    return None


def _applied(after: State, change: ChangeSet) -> Applied | NeedResync:
    if after.content_hash != change.content_hash:
        return NeedResync(f"content hash differs at revision {change.revision}", Cause.HASH)
    if _differ(after.credentials_hash, change.credentials_hash):
        return NeedResync(f"credentials hash differs at revision {change.revision}", Cause.HASH)
    return Applied(after)


def _apply_snapshot(state: State | None, snapshot: Snapshot) -> Outcome:
    after = snapshot.state
    if state is None or after.epoch != state.epoch or snapshot.reason == "diverged":
        return Applied(after)
    if after.revision < state.revision:
        return Duplicate()
    same = (
        after.revision == state.revision
        and after.content_hash == state.content_hash
        and after.credentials_hash == state.credentials_hash
        and after.ref == state.ref
    )
    return Duplicate() if same else Applied(after)


def verify(state: State | None, mark: Mark) -> NeedResync | None:
    """Compare the state held with where the authority says it must be by now.

    A mark behind the state comes from a replica that has not caught up; it proves nothing and asks for nothing.
    """
    if state is None:
        return NeedResync("bookmark for an environment without a snapshot")
    if mark.epoch != state.epoch:
        return NeedResync(f"bookmark of epoch {mark.epoch}, held epoch {state.epoch}", Cause.EPOCH)
    if mark.revision > state.revision:
        return NeedResync(f"bookmark at revision {mark.revision}, held revision {state.revision}", Cause.GAP)
    if mark.revision < state.revision:
        return None
    if mark.content_hash != state.content_hash or _differ(state.credentials_hash, mark.credentials_hash):
        return NeedResync(f"hash differs from the bookmark's at revision {mark.revision}", Cause.HASH)
    return None


def mark_of(state: State) -> Mark:
    """Return the position of a state."""
    return Mark(state.epoch, state.revision, state.content_hash, state.credentials_hash)


def _differ(held: str | None, claimed: str | None) -> bool:
    # The server audience carries no credentials; there is nothing to compare then.
    return held is not None and claimed is not None and held != claimed
