"""Reads a settings tree from a TOML file, environment variables and the command line, in rising precedence.

Owns the rules that both services share: every problem is reported at once under the name by which the operator set
the value (TOML path, variable or flag), unknown names are errors that show the nearest known one, a secret may come
from the file that its `…_file` twin names, and no problem ever shows a secret. Pydantic checks the values; its own
settings package is not used because it stops at the first variable it cannot decode and forgets where values came from.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from relay.errors import BadSettings

SERVICES = ("relay", "upstream")
MAX_FILE_BYTES = 1_048_576
# Kubernetes puts HALYARD_RELAY_PORT=tcp://… and the like into every pod beside a Service called halyard-relay, and
# HALYARD_RELAY_EU_PORT beside halyard-relay-eu. A setting's name has two underscores, but a mistyped one may have one.
SERVICE_LINK = re.compile(
    r"(?:[A-Z0-9]+_)*?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP)(?:_(?:PROTO|PORT|ADDR))?)"
)
SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://.*")


class Group(BaseModel):
    """One table of settings. Immutable; a name that it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, validate_default=True
    )


T = TypeVar("T", bound=Group)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, as generated documentation shows it."""

    path: str
    env: str
    field: FieldInfo
    group: type[Group]

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be shown."""
        return SecretStr in (self.field.annotation, *get_args(self.field.annotation))

    @property
    def is_list(self) -> bool:
        """Whether a variable holds several values, separated by commas."""
        return get_origin(self.field.annotation) is tuple


@dataclass(frozen=True, slots=True)
class Source:
    """Where one reading takes its values from.

    Args:
        file: TOML file with the tables of either service or of both.
        environ: environment variables.
        overrides: TOML path -> (flag, value) of the command line.
    """

    file: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, tuple[str, Any]] = field(default_factory=dict)


def options(tree: type[Group], service: str) -> Iterator[Option]:
    """Yield every setting of a tree in the order of declaration, those of a table before the tables within it."""
    yield from _options(tree, (service,))


def _options(group: type[Group], parents: tuple[str, ...]) -> Iterator[Option]:
    within: list[tuple[type[Group], tuple[str, ...]]] = []
    for name, info in group.model_fields.items():
        path = (*parents, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
            within.append((info.annotation, path))
        else:
            env = f"HALYARD_{path[0]}_{'__'.join(path[1:])}".upper()
            yield Option(".".join(path), env, info, group)
    for table, path in within:
        yield from _options(table, path)


def read(tree: type[T], service: str, source: Source) -> T:
    """Return the settings of one service.

    Raises:
        BadSettings: with every problem found in the file, the variables and the flags.
    """
    reading = _Reading({option.path: option for option in options(tree, service)}, service)
    reading.take_file(source.file)
    reading.take_environ(source.environ)
    reading.take_overrides(source.overrides)
    reading.take_secret_files()
    settings = reading.validate(tree)
    if settings is None or reading.problems:
        raise BadSettings(reading.problems)
    return settings


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a value was set: TOML path (0), variable (1) or flag (2)."""

    precedence: int
    name: str


class _Reading:
    """The values found so far, where they were set, and what is wrong with them."""

    def __init__(self, known: Mapping[str, Option], service: str) -> None:
        self._known = known
        self._service = service
        self._values: dict[str, Any] = {}
        self._origins: dict[str, _Origin] = {}
        self.problems: list[str] = []

    def take_file(self, path: Path | None) -> None:
        if path is None:
            return
        try:
            document = tomllib.loads(_text(path))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self.problems.append(f"{path}: cannot be read: {_reason(error)}")
            return
        for name in document:
            if name not in SERVICES:
                self.problems.append(f"{name}: unknown table in {path}; {_nearest(name, SERVICES)}")
        table = document.get(self._service, {})
        if isinstance(table, dict):
            self._values = table
        else:
            self.problems.append(f"{self._service}: must be a table")

    def take_environ(self, environ: Mapping[str, str]) -> None:
        prefix = f"HALYARD_{self._service}_".upper()
        by_env = {option.env: option for option in self._known.values()}
        for name in sorted(environ):
            if not name.startswith(prefix) or _is_service_link(name.removeprefix(prefix), environ[name]):
                continue
            if name in by_env:
                self._set(by_env[name], _Origin(1, name), _decode(by_env[name], environ[name]))
            else:
                self.problems.append(f"{name}: unknown variable; {_nearest(name, by_env)}")

    def take_overrides(self, overrides: Mapping[str, tuple[str, Any]]) -> None:
        for path, (flag, value) in overrides.items():
            self._set(self._known[path], _Origin(2, flag), value)

    def take_secret_files(self) -> None:
        """Give each secret what its `…_file` holds. Of the two, the one set at the higher precedence counts."""
        for path, secret in self._known.items():
            twin = self._known.get(f"{path}_file")
            if not secret.is_secret or twin is None or self._get(twin) is None:
                continue
            ours, theirs = self._origin(path), self._origin(twin.path)
            if self._get(secret) is None or theirs.precedence > ours.precedence:
                self._set(secret, theirs, self._secret_text(twin))
            elif theirs.precedence < ours.precedence:
                self._set(twin, ours, None)
            else:
                self.problems.append(f"{ours.name}: set either this or {theirs.name}, not both")

    def _secret_text(self, twin: Option) -> str | None:
        path = Path(str(self._get(twin)))
        try:
            return _text(path).strip()
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{self._origin(twin.path).name}: {path} cannot be read: {_reason(error)}")
            return None

    def validate(self, tree: type[T]) -> T | None:
        try:
            return tree.model_validate(self._values)
        except ValidationError as error:
            self.problems.extend(self._sentence(details) for details in error.errors(include_url=False))
            return None

    def _set(self, option: Option, origin: _Origin, value: Any) -> None:
        *groups, name = option.path.split(".")[1:]
        table = self._values
        for group in groups:
            table = table.setdefault(group, {})
            if not isinstance(table, dict):
                return  # validation reports the value that stands where a table belongs
        table[name] = value
        self._origins[option.path] = origin

    def _get(self, option: Option) -> Any:
        value: Any = self._values
        for name in option.path.split(".")[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _origin(self, path: str) -> _Origin:
        return self._origins.get(path, _Origin(0, path))

    def _sentence(self, details: ErrorDetails) -> str:
        path = ".".join((self._service, *(str(part) for part in details["loc"] if isinstance(part, str))))
        if details["type"] == "extra_forbidden":
            siblings = [known for known in self._known if known.count(".") == path.count(".")]
            return f"{path}: unknown setting; {_nearest(path, [*siblings, *self._known])}"
        if details["type"] == "model_type":
            return f"{path}: must be a table"
        message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        option = self._known.get(path)
        shown = "" if option is None or option.is_secret else f", not {details['input']!r}"
        return f"{self._origin(path).name}: {message[0].lower()}{message[1:]}{shown}"


def _decode(option: Option, text: str) -> Any:
    """Read a variable: a list is separated by commas, nothing at all is `not set`."""
    if option.is_list:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text or option.field.default


def _text(path: Path) -> str:
    """Read a settings or secret file, refusing one that cannot be meant."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise OSError(f"is larger than {MAX_FILE_BYTES} bytes")
    return raw.decode()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "see config.example.toml for every setting"


def _is_service_link(name: str, value: str) -> bool:
    return bool(SERVICE_LINK.fullmatch(name) or (name.endswith("PORT") and SERVICE_ADDRESS.fullmatch(value)))
