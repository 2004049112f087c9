"""What an import does, step by step: the plan that people are shown, and the decisions that carry it out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from upstream.domain.conditions import segments_in
from upstream.domain.diff import changes_between
from upstream.domain.entities import Change, Entity, Environment, Flag, FlagConfig, Project, Segment
from upstream.domain.facts import Decision, Facts, Notice
from upstream.domain.lookup import is_changed, next_version
from upstream.domain.permissions import Action

Verb = Literal["create", "update", "unchanged", "delete"]
E = TypeVar("E", Project, Environment, Segment)

REASON = "import"
"""What the audit log gives as the reason of each single change."""


class Plan:
    """The steps so far. The permissions that they need beyond writing flags are noted on the way."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._steps: list[dict[str, Any]] = []
        self._parts: list[Decision] = []
        self._counts: dict[str, int] = {"create": 0, "update": 0, "unchanged": 0, "delete": 0}
        self._needed: dict[Action, str] = {}

    def update(self, thing: str, before: E, after: E) -> E:
        """Note what becomes of a thing that is there, and return it as it then is."""
        if not is_changed(before, after):
            self._step("unchanged", thing, before.key)
            return before
        after = next_version(after, self.facts)
        self.save(thing, after, (after,), changes_between(before, after))
        return after

    def save(self, thing: str, entity: Any, save: tuple[Entity, ...], changes: tuple[Change, ...]) -> None:
        """Note a thing that is there already, with what of it is written."""
        if not save:
            self._step("unchanged", thing, entity.key)
            return
        decision = self._decision(f"{thing}.updated", entity, save=save, changes=changes)
        self.note("update", thing, decision)

    def create(
        self,
        thing: str,
        entity: Any,
        configs: Sequence[FlagConfig] = (),
        environments: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Note a new thing, with the configs that come with it; a flag's are shown by the names of `environments`."""
        changes = changes_between(None, entity)
        for config in configs if environments else ():
            changes += changes_between(None, config, prefix=f"environments.{environments[config.environment_id]}")
        self.note("create", thing, self._decision(f"{thing}.created", entity, save=(entity, *configs), changes=changes))

    def delete(self, thing: str, before: Any, after: Any = None) -> None:
        """Note that a thing goes away: as `after`, where what is left of it is kept."""
        fields: dict[str, Any] = {"remove": (before,)} if after is None else {"save": (after,)}
        changes = changes_between(before, None)
        decision = self._decision(f"{thing}.deleted", after or before, changes=changes, **fields)
        self.note("delete", thing, decision)

    def note(self, verb: Verb, thing: str, decision: Decision) -> None:
        """Note a step and what carries it out."""
        entity: Any = decision.entity
        changes = decision.changes if verb == "update" else ()
        self._step(verb, thing, entity.key, changes)
        self._parts.append(decision)
        if thing in {"project", "environment"}:
            self._needed.setdefault(Action.PROJECTS_WRITE, f"{verb}s the {thing} {entity.key!r}")
        elif verb == "delete":
            self._needed.setdefault(Action.FLAGS_DELETE, f"leaves out the {thing} {entity.key!r} and prunes")

    def needed_actions(self) -> Iterator[tuple[Action, str]]:
        """Yield what must be permitted beside writing flags, and why."""
        yield from self._needed.items()

    def decision(self, project: Project, warnings: tuple[Notice, ...]) -> Decision:
        """Return the whole import: its parts, and one entry that says that it was one."""
        return Decision(
            action="project.imported",
            entity=project,
            warnings=warnings,
            project_id=project.id,
            is_event=bool(self._parts),
            report={"plan": self._steps, "counts": self._counts},
            parts=tuple(self._parts),
        )

    def _decision(self, action: str, entity: Any, **fields: Any) -> Decision:
        project_id = getattr(entity, "project_id", None) or entity.id
        environment_id = entity.id if isinstance(entity, Environment) else None
        return Decision(
            action=action,
            entity=entity,
            target=entity,
            project_id=project_id,
            environment_id=environment_id,
            reason=REASON,
            **fields,
        )

    def _step(self, verb: Verb, thing: str, key: str, changes: tuple[Change, ...] = ()) -> None:
        self._counts[verb] += 1
        shown = [{"path": each.path, "before": each.before, "after": each.after} for each in changes]
        self._steps.append({"action": verb, "thing": thing, "key": key, "changes": shown})


def notices(
    flags: Iterable[Flag], configs: Mapping[str, Mapping[str, FlagConfig]], segments: Mapping[str, Segment]
) -> tuple[Notice, ...]:
    """Return warnings about what the imported things name and nobody has made."""
    by_key = {flag.key: flag for flag in flags}
    needed = {each.flag for flag in by_key.values() for each in flag.prerequisites}
    named = {key for segment in segments.values() for key in segments_in(segment.when)}
    for flag in by_key.values():
        for config in configs.get(flag.id, {}).values():
            named.update(key for rule in config.rules for key in segments_in(rule.when))
    missing = [
        Notice(code="missing_prerequisite", detail=f"There is no flag {key!r} yet; flags that require it stay off.")
        for key in sorted(needed - by_key.keys())
    ]
    missing += [
        Notice(code="missing_segment", detail=f"There is no segment {key!r} yet; whatever names it is skipped.")
        for key in sorted(named - segments.keys())
    ]
    return tuple(missing)
