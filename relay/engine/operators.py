"""The operators of clauses: one table from name to how arguments are read and how an attribute's value is tested.

Arguments are read once, at parse time, and the test sees the finished operand. A test answers True or False, or None
for a value that the operator cannot read (`"abc" > 3`, a malformed address); None matches neither the operator nor its
negation, like a missing attribute. Operators that look at more than one value are conditions of their own.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from relay.engine import literals, patterns
from relay.engine.model import Reach, Test

MAX_PATTERNS = 100
MAX_CONTAINED = 500
MAX_AFFIXES = 1_000
MAX_NETWORKS = 1_000
MAX_SEARCHED = 4_096
"""Characters of a text in which others are looked for."""
MAX_ELEMENTS = 1_000
"""Elements of a list that are looked at."""
MAX_COSTLY_ELEMENTS = 50
"""Those of operators whose cost grows with the number of their values."""


class BadArgument(Exception):
    """An argument cannot be used. `index` is its position, None when the list as a whole is at fault."""

    def __init__(self, index: int | None, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a clause gives to its operator."""

    values: tuple[Any, ...]
    fold_case: bool

    def check_number(self, at_most: int, what: str) -> None:
        """Refuse more values than an operator can test in time."""
        if len(self.values) > at_most:
            raise BadArgument(None, f"has {len(self.values)} {what}, at most {at_most} are allowed")

    def read(self, reader: Callable[[Any], Any], kind: str) -> tuple[Any, ...]:
        """Read every value, refusing the first for which the reader answers None."""
        operands = tuple(reader(value) for value in self.values)
        if None in operands:
            raise BadArgument(operands.index(None), f"must be {kind}")
        return operands


_LONG = Reach(MAX_ELEMENTS)
_COSTLY = Reach(MAX_COSTLY_ELEMENTS)
_SEARCHED = Reach(MAX_COSTLY_ELEMENTS, MAX_SEARCHED)
_MATCHED = Reach(MAX_COSTLY_ELEMENTS, patterns.MAX_SUBJECT_BYTES)


@dataclass(frozen=True, slots=True)
class Operator:
    """How one operator reads its arguments and tests a value. A negated one wants the test to say False.

    `reach` is how much of a list it looks at, which bounds the time that a context can take.
    """

    read: Callable[[Arguments], Any]
    test: Test
    wanted: bool = True
    reach: Reach = _LONG


@dataclass(frozen=True, slots=True)
class Scalars:
    """What an equality operator compares with. Booleans stand apart, as Python takes True for 1."""

    plain: frozenset[str | int | float]
    booleans: frozenset[bool]
    fold_case: bool


def _scalars(arguments: Arguments) -> Scalars:
    values = arguments.read(
        lambda value: value if isinstance(value, str | int | float) else None, "a string, a number or a boolean"
    )
    booleans = frozenset(value for value in values if isinstance(value, bool))
    plain = frozenset(_folded(value, arguments) for value in values if not isinstance(value, bool))
    return Scalars(plain, booleans, arguments.fold_case)


def _is_among(scalars: Scalars, value: Any) -> bool | None:
    if isinstance(value, str):
        return (value.casefold() if scalars.fold_case else value) in scalars.plain
    if isinstance(value, bool):
        return value in scalars.booleans
    return value in scalars.plain if isinstance(value, (int, float)) else None


@dataclass(frozen=True, slots=True)
class Texts:
    """What a string operator looks for."""

    texts: tuple[str, ...]
    fold_case: bool


def _texts(arguments: Arguments) -> Texts:
    texts = arguments.read(lambda value: value if isinstance(value, str) else None, "a string")
    return Texts(tuple(_folded(text, arguments) for text in texts), arguments.fold_case)


def _folded(value: Any, by: Arguments | Scalars | Texts) -> Any:
    return value.casefold() if by.fold_case and isinstance(value, str) else value


def _contains(wanted: Texts, value: Any) -> bool | None:
    if not isinstance(value, str):
        return None
    subject = _folded(value[:MAX_SEARCHED], wanted)
    if any(text in subject for text in wanted.texts):
        return True
    # Nobody has seen the rest, so the negated operator does not hold either.
    return None if len(value) > MAX_SEARCHED else False


def _starts_with(wanted: Texts, value: Any) -> bool | None:
    return _folded(value, wanted).startswith(wanted.texts) if isinstance(value, str) else None


def _ends_with(wanted: Texts, value: Any) -> bool | None:
    return _folded(value, wanted).endswith(wanted.texts) if isinstance(value, str) else None


def _contained(arguments: Arguments) -> Texts:
    arguments.check_number(MAX_CONTAINED, "texts")
    return _texts(arguments)


def _affixes(arguments: Arguments) -> Texts:
    arguments.check_number(MAX_AFFIXES, "texts")
    return _texts(arguments)


def _pattern(arguments: Arguments) -> Any:
    """Read all patterns into one; None if there is none."""
    arguments.check_number(MAX_PATTERNS, "patterns")
    texts = _texts(replace(arguments, fold_case=False)).texts
    for index, text in enumerate(texts):
        try:
            only = patterns.compile_pattern(text, fold_case=arguments.fold_case)
        except ValueError as error:
            raise BadArgument(index, str(error)) from error
    if len(texts) <= 1:
        return only if texts else None
    try:
        return patterns.join_patterns(texts, fold_case=arguments.fold_case)
    except ValueError as error:
        raise BadArgument(None, f"cannot be searched together: {error}") from error


def _matches(pattern: Any, value: Any) -> bool | None:
    if not isinstance(value, str):
        return None
    return pattern is not None and patterns.found(pattern, patterns.subject_of(value))


def _numbers(arguments: Arguments) -> tuple[Any, ...]:
    return arguments.read(literals.number, "a number")


def _versions(arguments: Arguments) -> tuple[Any, ...]:
    return arguments.read(literals.version, "a semantic version")


def _moments(arguments: Arguments) -> tuple[Any, ...]:
    return arguments.read(literals.moment_ms, "an RFC 3339 time or epoch milliseconds")


def _compared(read: Callable[[Any], Any], holds: Callable[[Any, Any], bool], bound: Any, value: Any) -> bool | None:
    known = read(value)
    return None if known is None else bound is not None and holds(known, bound)


_DECISIVE: Mapping[Any, Callable[[Any], Any]] = {operator.gt: min, operator.ge: min, operator.lt: max, operator.le: max}
"""Which of several bounds decides whether any of them is kept."""


def _ordered(
    operands: Callable[[Arguments], tuple[Any, ...]], read: Callable[[Any], Any], holds: Callable[[Any, Any], bool]
) -> Operator:
    """Make an operator that compares with one bound, None if there is none."""

    def bound(arguments: Arguments) -> Any:
        found = operands(arguments)
        return _DECISIVE[holds](found) if found else None

    return Operator(bound, partial(_compared, read, holds))


def _by_number(holds: Callable[[Any, Any], bool]) -> Operator:
    return _ordered(_numbers, literals.number, holds)


def _by_version(holds: Callable[[Any, Any], bool]) -> Operator:
    return _ordered(_versions, literals.version, holds)


def _by_moment(holds: Callable[[Any, Any], bool]) -> Operator:
    return _ordered(_moments, literals.moment_ms, holds)


def _is_version(versions: frozenset[literals.Version], value: Any) -> bool | None:
    known = literals.version(value)
    return None if known is None else known in versions


def _range(arguments: Arguments) -> tuple[Any, ...]:
    bounds = _numbers(arguments)
    if len(bounds) != 2 or bounds[0] > bounds[1]:  # noqa: PLR2004 - a range has two ends
        raise BadArgument(None, "must be two numbers, the lower one first")
    return bounds


def _is_between(bounds: tuple[Any, ...], value: Any) -> bool | None:
    known = literals.number(value)
    return None if known is None else bounds[0] <= known <= bounds[1]


def _networks(arguments: Arguments) -> tuple[Any, ...]:
    arguments.check_number(MAX_NETWORKS, "networks")
    return arguments.read(literals.network, "an IP network such as 10.0.0.0/8")


def _is_in_network(networks: tuple[literals.Network, ...], value: Any) -> bool | None:
    known = literals.address(value)
    if known is None:
        return None
    version, number = known
    return any(version == of and number & mask == start for of, start, mask in networks)


OPERATORS: Mapping[str, Operator] = {
    "equals": Operator(_scalars, _is_among),
    "not_equals": Operator(_scalars, _is_among, wanted=False),
    "in": Operator(_scalars, _is_among),
    "not_in": Operator(_scalars, _is_among, wanted=False),
    "contains": Operator(_contained, _contains, reach=_SEARCHED),
    "not_contains": Operator(_contained, _contains, wanted=False, reach=_SEARCHED),
    "starts_with": Operator(_affixes, _starts_with, reach=_COSTLY),
    "not_starts_with": Operator(_affixes, _starts_with, wanted=False, reach=_COSTLY),
    "ends_with": Operator(_affixes, _ends_with, reach=_COSTLY),
    "not_ends_with": Operator(_affixes, _ends_with, wanted=False, reach=_COSTLY),
    "matches": Operator(_pattern, _matches, reach=_MATCHED),
    "gt": _by_number(operator.gt),
    "gte": _by_number(operator.ge),
    "lt": _by_number(operator.lt),
    "lte": _by_number(operator.le),
    "between": Operator(_range, _is_between),
    "semver_eq": Operator(lambda arguments: frozenset(_versions(arguments)), _is_version),
    "semver_gt": _by_version(operator.gt),
    "semver_gte": _by_version(operator.ge),
    "semver_lt": _by_version(operator.lt),
    "semver_lte": _by_version(operator.le),
    "before": _by_moment(operator.lt),
    "after": _by_moment(operator.gt),
    "in_cidr": Operator(_networks, _is_in_network, reach=_COSTLY),
    "not_in_cidr": Operator(_networks, _is_in_network, wanted=False, reach=_COSTLY),
}

# Read by `relay.engine.conditions`: they look at more than one value, or at none.
CONDITION_OPERATORS = frozenset({"exists", "not_exists", "in_segment", "not_in_segment", "percentage_of"})

ALIASES: Mapping[str, str] = {
    "eq": "equals",
    "neq": "not_equals",
    "nin": "not_in",
    "notIn": "not_in",
    "startsWith": "starts_with",
    "endsWith": "ends_with",
    "regex": "matches",
    "matches_regex": "matches",
    "before_date": "before",
    "after_date": "after",
}
"""Other names that are accepted where rules are written. Configuration holds only the canonical ones."""


def canonical(name: str) -> str | None:
    """Return the operator that a name or alias stands for, None for an unknown one."""
    name = ALIASES.get(name, name)
    return name if name in OPERATORS or name in CONDITION_OPERATORS else None
