"""Decides about imports: what a document of a whole project changes, thing by thing, and whether it may.

The document has the form of `transfer.project_document`, checked member by member by whoever builds the command; what
its members mean is checked here, all of it before anything is refused, with paths such as
`flags.checkout.configs.production.rules[0].when`. Nothing is deleted unless the command prunes, environments never.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from upstream.domain.commands import CreateProject, ImportProject
from upstream.domain.conditions import normalised
from upstream.domain.configs import fresh_config
from upstream.domain.diff import changes_between
from upstream.domain.entities import (
    Change,
    Entity,
    Environment,
    Flag,
    FlagConfig,
    JsonObject,
    Project,
    Segment,
)
from upstream.domain.environments import MAX_ENVIRONMENTS, check_environment, new_environment
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.graph import cycle_from, prerequisite_edges, segment_edges, unsettled
from upstream.domain.import_flags import FlagReader, Imported
from upstream.domain.import_plan import Plan, notices
from upstream.domain.lookup import is_changed, next_version, project_of
from upstream.domain.naming import check_key
from upstream.domain.permissions import may
from upstream.domain.projects import check_project, create_project
from upstream.domain.segments import check_texts, verify_segment
from upstream.domain.serving import unit_list
from upstream.domain.transfer import ENVIRONMENT_FIELDS, PROJECT_FIELDS

INVALID: Final = "The document cannot be imported as it is; nothing was changed."


@dataclass(slots=True)
class _Content:
    """A project as far as the import has brought it: environments, segments and flags by key."""

    project: Project
    environments: dict[str, Environment] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    configs: dict[str, dict[str, FlagConfig]] = field(default_factory=dict)


def import_project(command: ImportProject, view: View, facts: Facts) -> Decision:
    """Make a project equal to a document."""
    problems, plan = Problems(), Plan(facts)
    document = command.document
    if command.project is None:
        content = _Content(_new_project(document, view, facts, problems, plan))
    else:
        content = _stored(view, project_of(view, facts, command.project))
        _update_project(document, content, problems, plan)
    _environments(command, content, problems, plan)
    _segments(command, content, problems, plan)
    _flags(command, content, problems, plan)
    problems.check(INVALID)
    _check_permissions(plan, facts)
    return plan.decision(content.project, notices(content.flags.values(), content.configs, content.segments))


def _stored(view: View, project: Project) -> _Content:
    content = _Content(
        project,
        {each.key: each for each in view.environments(project.id)},
        {each.key: each for each in view.segments(project.id)},
        {each.key: each for each in view.flags(project.id)},
    )
    for config in view.project_configs(project.id):
        content.configs.setdefault(config.flag_id, {})[config.environment_id] = config
    return content


def _new_project(document: JsonObject, view: View, facts: Facts, problems: Problems, plan: Plan) -> Project:
    given: JsonObject = document.get("project", {})
    if not given.get("key"):
        problems.add("project.key", "A new project takes its key from the document.")
        problems.check(INVALID)
    fields = {name: given[name] for name in ("key", *PROJECT_FIELDS) if name in given}
    try:
        decision = create_project(CreateProject(**fields, environments=()), view, facts)
    except Rejected as refused:
        if not refused.errors:
            raise
        errors = {f"project.{path}": sentences for path, sentences in refused.errors.items()}
        raise Rejected(refused.kind, refused.detail, errors, code=refused.code) from None
    plan.note("create", "project", decision)
    project = decision.entity
    assert isinstance(project, Project)  # noqa: S101 - what creating a project gives
    return project


def _update_project(document: JsonObject, content: _Content, problems: Problems, plan: Plan) -> None:
    given: JsonObject = document.get("project", {})
    before = content.project
    after = replace(before, **{name: given[name] for name in PROJECT_FIELDS if name in given})
    check_project(problems.under("project"), after)
    content.project = plan.update("project", before, after)


def _environments(command: ImportProject, content: _Content, problems: Problems, plan: Plan) -> None:
    for key, entry in _entries(command.document, "environments", problems):
        under = problems.under(f"environments.{key}")
        before = content.environments.get(key)
        if before is None and not command.create_environments:
            under.add("", "There is no such environment here, and create_environments is off.")
            continue
        given = {name: entry[name] for name in ENVIRONMENT_FIELDS if name in entry}
        if before is not None:
            after = replace(before, **given)
            check_environment(under, after)
            content.environments[key] = plan.update("environment", before, after)
            continue
        check_key(under, "key", key)
        made = new_environment(content.project, key, None, len(content.environments), False, plan.facts)  # noqa: FBT003 - critical
        made = replace(made, **given)
        check_environment(under, made)
        content.environments[key] = made
        configs = [fresh_config(flag, made, plan.facts) for flag in content.flags.values()]
        for config in configs:
            content.configs.setdefault(config.flag_id, {})[made.id] = config
        plan.create("environment", made, configs)
    if len(content.environments) > MAX_ENVIRONMENTS:
        problems.add("environments", f"A project has at most {MAX_ENVIRONMENTS} environments.")


def _segments(command: ImportProject, content: _Content, problems: Problems, plan: Plan) -> None:
    listed: set[str] = set()
    for key, entry in _entries(command.document, "segments", problems):
        listed.add(key)
        under = problems.under(f"segments.{key}")
        before = content.segments.get(key)
        if before is None:
            check_key(under, "key", key)
        after = _segment(entry, before or _fresh_segment(content.project, key, plan.facts), under)
        content.segments[key] = after if before is None else plan.update("segment", before, after)
        if before is None:
            plan.create("segment", after)
    if command.prune:
        for key in content.segments.keys() - listed:
            gone = content.segments.pop(key)
            plan.delete("segment", gone)
    edges = segment_edges(content.segments.values())
    for key in unsettled(edges):
        problems.under(f"segments.{key}").add("when", _no_end(key, edges, "This condition"))


def _fresh_segment(project: Project, key: str, facts: Facts) -> Segment:
    return Segment(
        id=facts.new_id(),
        project_id=project.id,
        key=key,
        name=key,
        description=None,
        include=(),
        exclude=(),
        when=None,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )


def _segment(entry: JsonObject, segment: Segment, problems: Problems) -> Segment:
    segment = replace(segment, **{name: entry[name] for name in ("name", "description") if name in entry})
    for name in ("include", "exclude"):
        if name in entry:
            units: dict[str, Any] = {name: unit_list(problems, name, entry[name])}
            segment = replace(segment, **units)
    if "when" in entry:
        when = entry["when"]
        segment = replace(segment, when=None if when is None else normalised(problems, "when", when))
    check_texts(problems, segment)
    if problems.is_clean:
        verify_segment(problems, segment)
    return segment


def _flags(command: ImportProject, content: _Content, problems: Problems, plan: Plan) -> None:
    reader = FlagReader(
        content.project.id, content.environments, plan.facts, may_change_types=command.confirm_type_change
    )
    listed: set[str] = set()
    for key, entry in _entries(command.document, "flags", problems):
        listed.add(key)
        under = problems.under(f"flags.{key}")
        before = content.flags.get(key)
        if before is None:
            check_key(under, "key", key)
        configs = {} if before is None else content.configs.get(before.id, {})
        imported = reader.read(entry, before, configs, under)
        _take(imported, before, configs, content, plan)
    if command.prune:
        for key in content.flags.keys() - listed:
            gone = content.flags.pop(key)
            after = replace(next_version(gone, plan.facts), deleted_at=plan.facts.now_ms)
            plan.delete("flag", gone, after)
    edges = prerequisite_edges(content.flags.values())
    for key in unsettled(edges):
        problems.under(f"flags.{key}").add("prerequisites", _no_end(key, edges, "These prerequisites"))


def _take(
    imported: Imported, before: Flag | None, configs: Mapping[str, FlagConfig], content: _Content, plan: Plan
) -> None:
    flag = imported.flag
    names = {each.id: each.key for each in content.environments.values()}
    if before is None:
        content.flags[flag.key], content.configs[flag.id] = flag, dict(imported.configs)
        plan.create("flag", flag, list(imported.configs.values()), names)
        return
    changes = changes_between(before, flag)
    save: list[Entity] = []
    if is_changed(before, flag):
        flag = next_version(flag, plan.facts)
        save.append(flag)
    for environment_id, config in imported.configs.items():
        found = _config_changes(configs[environment_id], config, names[environment_id])
        if found:
            changes += found
            save.append(next_version(config, plan.facts))
    content.flags[flag.key], content.configs[flag.id] = flag, dict(imported.configs)
    plan.save("flag", flag, tuple(save), changes)


def _config_changes(before: FlagConfig, after: FlagConfig, environment: str) -> tuple[Change, ...]:
    path = f"environments.{environment}"
    changes = changes_between(before, after, prefix=path)
    if before.salt != after.salt:
        # Nobody is shown salts elsewhere, but another one gives every unit another bucket.
        changes += (Change(path=f"{path}.salt", before=before.salt, after=after.salt),)
    return changes


def _entries(document: JsonObject, name: str, problems: Problems) -> Iterator[tuple[str, JsonObject]]:
    """Yield the entries of one of the document's lists by key, each key once."""
    seen: set[str] = set()
    entries: Iterable[Any] = document.get(name, ())
    for index, entry in enumerate(entries):
        key = entry["key"]
        if key in seen:
            problems.add(f"{name}[{index}].key", f"{key!r} stands in the document already.")
            continue
        seen.add(key)
        yield key, entry


def _no_end(key: str, edges: Mapping[str, tuple[str, ...]], what: str) -> str:
    cycle = cycle_from(key, edges)
    if cycle is not None:
        return f"{what} lead back to where it began: {' → '.join(cycle)}."
    return f"{what} lead into a circle, or through too many in a chain."


def _check_permissions(plan: Plan, facts: Facts) -> None:
    """Refuse what needs more than writing flags.

    Raises:
        Rejected: FORBIDDEN.
    """
    for action, what in plan.needed_actions():
        if not may(facts.actor, action):
            detail = f"The document {what}, which needs the permission {action}."
            raise Rejected(Kind.FORBIDDEN, detail, code="permission_missing", extra={"needed": action})
