"""Flags of an import: what an entry of the document makes of a flag and of its config in each environment.

Reads one flag at a time, noting every problem under its key. What hangs between flags is looked at in `importing`,
when all of them are known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from upstream.domain.commands import (
    ConfigFields,
)
from upstream.domain.configs import applied, fresh_config, usual_serves, verify
from upstream.domain.entities import Environment, Flag, FlagConfig, FlagKind, FlagType, JsonObject
from upstream.domain.errors import Problems
from upstream.domain.facts import Facts
from upstream.domain.flags import check_texts, checked_tags
from upstream.domain.prerequisites import given_prerequisites
from upstream.domain.serving import Reader
from upstream.domain.transfer import FLAG_FIELDS
from upstream.domain.unset import (
    UNSET,
)
from upstream.domain.values import BOOLEAN_VARIATIONS, DEFAULTS, Values, check_number_format, given_variations

_PLAIN: Final = frozenset(FLAG_FIELDS) - {"type", "kind", "tags", "number_format"} | {"expires_at"}
_CONFIG_NAMES: Final = frozenset(field.name for field in fields(ConfigFields))


@dataclass(frozen=True, slots=True)
class Imported:
    """A flag as the document wants it; the versions are those that are stored (1 for what is new)."""

    flag: Flag
    configs: Mapping[str, FlagConfig]


@dataclass(frozen=True, slots=True)
class FlagReader:
    """Reads the flags of a document. `environments` are those that the project will have, by key."""

    project_id: str
    environments: Mapping[str, Environment]
    facts: Facts
    may_change_types: bool

    def read(
        self, entry: JsonObject, before: Flag | None, configs: Mapping[str, FlagConfig], problems: Problems
    ) -> Imported:
        """Return what an entry makes of the flag that is there (None: of a new one)."""
        flag = self._new(entry) if before is None else before
        plain = {name: entry[name] for name in _PLAIN & entry.keys()}
        flag = replace(flag, **plain, kind=FlagKind(entry.get("kind", flag.kind)))
        flag = self._archived(flag, entry.get("archived"))
        if "tags" in entry:
            flag = replace(flag, tags=checked_tags(problems, entry["tags"]))
        if "prerequisites" in entry:
            given = given_prerequisites(problems, entry["prerequisites"], flag.key)
            flag = replace(flag, prerequisites=given)
        check_texts(problems, flag)
        values = self._values(entry, flag, is_new=before is None, problems=problems)
        flag = replace(flag, type=values.type, number_format=values.number_format, variations=values.variations)
        is_reset = before is not None and before.type is not flag.type
        known = {key: self._reset(each, flag) for key, each in configs.items()} if is_reset else configs
        wanted = self._configs(entry, flag, values, known, problems)
        flag = replace(flag, variations=values.variations)
        # What was noted already would be said once more, in other words.
        for environment in self.environments.values() if problems.is_clean else ():
            verify(problems, flag, wanted[environment.id], path=f"configs.{environment.key}.")
        return Imported(flag, wanted)

    def _new(self, entry: JsonObject) -> Flag:
        return Flag(
            id=self.facts.new_id(),
            project_id=self.project_id,
            key=entry["key"],
            name=entry["key"],
            description=None,
            type=FlagType.BOOLEAN,
            kind=FlagKind.RELEASE,
            tags=(),
            metadata={},
            is_active=True,
            client_side_enabled=True,
            analytics_enabled=True,
            prerequisites=(),
            mutual_exclusion_group=None,
            variations=(),
            owner=None,
            expires_at=None,
            archived_at=None,
            deleted_at=None,
            version=1,
            created_at=self.facts.now_ms,
            updated_at=self.facts.now_ms,
        )

    def _archived(self, flag: Flag, wanted: bool | None) -> Flag:  # noqa: FBT001 - the document's own word
        if wanted is None or wanted == (flag.archived_at is not None):
            return flag
        return replace(flag, archived_at=self.facts.now_ms if wanted else None)

    def _values(self, entry: JsonObject, flag: Flag, *, is_new: bool, problems: Problems) -> Values:
        flag_type = FlagType(entry.get("type", flag.type))
        is_retyped = not is_new and flag_type is not flag.type
        if is_retyped and not self.may_change_types:
            sentence = f"The flag is of the type {flag.type} here; confirm_type_change says that it may be replaced."
            problems.add("type", sentence)
        declared = entry.get("number_format", None if is_new or is_retyped else flag.number_format)
        check_number_format(problems, flag_type, declared, ())
        if "variations" in entry:
            return given_variations(problems, flag_type, entry["variations"], declared)
        if not is_new and not is_retyped:
            check_number_format(problems, flag_type, declared, flag.variations)
            return Values(flag_type, flag.variations, problems, declared)
        if flag_type is FlagType.BOOLEAN:
            return Values(flag_type, BOOLEAN_VARIATIONS, problems)
        values = Values(flag_type, (), problems, declared)
        values.add("variations", value=DEFAULTS[flag_type], key="default")
        return values

    def _configs(
        self,
        entry: JsonObject,
        flag: Flag,
        values: Values,
        known: Mapping[str, FlagConfig],
        problems: Problems,
    ) -> dict[str, FlagConfig]:
        given: Mapping[str, JsonObject] = entry.get("configs", {})
        for key in given.keys() - self.environments.keys():
            problems.add(f"configs.{key}", "There is no such environment, neither here nor in the document.")
        reader = Reader(values, problems, self.facts)
        found: dict[str, FlagConfig] = {}
        for key, environment in self.environments.items():
            config = known.get(environment.id)
            if config is None:
                config = fresh_config(flag, environment, self.facts)
            found[environment.id] = self._config(given.get(key, {}), config, reader, values, f"configs.{key}.")
        return found

    def _reset(self, config: FlagConfig, flag: Flag) -> FlagConfig:
        """Return a config without anything that belonged to the flag's former type."""
        off, fallthrough = usual_serves(flag.type, flag.variations)
        config = replace(config, off=off, fallthrough={"variation": fallthrough}, rules=(), targets=())
        return replace(config, enabled=False, enabled_at=self.facts.now_ms) if config.enabled else config

    def _config(self, entry: JsonObject, config: FlagConfig, reader: Reader, values: Values, path: str) -> FlagConfig:
        named: dict[str, Any] = {name: entry.get(name, UNSET) for name in _CONFIG_NAMES}
        config = applied(config, ConfigFields(**named), reader, values, self.facts, path)
        return replace(config, salt=entry["salt"]) if "salt" in entry else config
