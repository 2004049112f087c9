"""Reads the members of a message's JSON objects, types checked; each fault is a `BadMessage` with its path.

Knows JSON and the forms of ids, epochs and hashes; knows no message.
"""

import re
from collections.abc import Mapping
from typing import Any

from relay.protocol.hashing import canonical
from relay.protocol.strict_json import BadJson, loads

MAX_DEPTH = 64
"""Deeper than any flag that an authority accepts, shallower than what a JSON writer can handle."""

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
EPOCH = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
HASH = re.compile(r"[0-9a-f]{32}", re.ASCII)

_MAX_INTEGER = (1 << 63) - 1


class BadMessage(ValueError):
    """A message is refused at `path`. `environment_id` is None where the message does not get so far as to name it."""

    def __init__(self, path: str, reason: str, environment_id: str | None = None) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.environment_id = environment_id


def load(raw: bytes, path: str, environment_id: str | None = None) -> Any:
    """Parse JSON that stands at `path` of a message.

    Raises:
        BadMessage: it is malformed.
    """
    try:
        return loads(raw, max_depth=MAX_DEPTH)
    except BadJson as error:
        raise BadMessage(path, str(error), environment_id) from None


class Fields:
    """The members of one JSON object. `path` is empty for the message itself, else ends with a dot.

    Every method raises `BadMessage` when the member is absent or of another type, unless it says otherwise.
    """

    def __init__(self, obj: Any, path: str = "", environment_id: str | None = None) -> None:
        if not isinstance(obj, dict):
            raise BadMessage(path.rstrip(".") or "message", "must be an object", environment_id)
        self._members: dict[str, Any] = obj
        self._path = path
        self.environment_id = environment_id

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def bad(self, name: str, reason: str) -> BadMessage:
        """Return the refusal of one member."""
        return BadMessage(f"{self._path}{name}", reason, self.environment_id)

    def text(self, name: str, form: re.Pattern[str] | None = None) -> str:
        """Return a string that has the form, if one is given."""
        value = self._members.get(name)
        if not isinstance(value, str):
            raise self.bad(name, "must be a string")
        if form is not None and not form.fullmatch(value):
            raise self.bad(name, "is not of the right form")
        return value

    def optional_hash(self, name: str) -> str | None:
        """Return a hash, None when absent."""
        return self.text(name, HASH) if name in self._members else None

    def integer(self, name: str) -> int:
        """Return a whole number, 0 or more."""
        value = self._members.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_INTEGER:
            raise self.bad(name, "must be a whole number, 0 or more")
        return value

    def number(self, name: str) -> float:
        """Return a finite number, 0 or more."""
        value = self._members.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MAX_INTEGER:
            raise self.bad(name, "must be a number, 0 or more")
        return float(value)

    def boolean(self, name: str) -> bool:
        """Return true or false."""
        value = self._members.get(name)
        if not isinstance(value, bool):
            raise self.bad(name, "must be true or false")
        return value

    def is_null(self, name: str) -> bool:
        """Tell whether a member is there and null."""
        return name in self._members and self._members[name] is None

    def has(self, name: str) -> bool:
        """Tell whether a member is there and not null."""
        return self._members.get(name) is not None

    def fields(self, name: str) -> "Fields":
        """Return a nested object."""
        return Fields(self._members.get(name), f"{self._path}{name}.", self.environment_id)

    def members(self, name: str) -> Mapping[str, Any]:
        """Return a nested object as it is, an empty one when absent."""
        value = self._members.get(name, {})
        if not isinstance(value, dict):
            raise self.bad(name, "must be an object")
        return value

    def items(self, name: str) -> list[Any]:
        """Return an array, an empty one when absent."""
        value = self._members.get(name, [])
        if not isinstance(value, list):
            raise self.bad(name, "must be an array")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of strings, an empty one when absent."""
        items = self.items(name)
        if not all(isinstance(item, str) for item in items):
            raise self.bad(name, "must be an array of strings")
        return tuple(items)

    def objects(self, name: str) -> dict[str, bytes]:
        """Return a map of objects as canonical bytes, an empty one when absent."""
        members = self.members(name)
        for key, obj in members.items():
            if not isinstance(obj, dict):
                raise self.bad(f"{name}.{key}", "must be an object")
        return {key: canonical(obj) for key, obj in members.items()}

    def identified(self, name: str) -> dict[str, bytes]:
        """Return an array of objects as canonical bytes by their `id`, an empty map when absent."""
        objects = {}
        for index, item in enumerate(self.items(name)):
            fields = Fields(item, f"{self._path}{name}.{index}.", self.environment_id)
            objects[fields.text("id")] = canonical(item)
        return objects

    def optional_object(self, name: str) -> bytes | None:
        """Return an object as canonical bytes, None when absent."""
        return canonical(self.members(name)) if name in self._members else None
