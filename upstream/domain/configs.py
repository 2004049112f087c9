"""Decides what a flag does in one environment: enabled, serves, rules, targets, kills.

A config that names raw values may add variations to its flag, which then changes in every environment. Nothing is
stored that the engine's parser would refuse.
"""

from dataclasses import replace

import orjson

from relay.engine.parse import InvalidConfig, parse_flag
from relay.protocol.hashing import canonical
from upstream.domain.commands import UNSET, ConfigFields, KillFlag, ToggleFlag, UpdateConfig
from upstream.domain.conditions import segments_in, sentence
from upstream.domain.diff import changes_between
from upstream.domain.entities import Entity, Environment, Flag, FlagConfig, FlagType, Variation
from upstream.domain.errors import Problems, not_found
from upstream.domain.facts import Decision, Facts, Notice, View
from upstream.domain.lookup import (
    check_version,
    environment_of,
    flag_of,
    is_changed,
    live_flag_of,
    next_version,
    project_of,
)
from upstream.domain.serving import Reader
from upstream.domain.snapshot import flag_object
from upstream.domain.values import Values

KILL_SUPERSEDED = "flag.kill_superseded"
"""What the audit log calls a kill that came too late."""
INVALID = "The flag's configuration cannot be used as it is."
_SALT_BYTES = 8


def fresh_config(flag: Flag, environment: Environment, facts: Facts) -> FlagConfig:
    """Return the config that a flag starts with: disabled, the type's usual serves, a salt of its own."""
    off, fallthrough = usual_serves(flag.type, flag.variations)
    return FlagConfig(
        flag_id=flag.id,
        environment_id=environment.id,
        enabled=False,
        enabled_at=facts.now_ms,
        off=off,
        fallthrough={"variation": fallthrough},
        rules=(),
        targets=(),
        salt=facts.entropy.token(_SALT_BYTES).hex(),
        version=1,
        updated_at=facts.now_ms,
    )


def usual_serves(flag_type: FlagType, variations: tuple[Variation, ...]) -> tuple[str, str]:
    """Return the variations that serve when off and when on: false and true for booleans, else the first for both."""
    first = variations[0].key if variations else ""
    if flag_type is not FlagType.BOOLEAN:
        return first, first
    by_value = {variation.value: variation.key for variation in reversed(variations)}
    return by_value.get(False, first), by_value.get(True, first)


def applied(  # noqa: PLR0913, PLR0917 - each of them is needed
    config: FlagConfig,
    fields: ConfigFields,
    reader: Reader,
    values: Values,
    facts: Facts,
    path: str,
) -> FlagConfig:
    """Return the config with the named fields in place; the version stays."""
    if fields.enabled is not UNSET and fields.enabled != config.enabled:
        config = replace(config, enabled=fields.enabled, enabled_at=facts.now_ms)
    if fields.off is not UNSET:
        config = replace(config, off=None if fields.off is None else values.named(f"{path}off", fields.off))
    if fields.off_value is not UNSET:
        config = replace(config, off=values.with_value(f"{path}off_value", fields.off_value))
    if fields.fallthrough is not UNSET:
        config = replace(config, fallthrough=reader.serve(f"{path}fallthrough", fields.fallthrough))
    if fields.rules is not UNSET:
        config = replace(config, rules=reader.rules(f"{path}rules", fields.rules))
    if fields.targets is not UNSET:
        config = replace(config, targets=reader.targets(f"{path}targets", fields.targets))
    return config


def verify(problems: Problems, flag: Flag, config: FlagConfig, path: str = "") -> None:
    """Note what a relay would refuse of the flag in this environment; inactive rules are read as well."""
    every_rule = tuple(replace(rule, is_active=True) for rule in config.rules)
    published = flag_object(replace(flag, archived_at=None, deleted_at=None), replace(config, rules=every_rule), 1)
    try:
        parse_flag(flag.key, orjson.loads(canonical(published)))
    except InvalidConfig as invalid:
        problems.add(path + invalid.path.removeprefix(f"flags.{flag.key}").lstrip("."), sentence(invalid.reason))


def missing_segments(view: View, project_id: str, *configs: FlagConfig) -> tuple[Notice, ...]:
    """Return a warning for each segment that rules name and nobody has made."""
    named = {key for config in configs for rule in config.rules for key in segments_in(rule.when)}
    if not named:
        return ()
    unknown = sorted(named - {segment.key for segment in view.segments(project_id)})
    text = "There is no segment {!r} yet; rules that name it are skipped until there is."
    return tuple(Notice(code="missing_segment", detail=text.format(key)) for key in unknown)


def update_config(command: UpdateConfig, view: View, facts: Facts) -> Decision:
    """Change a flag in one environment."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    flag = live_flag_of(view, project, command.flag)
    config = _config_of(view, flag, environment)
    check_version(config, command.if_match)
    problems = Problems()
    values = Values(flag.type, flag.variations, problems, flag.number_format)
    after = applied(config, command.fields, Reader(values, problems, facts), values, facts, "")
    problems.check(INVALID)
    grown = replace(flag, variations=values.variations)
    verify(problems, grown, after)
    problems.check(INVALID)
    warnings = missing_segments(view, project.id, after) if command.fields.rules is not UNSET else ()
    return _decided(flag, grown, config, after, facts, warnings=warnings)


def toggle_flag(command: ToggleFlag, view: View, facts: Facts) -> Decision:
    """Switch a flag on or off in one environment."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    flag = live_flag_of(view, project, command.flag)
    config = _config_of(view, flag, environment)
    check_version(config, command.if_match)
    enabled = not config.enabled if command.enabled is None else command.enabled
    after = config if enabled == config.enabled else replace(config, enabled=enabled, enabled_at=facts.now_ms)
    return replace(_decided(flag, flag, config, after, facts), reason=command.reason)


def kill_flag(command: KillFlag, view: View, facts: Facts) -> Decision:
    """Switch a flag off at once; a kill from the edge yields to a newer deliberate change of `enabled`."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    flag = flag_of(view, project, command.flag)
    config = _config_of(view, flag, environment)
    is_superseded = config.enabled and command.edge_at is not None and command.edge_at < config.enabled_at
    after = config if is_superseded or not config.enabled else replace(config, enabled=False, enabled_at=facts.now_ms)
    decision = _decided(flag, flag, config, after, facts)
    notice = Notice(code="kill_superseded", detail=f"{flag.key!r} was switched on after this kill; it stays on.")
    return replace(
        decision,
        action=KILL_SUPERSEDED if is_superseded else "flag.killed",
        warnings=(notice,) if is_superseded else (),
        reason=command.reason,
        edge_at=command.edge_at,
        is_event=True,
    )


def _config_of(view: View, flag: Flag, environment: Environment) -> FlagConfig:
    config = view.config(flag.id, environment.id)
    if config is None:
        raise not_found("flag", flag.key)
    return config


def _decided(  # noqa: PLR0913 - each of them is needed
    flag: Flag,
    grown: Flag,
    config: FlagConfig,
    after: FlagConfig,
    facts: Facts,
    *,
    warnings: tuple[Notice, ...] = (),
) -> Decision:
    save: list[Entity] = []
    changes = changes_between(config, after) + changes_between(flag, grown)
    if is_changed(flag, grown):
        flag = next_version(grown, facts)
        save.append(flag)
    if is_changed(config, after):
        config = next_version(after, facts)
        save.append(config)
    is_toggle = [change.path for change in changes] == ["enabled"]
    return Decision(
        action="flag.toggled" if is_toggle else "flag.updated",
        entity=config,
        target=flag,
        save=tuple(save),
        changes=changes,
        warnings=warnings,
        project_id=flag.project_id,
        environment_id=config.environment_id,
    )
