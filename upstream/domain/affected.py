"""What a change is of, and who feels it: flags and environments that it is about, and flags that depend on these.

Pure. Several commands may change the same path of different things, so each difference is shown with its thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from upstream.domain.audit_names import name_of, type_of_target
from upstream.domain.conditions import segments_in
from upstream.domain.entities import Environment, Flag, FlagConfig, JsonObject, Segment
from upstream.domain.facts import Decision, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Keys, sorted. `dependents` are flags that require a flag or name a segment that the change is about."""

    flags: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()


def affected_by(decisions: Sequence[Decision], view: View) -> Affected:
    """Return what these decisions concern, in the state that they leave."""
    project_ids = {each.project_id for each in decisions if each.project_id is not None}
    entities = [entity for each in decisions for entity in (*each.save, *each.remove)]
    targets = [each.target for each in decisions if each.target is not None]
    flags = {each.key for each in (*entities, *targets) if isinstance(each, Flag)}
    segments = {each.key for each in entities if isinstance(each, Segment)}
    named = _environment_keys(decisions, view)
    if any(isinstance(each, Flag | Segment) for each in entities):
        touched = set(named)
    else:
        touched = {each.environment_id for each in entities if isinstance(each, FlagConfig)}
        touched |= {each.id for each in entities if isinstance(each, Environment)}
    dependents = {key for project in project_ids for key in _dependents(view, project, flags, segments)}
    return Affected(
        flags=tuple(sorted(flags)),
        segments=tuple(sorted(segments)),
        environments=tuple(sorted(named[each] for each in touched if each in named)),
        dependents=tuple(sorted(dependents - flags)),
    )


def changes_by_thing(decisions: Sequence[Decision], view: View) -> list[JsonObject]:
    """Return what these decisions change, each difference with the thing that it is one of."""
    named = _environment_keys(decisions, view)
    return [
        {
            "target": {"type": type_of_target(each), "key": name_of(each.target or each.entity)},
            "environment": named.get(each.environment_id or ""),
            "path": change.path,
            "before": change.before,
            "after": change.after,
        }
        for each in decisions
        for change in each.changes
    ]


def _environment_keys(decisions: Sequence[Decision], view: View) -> dict[str, str]:
    """Return the keys of the environments that are there or were, by id."""
    projects = {each.project_id for each in decisions if each.project_id is not None}
    entities = [entity for each in decisions for entity in (*each.save, *each.remove)]
    gone = {each.id: each.key for each in entities if isinstance(each, Environment)}
    return gone | {each.id: each.key for project in projects for each in view.environments(project)}


def _dependents(view: View, project_id: str, flags: set[str], segments: set[str]) -> set[str]:
    found = {flag.key for flag in view.requiring(project_id) if any(each.flag in flags for each in flag.prerequisites)}
    if segments:
        keys = {flag.id: flag.key for flag in view.flags(project_id)}
        found |= {
            keys[config.flag_id]
            for config in view.project_configs(project_id)
            if any(segments & set(segments_in(rule.when)) for rule in config.rules)
        }
    return found
