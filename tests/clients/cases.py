"""What every client is asked, and the form in which its driver answers; knows no client.

A driver takes cases and returns one outcome for each, in order. The outcome is what the client's own API gave its
caller: nothing is looked up on the wire.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Type(StrEnum):
    """Which typed method of the OpenFeature client is called."""

    BOOLEAN = "boolean"
    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Case:
    """One resolution: the flag, the method, the code default, and the context (None = none was ever set).

    `dates` are attributes of the context, written as RFC 3339, that the driver hands over as its language's own date.
    """

    name: str
    flag: str
    type: Type
    default: Any
    context: Mapping[str, Any] | None = field(default_factory=lambda: {"targetingKey": "user-1"})
    dates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller got: `value` always; the rest as the client reports it, None where it reports nothing."""

    value: Any
    variant: str | None
    reason: str | None
    error_code: str | None
    metadata: Mapping[str, Any]
