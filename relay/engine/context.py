"""Looks things up in an evaluation context: attributes by dotted path, and units. Total for every JSON object."""

from typing import Any

from relay.engine.model import Attribute

UNIT = "targetingKey"
"""The attribute that names whoever a flag is evaluated for."""

SMALLEST_INTEGER = -(2**63)
LARGEST_INTEGER = 2**64 - 1


def attribute(path: str) -> Attribute:
    """Prepare a path for `lookup`."""
    return Attribute(path, tuple(path.split(".")) if "." in path else ())


def lookup(context: dict[str, Any], wanted: Attribute) -> Any:
    """Return the attribute's value, None where it is missing or null. A member named by the whole path goes first."""
    if not wanted.steps or wanted.path in context:
        return context.get(wanted.path)
    value: Any = context
    for step in wanted.steps:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def unit_of(value: Any) -> str | None:
    """Return the text that stands for a unit in buckets and lists, or None for what is no unit.

    Strings stand for themselves, integers for their decimal digits. The bounds are JSON's 64 bits; they also keep the
    conversion cheap.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool) and SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        return str(value)
    return None
