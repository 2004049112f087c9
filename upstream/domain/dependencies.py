"""What a flag hangs on and what hangs on it: prerequisites in both directions, and the segments that its rules name.

Prerequisites are followed to their end, level by level; each flag is listed once, at its shortest distance.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from upstream.domain.conditions import segments_in
from upstream.domain.entities import Flag, Prerequisite
from upstream.domain.facts import View

State: TypeAlias = Literal["live", "archived", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A flag at the other end of a chain of prerequisites.

    `distance` is 1 for a direct one, `via` the flag next to it on the way, `variations` those that it must serve (None
    = it must only be enabled) for the flag that requires it.
    """

    flag: str
    state: State
    distance: int
    via: str
    variations: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentUse:
    """A segment, whether it exists, and the environments (keys, in order) in which rules of the flag name it."""

    segment: str
    exists: bool
    environments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """Everything around one flag."""

    requires: tuple[Link, ...]
    required_by: tuple[Link, ...]
    segments: tuple[SegmentUse, ...]


Following: TypeAlias = Callable[[str], Iterable[tuple[str, Prerequisite]]]


def dependencies_of(flag: Flag, view: View) -> Dependencies:
    """Return what a flag hangs on and what hangs on it."""
    flags = {each.key: each for each in view.requiring(flag.project_id)} | {flag.key: flag}

    def required(key: str) -> Iterable[tuple[str, Prerequisite]]:
        return [(each.flag, each) for each in flags[key].prerequisites] if key in flags else []

    def requiring(key: str) -> Iterable[tuple[str, Prerequisite]]:
        return [(other.key, each) for other in flags.values() for each in other.prerequisites if each.flag == key]

    return Dependencies(
        requires=_links(flag.key, required, view, flag.project_id),
        required_by=_links(flag.key, requiring, view, flag.project_id),
        segments=_segments(flag, view),
    )


def _links(start: str, following: Following, view: View, project_id: str) -> tuple[Link, ...]:
    found: dict[str, Link] = {}
    level, distance = [start], 0
    while level:
        distance += 1
        reached: list[str] = []
        for via in level:
            for key, prerequisite in following(via):
                if key not in found and key != start:
                    state = _state(view.flag(project_id, key))
                    found[key] = Link(
                        flag=key, state=state, distance=distance, via=via, variations=prerequisite.variations
                    )
                    reached.append(key)
        level = reached
    return tuple(found.values())


def _state(flag: Flag | None) -> State:
    if flag is None:
        return "missing"
    return "live" if flag.archived_at is None else "archived"


def _segments(flag: Flag, view: View) -> tuple[SegmentUse, ...]:
    configs = view.configs(flag.id)
    uses: dict[str, list[str]] = {}
    for environment in view.environments(flag.project_id):
        config = configs.get(environment.id)
        named = {key for rule in (config.rules if config else ()) for key in segments_in(rule.when)}
        for key in named:
            uses.setdefault(key, []).append(environment.key)
    known: Mapping[str, object] = {segment.key: segment for segment in view.segments(flag.project_id)} if uses else {}
    return tuple(SegmentUse(segment=key, exists=key in known, environments=tuple(uses[key])) for key in sorted(uses))
