"""Which versions a proposed change is bound to, and whether they still hold.

A binding is `{type, key, entity_id, environment_id, version}`: a flag, a segment, or (with an environment) the config
of a flag, at the version that it had before the change. What a change makes anew is bound to nothing; what it copies
is bound as well. A segment that is named and not there is bound at version 0, by its key: who makes it says who is in
it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from upstream.domain.conditions import segments_in
from upstream.domain.entities import Entity, Environment, Flag, FlagConfig, JsonObject, Segment
from upstream.domain.facts import Decision, View

_Name = tuple[str, str]
_ABSENT = 0


@dataclass(frozen=True, slots=True)
class Touched:
    """What decisions change: flags, configs and segments by id and environment, and environments that are gone."""

    names: frozenset[_Name]
    environments: frozenset[str]


def bound_by(decisions: Sequence[Decision], view: View) -> tuple[JsonObject, ...]:
    """Return the bindings of all that these decisions, which have been taken back, touch or copy from.

    The flag of a config is bound as well: what its variations are is what a reviewer judges the serves by. And so is
    what a decision is about but leaves as it is: after an edit it would not.
    """
    bound: dict[_Name, JsonObject | None] = {}
    keys: dict[str, str] = {}
    for decision in decisions:
        flag = decision.target if isinstance(decision.target, Flag) else None
        before = [(entity, entity.version - 1) for entity in decision.save]
        before += [(entity, entity.version) for entity in decision.remove]
        # What these save has its place already, at the version before.
        before += [(entity, entity.version) for entity in (*decision.rests_on, decision.entity, flag) if entity]
        keys |= {entity.id: entity.key for entity, _ in before if isinstance(entity, Flag)}
        for entity, version in before:
            name = _name(entity)
            if name is not None and name not in bound:
                bound[name] = _binding(entity, name, version, keys) if version else None
    missing = (_missing(key) for key in _missing_segments(decisions, view))
    return (*(each for each in bound.values() if each is not None), *missing)


def _missing_segments(decisions: Iterable[Decision], view: View) -> list[str]:
    """Return the keys of the segments that these decisions name, make none of, and that are not there."""
    saved = [(entity, decision.project_id) for decision in decisions for entity in decision.save]
    named = {key for entity, _ in saved for key in _segments_of(entity)}
    if not named:
        return []
    there = {entity.key for entity, _ in saved if isinstance(entity, Segment)}
    for project_id in {project_id for _, project_id in saved if project_id is not None}:
        there |= {segment.key for segment in view.segments(project_id)}
    return sorted(named - there)


def _segments_of(entity: Entity) -> Iterator[str]:
    if isinstance(entity, FlagConfig):
        yield from (key for rule in entity.rules for key in segments_in(rule.when))
    elif isinstance(entity, Segment):
        yield from segments_in(entity.when)


def _missing(key: str) -> JsonObject:
    return {"type": "segment", "key": key, "entity_id": key, "environment_id": "", "version": _ABSENT}


def _binding(entity: Entity, name: _Name, version: int, keys: Mapping[str, str]) -> JsonObject:
    is_config = isinstance(entity, FlagConfig)
    return {
        "type": "config" if is_config else "flag" if isinstance(entity, Flag) else "segment",
        "key": keys.get(name[0]) if is_config else getattr(entity, "key", None),
        "entity_id": name[0],
        "environment_id": name[1],
        "version": version,
    }


def _name(entity: Entity) -> _Name | None:
    if isinstance(entity, FlagConfig):
        return entity.flag_id, entity.environment_id
    return (entity.id, "") if isinstance(entity, Flag | Segment) else None


def holds(bound: JsonObject, view: View) -> bool:
    """Tell whether a bound thing is still at its version."""
    version: int = bound["version"]
    # One that is made since has ended the request in the same transaction.
    return version == _ABSENT or view.version_now(bound["type"], bound["entity_id"], bound["environment_id"]) == version


def named(bound: JsonObject) -> str:
    """Return what is bound in words."""
    key = "" if bound["key"] is None else f" {bound['key']!r}"
    return f"The config of the flag{key}" if bound["type"] == "config" else f"The {bound['type']}{key}"


def touched_by(decisions: Iterable[Decision]) -> Touched:
    """Return what these decisions change."""
    names: set[_Name] = set()
    gone: set[str] = set()
    for decision in decisions:
        for entity in (*decision.save, *decision.remove):
            name = _name(entity)
            if name is not None:
                names.add(name)
            if isinstance(entity, Segment) and entity.version == 1:
                names.add((entity.key, ""))
        gone |= {entity.id for entity in decision.remove if isinstance(entity, Environment)}
    return Touched(frozenset(names), frozenset(gone))


def first_hit(bound: Sequence[JsonObject], touched: Touched) -> JsonObject | None:
    """Return the first of the bound things that is touched."""
    for each in bound:
        name = each["entity_id"], each["environment_id"]
        if name in touched.names or each["environment_id"] in touched.environments:
            return each
    return None
