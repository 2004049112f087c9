"""Decides what a flag is in every environment: creating it and changing it. `flag_endings` takes it away again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from upstream.domain.commands import (
    ConfigFields,
    CreateFlag,
    UpdateFlag,
    given,
)
from upstream.domain.configs import INVALID, applied, fresh_config, missing_segments, usual_serves, verify
from upstream.domain.diff import changes_between
from upstream.domain.entities import Entity, Environment, Flag, FlagConfig, FlagKind, FlagType
from upstream.domain.errors import Problems
from upstream.domain.facts import Decision, Facts, Notice, View
from upstream.domain.lookup import check_version, is_changed, live_flag_of, next_version, project_of
from upstream.domain.merging import FLAG_FIELDS, check_start, merged
from upstream.domain.naming import TEXT_CHARACTERS, check_name, check_text, choose_key
from upstream.domain.prerequisites import check_prerequisites, given_prerequisites
from upstream.domain.serving import Reader
from upstream.domain.templates import with_template
from upstream.domain.unset import (
    UNSET,
)
from upstream.domain.values import (
    BOOLEAN_VARIATIONS,
    DEFAULTS,
    Values,
    check_number_format,
    given_variations,
    infer_type,
    value_problem,
)

MAX_TAGS = 50
_SHARED_FIELDS = (
    "name",
    "description",
    "kind",
    "metadata",
    "is_active",
    "client_side_enabled",
    "analytics_enabled",
    "mutual_exclusion_group",
    "owner",
    "expires_at",
)


@dataclass(frozen=True, slots=True)
class FlagKeys:
    """The keys that are taken in a project, looked up one by one instead of reading every flag."""

    view: View
    project_id: str

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.view.flag(self.project_id, key) is not None


def create_flag(command: CreateFlag, view: View, facts: Facts) -> Decision:
    """Create a flag with a config in every environment."""
    project = project_of(view, facts, command.project)
    environments = view.environments(project.id)
    problems = Problems()
    command = with_template(command, problems)
    key = choose_key(problems, "flag", key=command.key, name=command.name, taken=FlagKeys(view, project.id))
    values = _first_values(command, problems)
    flag = _new_flag(command, project.id, key, values, facts, problems)
    configs = _first_configs(command, flag, environments, values, facts, problems)
    flag = replace(flag, variations=values.variations)
    problems.check(INVALID)
    for environment, config in zip(environments, configs, strict=True):
        verify(problems, flag, config, path=f"environments.{environment.key}.")
    problems.check(INVALID)
    warnings = check_prerequisites(flag, view) + missing_segments(view, project.id, *configs)
    changes = changes_between(None, flag)
    for environment, config in zip(environments, configs, strict=True):
        changes += changes_between(None, config, prefix=f"environments.{environment.key}")
    save: tuple[Entity, ...] = (flag, *configs)
    return Decision(
        action="flag.created",
        entity=flag,
        save=save,
        changes=changes,
        warnings=warnings,
        project_id=project.id,
    )


def _first_values(command: CreateFlag, problems: Problems) -> Values:
    """Return the variations that a new flag starts with."""
    sample: Any = command.default_value
    if sample is UNSET and command.variations and isinstance(command.variations[0], Mapping):
        sample = command.variations[0].get("value")
    flag_type = command.type or (FlagType.BOOLEAN if sample is UNSET else infer_type(sample))
    declared = command.number_format
    check_number_format(problems, flag_type, declared, ())
    if command.variations is not None:
        return given_variations(problems, flag_type, command.variations, declared)
    if flag_type is FlagType.BOOLEAN:
        return Values(flag_type, BOOLEAN_VARIATIONS, problems)
    values = Values(flag_type, (), problems, declared)
    default = DEFAULTS[flag_type] if command.default_value is UNSET else command.default_value
    if problem := value_problem(flag_type, default, declared):
        problems.add("default_value", problem)
    values.add("default_value", value=default, key="default")
    return values


def _new_flag(command: CreateFlag, project_id: str, key: str, values: Values, facts: Facts, problems: Problems) -> Flag:  # noqa: PLR0913, PLR0917 - each of them is needed
    flag = Flag(
        id=facts.new_id(),
        project_id=project_id,
        key=key,
        type=values.type,
        number_format=values.number_format,
        kind=FlagKind.RELEASE if command.kind is UNSET else command.kind,
        tags=checked_tags(problems, command.tags),
        is_active=command.is_active is not False,
        prerequisites=given_prerequisites(problems, command.prerequisites, key),
        variations=values.variations,
        archived_at=None,
        deleted_at=None,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
        **{name: getattr(command, name) for name in _SHARED_FIELDS if name not in {"name", "kind", "is_active"}},
        name=key if command.name is None else command.name,
    )
    check_texts(problems, flag)
    return flag


def _first_configs(  # noqa: PLR0913, PLR0917 - each of them is needed
    command: CreateFlag,
    flag: Flag,
    environments: Sequence[Environment],
    values: Values,
    facts: Facts,
    problems: Problems,
) -> list[FlagConfig]:
    _name_unknown_environments(command, environments, problems)
    reader = Reader(values, problems, facts)
    off, fallthrough = usual_serves(flag.type, flag.variations)
    if command.default_value is not UNSET:
        off = fallthrough = values.with_value("default_value", command.default_value)
    configs = []
    for environment in environments:
        config = fresh_config(flag, environment, facts)
        config = replace(config, off=off, fallthrough={"variation": fallthrough})
        config = applied(config, command.config, reader, values, facts, "config.")
        for reference in (environment.key, environment.id):
            fields = command.environments.get(reference, ConfigFields())
            config = applied(config, fields, reader, values, facts, f"environments.{reference}.")
        configs.append(config)
    return configs


def _name_unknown_environments(command: CreateFlag, environments: Sequence[Environment], problems: Problems) -> None:
    known = {environment.key for environment in environments} | {environment.id for environment in environments}
    for reference in command.environments.keys() - known:
        problems.add(f"environments.{reference}", "There is no such environment in this project.")


def update_flag(command: UpdateFlag, view: View, facts: Facts) -> Decision:
    """Change what a flag is in every environment."""
    project = project_of(view, facts, command.project)
    flag = live_flag_of(view, project, command.flag)
    check_start(command)
    check_version(flag, command.if_match)
    problems = Problems()
    after = replace(flag, **given(command, *_SHARED_FIELDS))
    if command.tags is not UNSET:
        after = replace(after, tags=checked_tags(problems, command.tags))
    if command.prerequisites is not UNSET:
        after = replace(after, prerequisites=given_prerequisites(problems, command.prerequisites, flag.key))
    check_texts(problems, after)
    after = _with_variations(command, after, problems)
    problems.check(INVALID)
    after = merged(view, command.base_version, flag, after, FLAG_FIELDS)
    check_number_format(problems, after.type, after.number_format, after.variations)
    return _decide_update(command, flag, after, view, facts, problems)


def _with_variations(command: UpdateFlag, flag: Flag, problems: Problems) -> Flag:
    flag_type = flag.type if command.type is UNSET else command.type
    if flag_type is not flag.type and not command.confirm_type_change:
        sentence = (
            "A new type removes the variations, rules and targets of every environment; confirm_type_change says yes."
        )
        problems.add("type", sentence)
        return flag
    declared = flag.number_format if flag_type is flag.type else None
    if command.number_format is not UNSET:
        declared = command.number_format
    after = replace(flag, type=flag_type, number_format=declared)
    if command.variations is not UNSET:
        check_number_format(problems, flag_type, declared, ())
        variations = given_variations(problems, flag_type, command.variations, declared).variations
        return replace(after, variations=variations)
    if flag_type is flag.type:
        check_number_format(problems, flag_type, declared, flag.variations)
        return after
    first = _first_values(CreateFlag(project="", type=flag_type, number_format=declared), problems)
    return replace(after, variations=first.variations)


def _decide_update(  # noqa: PLR0913, PLR0917 - each of them is needed
    command: UpdateFlag,
    flag: Flag,
    after: Flag,
    view: View,
    facts: Facts,
    problems: Problems,
) -> Decision:
    configs = view.configs(flag.id)
    changes = changes_between(flag, after)
    save: list[Entity] = []
    lost: dict[str, FlagConfig] = {}
    is_reset = after.type is not flag.type
    for environment in view.environments(flag.project_id):
        config, place = configs[environment.id], f"environments.{environment.key}"
        usual = _reset(config, after, facts) if is_reset else config
        if is_changed(config, usual):
            changes += changes_between(config, usual, prefix=place)
            lost[environment.key] = config
            save.append(next_version(usual, facts))
        verify(problems, after, usual, path=f"{place}.")
    problems.check(INVALID)
    warnings = _type_change_notices(flag, after, lost) if is_reset else ()
    if command.prerequisites is not UNSET:
        warnings += check_prerequisites(after, view)
    if is_changed(flag, after):
        flag = next_version(after, facts)
        save.insert(0, flag)
    return Decision(
        action="flag.updated",
        entity=flag,
        save=tuple(save),
        changes=changes,
        warnings=warnings,
        project_id=flag.project_id,
    )


def _reset(config: FlagConfig, flag: Flag, facts: Facts) -> FlagConfig:
    off, fallthrough = usual_serves(flag.type, flag.variations)
    config = replace(config, off=off, fallthrough={"variation": fallthrough}, rules=(), targets=())
    return config if not config.enabled else replace(config, enabled=False, enabled_at=facts.now_ms)


def _type_change_notices(flag: Flag, after: Flag, lost: Mapping[str, FlagConfig]) -> tuple[Notice, ...]:
    """Say what a new type removed: the variations, and in each environment what hung on them."""
    keys = ", ".join(repr(variation.key) for variation in flag.variations)
    details = [f"The type is {after.type} instead of {flag.type}: the variations {keys} are gone."]
    details += [f"In {environment} {_lost(config)}." for environment, config in lost.items()]
    return tuple(Notice(code="type_changed", detail=detail) for detail in details)


def _lost(config: FlagConfig) -> str:
    units = sum(len(target.units) for target in config.targets)
    counts = {"rules": len(config.rules), "targets": units}
    parts = [f"{what} ({count})" for what, count in counts.items() if count]
    parts += [f"the {form} of the fallthrough" for form in ("split", "ramp") if form in config.fallthrough]
    removed = f"the new type removed {', '.join(parts)}" if parts else "the new type's default is served"
    return f"{removed}; the flag is switched off there" if config.enabled else removed


def checked_tags(problems: Problems, tags: Sequence[str]) -> tuple[str, ...]:
    """Return tags, each once, after noting what is wrong with them."""
    if len(tags) > MAX_TAGS:
        problems.add("tags", f"A flag has at most {MAX_TAGS} tags.")
    for index, tag in enumerate(tags):
        check_name(problems, f"tags[{index}]", tag)
    return tuple(dict.fromkeys(tags))


def check_texts(problems: Problems, flag: Flag) -> None:
    """Note what is wrong with what people read of a flag, and with its metadata."""
    check_name(problems, "name", flag.name)
    check_text(problems, "description", flag.description, limit=TEXT_CHARACTERS)
    check_text(problems, "owner", flag.owner)
    if flag.mutual_exclusion_group is not None:
        check_name(problems, "mutual_exclusion_group", flag.mutual_exclusion_group)
    for key, value in flag.metadata.items():
        if not isinstance(value, str | int | float):
            problems.add(
                f"metadata.{key}",
                "A metadata value is a text, a number, true or false: clients get it as it is.",
            )
