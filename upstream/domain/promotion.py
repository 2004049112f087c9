"""Decides what it means to bring a flag's configuration from one place to another: promoted, or copied as a new flag.

Salts never travel. A promotion keeps the salt of where it goes, so that nobody there moves because of it, and a copy
gets fresh ones, so that it divides people independently of its original.
"""

from collections.abc import Sequence
from dataclasses import replace

from relay.engine.literals import moment_ms
from upstream.domain.configs import INVALID, config_of, decided_config, fresh_config, missing_segments, verify
from upstream.domain.diff import changes_between
from upstream.domain.entities import Change, Entity, Environment, Flag, FlagConfig, Project, Rule
from upstream.domain.errors import Problems
from upstream.domain.facts import Decision, Facts, Notice, View
from upstream.domain.flag_commands import CopyFlag, PromoteFlag
from upstream.domain.flags import FlagKeys
from upstream.domain.lookup import check_version, environment_of, flag_of, live_flag_of, project_of
from upstream.domain.merging import CONFIG_FIELDS
from upstream.domain.naming import check_name, choose_key, key_from
from upstream.domain.prerequisites import check_prerequisites

PARTS = CONFIG_FIELDS
NO_ENVIRONMENT = "environment_missing"


def promote_flag(command: PromoteFlag, view: View, facts: Facts) -> Decision:
    """Copy a flag's configuration from one environment into another."""
    project = project_of(view, facts, command.project)
    source = environment_of(view, project, command.source)
    environment = environment_of(view, project, command.environment)
    flag = live_flag_of(view, project, command.flag)
    config = config_of(view, flag, environment)
    check_version(config, command.if_match)
    problems = Problems()
    parts = _parts(command.parts, problems)
    if source.id == environment.id:
        problems.add("to", f"This is the environment {source.key!r} again; name another one.")
    problems.check("The flag cannot be promoted like this.")
    model = config_of(view, flag, source)
    after = _promoted(model, config, parts, facts)
    verify(problems, flag, after)
    problems.check(INVALID)
    warnings = _already_running(model, facts) if "fallthrough" in parts or "rules" in parts else ()
    decision = decided_config(flag, flag, config, after, facts, warnings=warnings)
    origin = (Change(path="promoted_from", before=None, after=source.key),) if decision.changes else ()
    changes = (*decision.changes, *origin)
    return replace(decision, action="flag.promoted", changes=changes, reason=command.reason, rests_on=(model,))


def _parts(parts: Sequence[str] | None, problems: Problems) -> Sequence[str]:
    if parts is None:
        return PARTS
    if not parts:
        problems.add("parts", f"Name at least one of {', '.join(PARTS)}, or leave parts out to promote all.")
    for index, part in enumerate(parts):
        if part not in PARTS:
            problems.add(f"parts[{index}]", f"There is no part {part!r}; known are {', '.join(PARTS)}.")
    return parts


def _promoted(model: FlagConfig, config: FlagConfig, parts: Sequence[str], facts: Facts) -> FlagConfig:
    after = replace(config, **{part: getattr(model, part) for part in parts})
    if "rules" in parts:
        after = replace(after, rules=_rules(model.rules, config.rules))
    return after if after.enabled == config.enabled else replace(after, enabled_at=facts.now_ms)


def _rules(model: tuple[Rule, ...], present: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules of the model under the ids by which they are known where they go.

    `percentage_of` buckets with a rule's id: a rule that is there already, by its id or else by its condition, keeps
    its id, so that nobody moves. A new one comes with its own, by which the next promotion knows it again.
    """
    ids = {rule.id for rule in model}
    unclaimed = [rule for rule in present if rule.id not in ids]
    present_ids = {rule.id for rule in present}
    promoted = []
    for rule in model:
        twin = None if rule.id in present_ids else next((each for each in unclaimed if each.when == rule.when), None)
        if twin is not None:
            unclaimed.remove(twin)
        promoted.append(rule if twin is None else replace(rule, id=twin.id))
    return tuple(promoted)


def _already_running(model: FlagConfig, facts: Facts) -> tuple[Notice, ...]:
    """Warn of ramps that began where they come from: they are there at once where they go."""
    ramps = [serve["ramp"] for serve in (model.fallthrough, *(rule.serve for rule in model.rules)) if "ramp" in serve]
    starts = [moment_ms(ramp["start_at"]) for ramp in ramps if ramp["start_at"] is not None]
    if not any(start is not None and start <= facts.now_ms for start in starts):
        return ()
    detail = "A ramp of this flag has begun already, and is as far here as it is there; give it a new start_at if not."
    return (Notice(code="ramp_running", detail=detail),)


def copy_flag(command: CopyFlag, view: View, facts: Facts) -> Decision:
    """Make a new flag like another one."""
    project = project_of(view, facts, command.project)
    into = project if command.into is None else project_of(view, facts, command.into)
    flag = flag_of(view, project, command.flag)
    check_version(flag, command.if_match)
    copy = _copied(command, flag, into, view, facts)
    configs, lost = _configs(command, flag, copy, into, view, facts)
    problems = Problems()
    changes = changes_between(None, copy)
    for environment, config in configs:
        verify(problems, copy, config, path=f"environments.{environment.key}.")
        changes += changes_between(None, config, prefix=f"environments.{environment.key}")
    problems.check(INVALID)
    origin = Change(path="copied_from", before=None, after={"project": project.key, "flag": flag.key})
    save: tuple[Entity, ...] = (copy, *(config for _, config in configs))
    warnings = check_prerequisites(copy, view) + missing_segments(view, into.id, *(each for _, each in configs))
    return Decision(
        action="flag.copied",
        entity=copy,
        save=save,
        changes=(*changes, origin),
        warnings=warnings + lost,
        project_id=into.id,
        rests_on=(flag, *view.configs(flag.id).values()),
    )


def _copied(command: CopyFlag, flag: Flag, into: Project, view: View, facts: Facts) -> Flag:
    problems = Problems()
    taken = FlagKeys(view, into.id)
    if command.key is None and command.name is None:
        key = flag.key if flag.key not in taken else key_from(flag.key, taken, fallback="flag")
    else:
        key = choose_key(problems, "flag", key=command.key, name=command.name, taken=taken)
    check_name(problems, "name", command.name)
    problems.check(INVALID)
    return replace(
        flag,
        id=facts.new_id(),
        project_id=into.id,
        key=key,
        name=flag.name if command.name is None else command.name,
        archived_at=None,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )


def _configs(  # noqa: PLR0913, PLR0917 - each of them is needed
    command: CopyFlag, flag: Flag, copy: Flag, into: Project, view: View, facts: Facts
) -> tuple[list[tuple[Environment, FlagConfig]], tuple[Notice, ...]]:
    """Return the copy's config in each environment, and a warning where one of the original has no place."""
    present = view.configs(flag.id)
    models = {each.key: present[each.id] for each in view.environments(flag.project_id) if each.id in present}
    configs = []
    for environment in view.environments(into.id):
        fresh = fresh_config(copy, environment, facts)
        model = models.pop(environment.key, None)
        configs.append((environment, fresh if model is None else _like(model, fresh, command, facts)))
    text = "The project {!r} has no environment {!r}: what the flag does there was not copied."
    return configs, tuple(Notice(code=NO_ENVIRONMENT, detail=text.format(into.key, key)) for key in models)


def _like(model: FlagConfig, fresh: FlagConfig, command: CopyFlag, facts: Facts) -> FlagConfig:
    return replace(
        fresh,
        enabled=model.enabled and command.keep_enabled,
        off=model.off,
        fallthrough=model.fallthrough,
        # Rules bucket with their ids, so these are fresh like the salt.
        rules=tuple(replace(rule, id=facts.new_id()) for rule in model.rules),
        targets=model.targets,
    )
