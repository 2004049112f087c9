"""A JSON value together with the path by which it was reached, so that a refusal names the very place.

Owns the reading of members with their types; knows nothing about flags. Paths are built only when something is refused.
Members that nobody asks for are never looked at: unknown fields are ignored.
"""

from collections.abc import Iterator
from typing import Any


class InvalidConfig(Exception):
    """A flag or segment cannot be used. `path` names the place, such as `flags.checkout.rules[2].when.values[0]`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Node:
    """One value inside a configuration object."""

    __slots__ = ("_name", "_parent", "value")

    def __init__(self, value: Any, name: str, parent: "Node | None" = None) -> None:
        self.value = value
        self._name = name
        self._parent = parent

    @property
    def path(self) -> str:
        """Where this value stands."""
        return self._name if self._parent is None else self._parent.path + self._name

    def refused(self, reason: str) -> InvalidConfig:
        """Return the error to raise about this value."""
        return InvalidConfig(self.path, reason)

    def find(self, name: str) -> "Node | None":
        """Return the member of an object, or None where it is absent or null."""
        value = self.members().get(name)
        return None if value is None else Node(value, f".{name}", self)

    def member(self, name: str) -> "Node":
        """Return a member that must be there."""
        found = self.find(name)
        if found is None:
            raise self.refused(f"has no {name!r}")
        return found

    def members(self) -> dict[str, Any]:
        """Return the bare members of an object."""
        if not isinstance(self.value, dict):
            raise self.refused("must be an object")
        return self.value

    def entries(self) -> Iterator[tuple[str, "Node"]]:
        """Yield the members of an object."""
        for name, value in self.members().items():
            yield name, Node(value, f".{name}", self)

    def choice(self, *names: str) -> "tuple[str, Node]":
        """Return the one member of several, of which exactly one must be there."""
        members = self.members()
        found = [name for name in names if members.get(name) is not None]
        if len(found) != 1:
            raise self.refused(f"must have exactly one of {', '.join(names)}")
        return found[0], self.member(found[0])

    def elements(self, at_most: int | None = None) -> list[Any]:
        """Return the bare elements of a list; where there may be thousands, `at` makes a node of the one at fault."""
        if not isinstance(self.value, list):
            raise self.refused("must be a list")
        if at_most is not None and len(self.value) > at_most:
            raise self.refused(f"has {len(self.value)} elements, at most {at_most} are allowed")
        return self.value

    def items(self, at_most: int | None = None) -> "list[Node]":
        """Return the elements of a list."""
        return [self.at(index) for index in range(len(self.elements(at_most)))]

    def at(self, index: int) -> "Node":
        """Return one element of a list."""
        return Node(self.value[index], f"[{index}]", self)

    def text(self) -> str:
        """Return a string that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.refused("must be a string that is not empty")
        return self.value

    def boolean(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            raise self.refused("must be true or false")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """Return a whole number within bounds."""
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refused(f"must be a whole number from {low} to {high}")
        return value
