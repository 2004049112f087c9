"""Holds the configuration of every environment in memory, and tells listeners about each swap.

Owned by the event loop's thread; nothing here locks or waits. A revision becomes visible by one pointer swap, whole,
after all of it was checked (I3); what is invalid is refused and the last good configuration stays (I8). Listeners are
called in the swap, in order; one that raises is logged and counted and stops nobody.
"""

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay.clock import Clock
from relay.engine.parse import InvalidConfig
from relay.engine.steps import finished
from relay.protocol.changes import (
    MAX_ENVIRONMENTS,
    Applied,
    Bookmark,
    Cause,
    ChangeSet,
    Environments,
    NeedResync,
    Outcome,
    Refused,
    Snapshot,
    State,
    apply_steps,
    verify,
)
from relay.protocol.fields import BadMessage
from relay.sync.collector import size_of
from relay.sync.configuration import Configuration, Credential, configure, force_off, rename
from relay.sync.leftovers import FEW, leftovers, let_go
from relay.sync.overlays import OverlayBoard
from relay.sync.window import Window

__all__ = ["Configuration", "Credential", "Origin", "Staleness", "Store", "Swap"]

log = logging.getLogger(__name__)


class Origin(StrEnum):
    """Where the newest configuration came from."""

    NOWHERE = "nowhere"
    FILE = "file"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Swap:
    """What just became visible. `before` is None for a new environment, `after` for one that is gone.

    `changes` is the change set that led from one to the other; None when something else did: a snapshot, a rename, a
    removal, or flags that are forced off.
    """

    before: Configuration | None
    after: Configuration | None
    changes: ChangeSet | None


Listener = Callable[[Swap], None]


@dataclass(frozen=True, slots=True)
class Staleness:
    """Where the configuration came from and how long ago upstream confirmed it; None = never, as far as is known."""

    origin: Origin
    age_s: float | None


class Store:
    """The configurations of all environments that the relay covers.

    Args:
        clock: tells the age of the last bookmark.
        window_changes: most change sets kept per environment for followers that resume.
        window_bytes: most bytes of objects in them, per environment.
        max_environments: most environments held.
        compile_ahead: whether everything is compiled before it is served, or when it is asked for.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        window_changes: int = 1_000,
        window_bytes: int = 16 << 20,
        max_environments: int = MAX_ENVIRONMENTS,
        compile_ahead: bool = True,
    ) -> None:
        self.origin = Origin.NOWHERE
        self.last_bookmark: float | None = None  # monotonic seconds; when what is held was last confirmed
        self.confirmed_at_ms: int | None = None  # wall time; survives restarts through the snapshot file
        # Ids that should be held, and whether whoever said so knew them all; None = nobody has said. Both survive, too.
        self.covered: frozenset[str] | None = None
        self.is_all_covered = True
        self.listener_failures = 0
        self._clock = clock
        self._window_changes = window_changes
        self._window_bytes = window_bytes
        self._max_environments = max_environments
        self._compile_ahead = compile_ahead
        self._configurations: Mapping[str, Configuration] = {}
        self._windows: dict[str, Window] = {}
        self._by_fingerprint: dict[str, tuple[str, ...]] = {}
        self._by_key: dict[str, tuple[str, ...]] = {}
        self._forced_off: dict[str, frozenset[str]] = {}
        self._listeners: list[Listener] = []
        self._replaced: list[Any] = []
        self.overlays = OverlayBoard(self._force_off_and_tell, clock)

    @property
    def configurations(self) -> Mapping[str, Configuration]:
        """The configurations by environment id, as one consistent map that later swaps do not change."""
        return self._configurations

    @property
    def is_complete(self) -> bool:
        """Whether something is held, and nothing is known to be lacking: a key not found is then an unknown key."""
        return bool(self._configurations) and self.is_all_covered and not self.lacking

    @property
    def lacking(self) -> frozenset[str]:
        """The ids of environments that should be held and are not."""
        return (self.covered or frozenset()) - self._configurations.keys()

    def get(self, environment_id: str) -> Configuration | None:
        """Return one environment's configuration."""
        return self._configurations.get(environment_id)

    def by_key(self, environment: str, project: str | None = None) -> list[Configuration]:
        """Return the environments with this key, of one project (by key or id) or of all."""
        found = (self._configurations[each] for each in self._by_key.get(environment, ()))
        return [each for each in found if project is None or project in (each.ref.project_key, each.ref.project_id)]

    def credential(self, fingerprint: str) -> list[tuple[Configuration, Credential]]:
        """Return every environment that knows the key with this fingerprint, with what the key may do there."""
        found = (self._configurations[each] for each in self._by_fingerprint.get(fingerprint, ()))
        return [(each, each.credentials[fingerprint]) for each in found]

    def recent(self, environment_id: str, after_revision: int) -> tuple[ChangeSet, ...] | None:
        """Return the change sets after a revision, up to the one served; None when they are not all in the window."""
        window = self._windows.get(environment_id)
        return None if window is None else window.after(after_revision)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` in every swap from now on; returns what ends that."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def apply(self, message: Snapshot | ChangeSet, origin: Origin = Origin.UPSTREAM) -> Outcome:
        """Apply a message at once."""
        outcome = finished(self.apply_steps(message, origin))
        self._replaced.clear()
        return outcome

    def apply_steps(
        self, message: Snapshot | ChangeSet, origin: Origin = Origin.UPSTREAM
    ) -> Generator[None, None, Outcome]:
        """Apply a message in steps between which the event loop may turn; only the last one changes anything.

        What a large one replaced stays in memory until `tidy_steps`.
        """
        change = message if isinstance(message, ChangeSet) else None
        environment_id = message.state.ref.id if isinstance(message, Snapshot) else message.environment_id
        before = self._configurations.get(environment_id)
        outcome = yield from apply_steps(None if before is None else before.state, message)
        if not isinstance(outcome, Applied):
            return outcome
        if before is None and len(self._configurations) >= self._max_environments:
            return Refused("environment", f"more than {self._max_environments} environments")
        try:
            after = yield from configure(before, outcome.state, change, ahead=self._compile_ahead)
        except (InvalidConfig, BadMessage) as error:
            return Refused(error.path, error.reason)
        served = self._configurations.get(environment_id)
        if _state_of(served) is not _state_of(before):
            return NeedResync("another change came first", Cause.RACE)
        self.origin = origin
        self._remember(after, change)
        after = force_off(after, self._forced_off.get(environment_id, frozenset()))
        self._swap(environment_id, Swap(served, after, change))
        if before is not None and size_of(message) > FEW:
            self._replaced += leftovers(before, after)
        return outcome

    def tidy_steps(self) -> Generator[None]:
        """Let go of what was replaced or removed, in steps: freeing 10,000 flags at once takes too long."""
        yield from let_go(self._replaced)

    def force_off(self, environment_id: str, flags: frozenset[str]) -> None:
        """Serve exactly these flags of an environment as switched off, whatever its revisions say, until told anew.

        Only what is evaluated differs: the state, and so what followers are sent, stays the authority's.
        """
        if flags:
            self._forced_off[environment_id] = flags
        else:
            self._forced_off.pop(environment_id, None)
        before = self._configurations.get(environment_id)
        if before is None:
            return
        after = force_off(before, flags)
        if after is not before:
            self._swap(environment_id, Swap(before, after, None))

    def _force_off_and_tell(self, environment_id: str, flags: frozenset[str]) -> None:
        before = self._configurations.get(environment_id)
        self.force_off(environment_id, flags)
        if before is not None and self._configurations.get(environment_id) is before:
            # No value differs yet; followers are to know the overlay before the revision in which it matters.
            self._notify(Swap(before, before, None))

    def confirm(self, bookmark: Bookmark, *, held: Collection[str] = ()) -> dict[str, NeedResync]:
        """Compare with an authority's bookmark; the environments that do not agree come back with the reason.

        Environments in `held` are known to be behind (their newest configuration was refused) and are not compared.
        """
        differing: dict[str, NeedResync] = {}
        for environment_id, mark in bookmark.marks.items():
            configuration = self._configurations.get(environment_id)
            need = verify(None if configuration is None else configuration.state, mark)
            if need is not None and environment_id not in held:
                differing[environment_id] = need
        if not differing:
            self.origin = Origin.UPSTREAM
            self._note_age(bookmark.age_s)
        return differing

    def _note_age(self, age_s: float | None) -> None:
        """Note that upstream's own news is so old; None = upstream does not know, which makes nothing fresher here."""
        if age_s is None:
            return
        confirmed = self._clock.monotonic() - age_s
        # Another upstream may lag behind the one that confirmed this before.
        if self.last_bookmark is None or confirmed >= self.last_bookmark:
            self.last_bookmark = confirmed
            self.confirmed_at_ms = max(0, self._clock.wall_ms() - round(age_s * 1000))

    def cover(self, environments: Environments) -> None:
        """Let go of every environment that is no longer covered, and take up new names of the others.

        What is held and the sender lacks itself stays as it is.
        """
        covered = {ref.id: ref for ref in environments.refs}
        known = self._configurations.keys() | (self.covered or frozenset())
        self.covered = frozenset(covered) | (environments.lacking & known)
        self.is_all_covered = environments.is_complete
        for environment_id, before in self._configurations.items():
            ref = covered.get(environment_id)
            if environment_id not in self.covered:
                self.remove(environment_id)
            elif ref is not None and ref != before.ref:
                self._swap(environment_id, Swap(before, rename(before, ref), None))

    def remove(self, environment_id: str) -> None:
        """Let go of one environment; nothing happens when it is not held."""
        before = self._configurations.get(environment_id)
        if before is not None:
            del self._windows[environment_id]
            self._replaced += leftovers(before, None)
            self._swap(environment_id, Swap(before, None, None))

    def age_s(self) -> float | None:
        """Return the seconds since upstream last confirmed what is held, None when that is not known."""
        if self.last_bookmark is not None:
            return self._clock.monotonic() - self.last_bookmark
        # Confirmed by an earlier process: only the wall clock reaches back, and it may have jumped.
        return None if self.confirmed_at_ms is None else max(0.0, (self._clock.wall_ms() - self.confirmed_at_ms) / 1000)

    @property
    def staleness(self) -> Staleness:
        """Where the configuration came from, and its age."""
        return Staleness(self.origin, self.age_s())

    def _swap(self, environment_id: str, swap: Swap) -> None:
        configurations = dict(self._configurations)
        if swap.after is None:
            del configurations[environment_id]
        else:
            configurations[environment_id] = swap.after
        self._configurations = configurations
        self._index(environment_id, swap)
        self._notify(swap)

    def _remember(self, after: Configuration, change: ChangeSet | None) -> None:
        if change is None:
            # What came before a snapshot need not lead to it: the window starts anew.
            window = Window(after.revision, max_changes=self._window_changes, max_bytes=self._window_bytes)
            self._windows[after.ref.id] = window
        else:
            self._windows[after.ref.id].append(change)

    def _index(self, environment_id: str, swap: Swap) -> None:
        before, after = swap.before, swap.after
        held = {} if before is None else before.credentials
        now = {} if after is None else after.credentials
        if held is not now:
            _reindex(self._by_fingerprint, environment_id, held.keys(), now.keys())
        held_key = set() if before is None else {before.ref.key}
        _reindex(self._by_key, environment_id, held_key, set() if after is None else {after.ref.key})

    def _notify(self, swap: Swap) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(swap)
            except Exception:
                # One listener's fault must not keep a change from the others.
                self.listener_failures += 1
                log.exception("a listener failed on a configuration swap")


def _state_of(configuration: Configuration | None) -> State | None:
    return None if configuration is None else configuration.state


def _reindex(
    index: dict[str, tuple[str, ...]], environment_id: str, before: Collection[str], after: Collection[str]
) -> None:
    for key in before:
        if key not in after:
            left = tuple(each for each in index[key] if each != environment_id)
            if left:
                index[key] = left
            else:
                del index[key]
    for key in after:
        if key not in before:
            index[key] = (*index.get(key, ()), environment_id)
