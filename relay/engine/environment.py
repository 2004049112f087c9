"""Puts flags and segments together into one immutable environment, and derives the next revision from the last.

Owns what only the whole can tell: which segments are usable, whose prerequisites settle, who is in an exclusion group,
which ramps run. `amend` copies maps and looks at what changed; everything else is shared with the revision before. It
never refuses: references that lead nowhere, in circles or too deep are set aside here, and `gaps` names them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from relay.engine.model import Environment, Flag, Needs, Ramp, Segment

T = TypeVar("T")
C = TypeVar("C", bound=Collection[object])

MAX_CHAIN = 16
"""Prerequisites of prerequisites, and segments inside segments."""


def assemble(  # noqa: PLR0913 - one argument per part of an environment
    *,
    environment_id: str,
    key: str,
    project_id: str,
    project_key: str,
    revision: int,
    flags: Mapping[str, Flag],
    segments: Mapping[str, Segment],
) -> Environment:
    """Build an environment from parsed objects."""
    empty = Environment(
        id=environment_id,
        key=key,
        project_id=project_id,
        project_key=project_key,
        revision=revision,
        flags={},
        segments={},
        usable={},
        chained={},
        unsettled=frozenset(),
        groups={},
        ramps={},
        segmented={},
    )
    return amend(empty, revision=revision, upsert_flags=flags, upsert_segments=segments)


def amend(  # noqa: PLR0913 - the four parts of a change set
    environment: Environment,
    *,
    revision: int,
    upsert_flags: Mapping[str, Flag] | None = None,
    remove_flags: Iterable[str] = (),
    upsert_segments: Mapping[str, Segment] | None = None,
    remove_segments: Iterable[str] = (),
) -> Environment:
    """Return the environment at `revision`, sharing with this one whatever did not change.

    An object that is both removed and upserted stays; removing what is not there is no error.
    """
    flags = _changed(environment.flags, upsert_flags or {}, gone := tuple(remove_flags))
    segments = _changed(environment.segments, upsert_segments or {}, tuple(remove_segments))
    touched = {*(upsert_flags or ()), *gone}
    chained = _reindexed(environment.chained, flags, touched, _needed_flags)
    return Environment(
        id=environment.id,
        key=environment.key,
        project_id=environment.project_id,
        project_key=environment.project_key,
        revision=revision,
        flags=flags,
        segments=segments,
        usable=environment.usable if segments is environment.segments else _usable(segments),
        chained=chained,
        unsettled=environment.unsettled if chained is environment.chained else _unsettled(chained),
        groups=_regrouped(environment, flags, touched),
        ramps=_reindexed(environment.ramps, flags, touched, _running_ramps),
        segmented=_reindexed(environment.segmented, flags, touched, _named_segments),
    )


def _changed(before: Mapping[str, T], upsert: Mapping[str, T], remove: Collection[str]) -> Mapping[str, T]:
    if not upsert and not remove:
        return before
    after = {**before, **upsert}
    for key in remove:
        if key not in upsert:
            after.pop(key, None)
    return after


def _needed_flags(flag: Flag) -> frozenset[str]:
    return frozenset(prerequisite.flag for prerequisite in flag.prerequisites)


def _named_segments(flag: Flag) -> frozenset[str]:
    return frozenset[str]().union(*(rule.needs.segments for rule in flag.rules)) if flag.rules else frozenset()


def _running_ramps(flag: Flag) -> tuple[Ramp, ...]:
    if not flag.enabled:
        return ()
    serves = [rule.serve for rule in flag.rules if not rule.needs.unknown_operators]
    return tuple(serve for serve in (*serves, flag.fallthrough) if isinstance(serve, Ramp))


def _reindexed(
    index: Mapping[str, C], flags: Mapping[str, Flag], touched: Iterable[str], entry: Callable[[Flag], C]
) -> Mapping[str, C]:
    """Return an index that holds `entry` of each flag for which there is one, the very same where nothing moved."""
    entries = {key: entry(flags[key]) if key in flags else None for key in touched}
    if all((new or None) == index.get(key) for key, new in entries.items()):
        return index
    kept = {key: value for key, value in index.items() if key not in entries}
    return kept | {key: new for key, new in entries.items() if new}


def _regrouped(
    environment: Environment, flags: Mapping[str, Flag], touched: Iterable[str]
) -> Mapping[str, frozenset[str]]:
    """Return the enabled members of each group after the touched flags have left and joined."""
    moved: dict[str, set[str]] = {}
    for key in touched:
        left, joined = _group_of(environment.flags.get(key)), _group_of(flags.get(key))
        if left is not None and left != joined:
            _members(moved, environment, left).discard(key)
        if joined is not None and left != joined:
            _members(moved, environment, joined).add(key)
    if not moved:
        return environment.groups
    groups = {**environment.groups, **{name: frozenset(members) for name, members in moved.items()}}
    return {name: members for name, members in groups.items() if members}


def _members(moved: dict[str, set[str]], environment: Environment, name: str) -> set[str]:
    """Return the members of a group as they are being changed."""
    # One set for all that come and go: a new one for each of thousands would take a time that grows with its square.
    if name not in moved:
        moved[name] = set(environment.groups.get(name, ()))
    return moved[name]


def _group_of(flag: Flag | None) -> str | None:
    return flag.group.name if flag is not None and flag.enabled and flag.group is not None else None


def _unsettled(chained: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the flags whose prerequisites run in a circle, lead into one, or nest too deeply."""
    return frozenset(chained) - _settled({key: needed & chained.keys() for key, needed in chained.items()}, MAX_CHAIN)


def _usable(segments: Mapping[str, Segment]) -> Mapping[str, Segment]:
    """Return the segments that can be decided: those, and all inside them, exist and are understood."""
    understood = {key: found.needs.segments for key, found in segments.items() if not found.needs.unknown_operators}
    settled = _settled(understood, MAX_CHAIN + 1)
    return {key: segments[key] for key in settled}


def _settled(links: Mapping[str, Collection[str]], rounds: int) -> set[str]:
    """Return the keys whose links all lead to settled keys, within so many rounds from those that have none.

    What is on a circle never settles, and a chain settles one link a round, so no answer depends on where one enters.
    """
    settled: set[str] = set()
    waiting = dict(links)
    for _ in range(rounds):
        ready = [key for key, targets in waiting.items() if settled.issuperset(targets)]
        settled.update(ready)
        for key in ready:
            del waiting[key]
    return settled


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is set aside when this environment is evaluated: where, what kind, and the name in question."""

    path: str
    kind: Literal["unknown_operator", "unusable_segment", "missing_prerequisite", "unsettled_prerequisites"]
    name: str


def gaps(environment: Environment) -> Iterator[Gap]:
    """Yield every gap; for counting and for telling people, after a change rather than at each evaluation."""
    for key, segment in environment.segments.items():
        yield from _gaps_of(f"segments.{key}", segment.needs, environment)
    for key, flag in environment.flags.items():
        for index, rule in enumerate(flag.rules):
            yield from _gaps_of(f"flags.{key}.rules[{index}]", rule.needs, environment)
        for needed in sorted(environment.chained.get(key, ())):
            if needed not in environment.flags:
                yield Gap(f"flags.{key}", "missing_prerequisite", needed)
        if key in environment.unsettled:
            yield Gap(f"flags.{key}", "unsettled_prerequisites", key)


def _gaps_of(path: str, needs: Needs, environment: Environment) -> Iterator[Gap]:
    for op in sorted(needs.unknown_operators):
        yield Gap(path, "unknown_operator", op)
    for segment in sorted(needs.segments):
        if segment not in environment.usable:
            yield Gap(path, "unusable_segment", segment)
