"""Decides what a flag does in one environment: enabled, serves, rules, targets, kills.

A config that names raw values may add variations to its flag, which then changes in every environment. Nothing is
stored that the engine's parser would refuse.
"""

from dataclasses import replace
from typing import Protocol

import orjson

from relay.engine.parse import InvalidConfig, parse_flag
from relay.protocol.hashing import canonical
from upstream.domain.commands import (
    ConfigFields,
    KillFlag,
    ToggleFlag,
    UpdateConfig,
)
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
from upstream.domain.merging import CONFIG_FIELDS, check_start, merged
from upstream.domain.serving import Reader
from upstream.domain.snapshot import flag_object
from upstream.domain.unset import (
    UNSET,
)
from upstream.domain.values import Values

KILL_SUPERSEDED = "flag.kill_superseded"
"""What the audit log calls a kill that came too late."""
INVALID = "The flag's configuration cannot be used as it is."
_SALT_BYTES = 8


class OfConfig(Protocol):
    """A command that changes a flag in one environment."""

    @property
    def project(self) -> str:
        """Id or key of the project."""

    @property
    def flag(self) -> str:
        """Id or key of the flag."""

    @property
    def environment(self) -> str:
        """Id or key of the environment."""

    @property
    def if_match(self) -> int | None:
        """The version of the config that the caller saw."""


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


class ConfigEdit:
    """One change of a flag in one environment: what it is about, and how its values, serves and rules are read.

    Raises:
        Rejected: there is no such thing, the flag is archived, or the caller saw another version.
    """

    def __init__(self, command: OfConfig, view: View, facts: Facts) -> None:
        project = project_of(view, facts, command.project)
        self.environment = environment_of(view, project, command.environment)
        self.flag = live_flag_of(view, project, command.flag)
        self.config = config_of(view, self.flag, self.environment)
        check_version(self.config, command.if_match)
        self.problems = Problems()
        self.values = Values(self.flag.type, self.flag.variations, self.problems, self.flag.number_format)
        self.reader = Reader(self.values, self.problems, facts)
        self._view = view
        self._facts = facts

    def decided(self, after: FlagConfig) -> Decision:
        """Return what the change comes to.

        Raises:
            Rejected: INVALID with everything that was noted, or that a relay would refuse.
        """
        self.problems.check(INVALID)
        grown = replace(self.flag, variations=self.values.variations)
        verify(self.problems, grown, after)
        self.problems.check(INVALID)
        is_about_rules = after.rules is not self.config.rules
        warnings = missing_segments(self._view, self.flag.project_id, after) if is_about_rules else ()
        return decided_config(self.flag, grown, self.config, after, self._facts, warnings=warnings)


def update_config(command: UpdateConfig, view: View, facts: Facts) -> Decision:
    """Change a flag in one environment."""
    check_start(command)
    edit = ConfigEdit(command, view, facts)
    after = applied(edit.config, command.fields, edit.reader, edit.values, facts, "")
    edit.problems.check(INVALID)
    after = merged(view, command.base_version, edit.config, after, CONFIG_FIELDS, edit.environment.id)
    if after.enabled == edit.config.enabled:
        after = replace(after, enabled_at=edit.config.enabled_at)
    return edit.decided(after)


def toggle_flag(command: ToggleFlag, view: View, facts: Facts) -> Decision:
    """Switch a flag on or off in one environment."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    flag = live_flag_of(view, project, command.flag)
    config = config_of(view, flag, environment)
    check_version(config, command.if_match)
    enabled = not config.enabled if command.enabled is None else command.enabled
    after = config if enabled == config.enabled else replace(config, enabled=enabled, enabled_at=facts.now_ms)
    return replace(decided_config(flag, flag, config, after, facts), reason=command.reason)


def kill_flag(command: KillFlag, view: View, facts: Facts) -> Decision:
    """Switch a flag off at once; a kill from the edge yields to a newer deliberate change of `enabled`."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    flag = flag_of(view, project, command.flag)
    config = config_of(view, flag, environment)
    is_superseded = config.enabled and command.edge_at is not None and command.edge_at < config.enabled_at
    after = config if is_superseded or not config.enabled else replace(config, enabled=False, enabled_at=facts.now_ms)
    decision = decided_config(flag, flag, config, after, facts)
    notice = Notice(code="kill_superseded", detail=f"{flag.key!r} was switched on after this kill; it stays on.")
    return replace(
        decision,
        action=KILL_SUPERSEDED if is_superseded else "flag.killed",
        warnings=(notice,) if is_superseded else (),
        reason=command.reason,
        edge_at=command.edge_at,
        is_event=True,
    )


def config_of(view: View, flag: Flag, environment: Environment) -> FlagConfig:
    """Return a flag's config in an environment of its project."""
    config = view.config(flag.id, environment.id)
    if config is None:
        raise not_found("flag", flag.key)
    return config


def decided_config(  # noqa: PLR0913 - each of them is needed
    flag: Flag,
    grown: Flag,
    config: FlagConfig,
    after: FlagConfig,
    facts: Facts,
    *,
    warnings: tuple[Notice, ...] = (),
) -> Decision:
    """Return the decision that takes a flag to `grown` and its config to `after`, of which the latter is the entity."""
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
