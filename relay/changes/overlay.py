"""Flags that are switched off at this relay although the authority's configuration says otherwise.

An overlay begins with a kill and ends when the configuration contains it, when the authority refuses it, or when its
time is over. This module decides which flags of an environment are forced off and which overlays have done their duty;
it reads no clock, touches no disk and changes no configuration.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from relay.protocol.overlays import ForcedOff


class Position(NamedTuple):
    """A revision of an environment in one lineage of the authority's database."""

    epoch: str
    revision: int


class Stage(StrEnum):
    """How far a kill has come. One that went further is no overlay any more."""

    PENDING = "pending"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One flag, by key, that is off in one environment.

    `committed` is the position from which on the authority's own configuration contains the kill; None = it has not
    confirmed it.
    """

    id: str
    project: str
    environment: str
    environment_id: str
    flag: str
    credential_id: str
    at_ms: int
    expires_at_ms: int
    committed: Position | None = None

    @property
    def stage(self) -> Stage:
        """How far the kill has come."""
        return Stage.PENDING if self.committed is None else Stage.COMMITTED

    def as_message(self) -> ForcedOff:
        """Return what followers are told of it: nothing about who made it."""
        return ForcedOff(self.environment_id, self.id, self.flag, self.at_ms, self.expires_at_ms)


def contains(served: Position | None, committed: Position | None) -> bool:
    """Tell whether a configuration at `served` has what was committed at `committed`."""
    return (
        served is not None
        and committed is not None
        and served.epoch == committed.epoch
        and served.revision >= committed.revision
    )


def is_undone(served: Position | None, committed: Position | None) -> bool:
    """Tell whether the authority's history is another one now, of which a committed kill may not be part."""
    return served is not None and committed is not None and served.epoch != committed.epoch


def is_past(served: Position | None, kept: Position | None, committed: Position) -> bool:
    """Tell whether the environment of a committed kill is gone or of another lineage, in use and in the file alike."""
    lineages = {None if position is None else position.epoch for position in (served, kept)}
    return len(lineages) == 1 and committed.epoch not in lineages


class Overlays:
    """The overlays that hold at a relay.

    Their time runs by the monotonic clock, so that a wall clock that jumps does not switch a killed flag on.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Overlay] = {}
        self._ends_at_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, overlay_id: str) -> bool:
        return overlay_id in self._by_id

    def all(self) -> tuple[Overlay, ...]:
        """Return every overlay, oldest first. May be asked from another thread."""
        return tuple(self._by_id.values())

    def find_pending(self, environment_id: str, flag: str, credential_id: str) -> Overlay | None:
        """Return the newest kill of a flag that was made with a token and that the authority has not confirmed."""
        wanted = (environment_id, flag, credential_id, Stage.PENDING)
        newest_first = reversed(self.all())
        return next((o for o in newest_first if (o.environment_id, o.flag, o.credential_id, o.stage) == wanted), None)

    def of_environment(self, environment_id: str) -> tuple[ForcedOff, ...]:
        """Return what is off in an environment, whatever its configuration says."""
        return tuple(each.as_message() for each in self.all() if each.environment_id == environment_id)

    def over(self, now_s: float) -> tuple[Overlay, ...]:
        """Return the overlays whose time is over."""
        return tuple(each for each in self.all() if self._ends_at_s[each.id] <= now_s)

    def add(self, overlay: Overlay, ends_at_s: float) -> None:
        """Take up an overlay that lasts until `ends_at_s` at most."""
        self._ends_at_s[overlay.id] = ends_at_s
        self._by_id[overlay.id] = overlay

    def move(self, overlay_id: str, committed: Position | None) -> None:
        """Note how far a kill has come; nothing happens when its overlay is gone."""
        overlay = self._by_id.get(overlay_id)
        if overlay is not None:
            self._by_id[overlay_id] = replace(overlay, committed=committed)

    def drop(self, overlay_id: str) -> Overlay | None:
        """Let go of an overlay and return it."""
        self._ends_at_s.pop(overlay_id, None)
        return self._by_id.pop(overlay_id, None)
