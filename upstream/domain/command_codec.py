"""Commands as JSON, so that they can wait in the database: for a time, or for a review.

`encode` writes `{"command": NAME, …}` with the fields that the command sets; `decode` reads it back and refuses what
is no command of this version. Values inside (rules, serves, variations) are JSON already.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, get_args

from upstream.domain.commands import (
    Batch,
    Command,
    ConfigFields,
    NewEnvironment,
)
from upstream.domain.entities import CredentialKind, FlagKind, FlagType, JsonObject, Role
from upstream.domain.unset import (
    UNSET,
)

NAME = "command"

_KINDS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(Command)}


class UnknownCommand(ValueError):
    """This JSON is no command that this version knows."""


def encode(command: Command) -> JsonObject:
    """Return a command as JSON."""
    return {NAME: type(command).__name__, **_plain(command)}


def _plain(value: Any) -> Any:
    if isinstance(value, Batch):
        return {"commands": [encode(one) for one in value.commands]}
    if is_dataclass(value) and not isinstance(value, type):
        inner = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: _plain(one) for name, one in inner.items() if one is not UNSET}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return value


def decode(value: JsonObject) -> Command:
    """Return the command that `encode` wrote.

    Raises:
        UnknownCommand: it is none, or has fields that it should not have.
    """
    kind = _KINDS.get(str(value.get(NAME)))
    if kind is None:
        raise UnknownCommand(f"There is no command {value.get(NAME)!r} in this version.")
    given = {name: _typed(kind, name, one) for name, one in value.items() if name != NAME}
    known = {each.name for each in fields(kind)}
    required = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    if not given.keys() <= known or not required <= given.keys():
        wrong = sorted((given.keys() - known) | (required - given.keys()))
        raise UnknownCommand(f"{kind.__name__} does not have these fields here: {', '.join(wrong)}.")
    made: Command = kind(**given)
    return made


def _typed(kind: type, name: str, value: Any) -> Any:
    """Return a field's value in the type that the command has it in."""
    read = _READ.get((kind.__name__, name))
    return value if read is None or value is None else read(value)


def _configs(value: Mapping[str, Any]) -> dict[str, ConfigFields]:
    return {reference: ConfigFields(**one) for reference, one in value.items()}


# How the fields that are no plain JSON are read, by command and field.
_READ: Mapping[tuple[str, str], Callable[[Any], Any]] = {
    ("CreateFlag", "type"): FlagType,
    ("UpdateFlag", "type"): FlagType,
    ("CreateFlag", "kind"): FlagKind,
    ("UpdateFlag", "kind"): FlagKind,
    ("CreateMember", "role"): Role,
    ("UpdateMember", "role"): Role,
    ("CreateKey", "kind"): CredentialKind,
    ("UpdateConfig", "fields"): lambda value: ConfigFields(**value),
    ("CreateFlag", "config"): lambda value: ConfigFields(**value),
    ("CreateFlag", "environments"): _configs,
    ("CreateProject", "environments"): lambda value: tuple(NewEnvironment(**one) for one in value),
    ("Batch", "commands"): lambda value: tuple(decode(one) for one in value),
}
