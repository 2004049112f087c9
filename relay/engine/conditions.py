"""Reads conditions: from JSON to the finished tree, and what must be known to decide it."""

from collections.abc import Iterator

from relay.engine.bucketing import BUCKETS
from relay.engine.context import attribute
from relay.engine.model import (
    All,
    AnyOf,
    Clause,
    Condition,
    Exists,
    InSegment,
    Needs,
    Not,
    PercentageOf,
    UnknownOperator,
)
from relay.engine.node import Node
from relay.engine.operators import OPERATORS, Arguments, BadArgument

MAX_DEPTH = 10
"""Conditions inside conditions; a change set that holds one this deep still keeps to 32 levels of JSON."""
MAX_VALUES = 10_000


def parse_condition(node: Node, salt: str, depth: int = 1) -> Condition:
    """Read a condition. `salt` is what `percentage_of` buckets with.

    Raises:
        InvalidConfig: it has no known form, is nested too deeply, or an argument cannot be used.
    """
    if depth > MAX_DEPTH:
        raise node.refused(f"is nested deeper than {MAX_DEPTH} conditions")
    form, inner = node.choice("all", "any", "not", "op", "segment")
    match form:
        case "all":
            return All(tuple(parse_condition(item, salt, depth + 1) for item in inner.items(MAX_VALUES)))
        case "any":
            return AnyOf(tuple(parse_condition(item, salt, depth + 1) for item in inner.items(MAX_VALUES)))
        case "not":
            return Not(parse_condition(inner, salt, depth + 1))
        case "segment":
            return InSegment(inner.text())
        case _:
            return _clause(node, salt)


def _clause(node: Node, salt: str) -> Condition:
    op = node.member("op").text()
    match op:
        case "exists":
            return Exists(attribute(node.member("attribute").text()))
        case "not_exists":
            return Not(Exists(attribute(node.member("attribute").text())))
        case "in_segment":
            return _in_segments(node)
        case "not_in_segment":
            return Not(_in_segments(node))
        case "percentage_of":
            return _percentage_of(node, salt)
        case _:
            return _tested_clause(node, op)


def _in_segments(node: Node) -> Condition:
    return AnyOf(tuple(InSegment(item.text()) for item in node.member("values").items(MAX_VALUES)))


def _percentage_of(node: Node, salt: str) -> Condition:
    values = node.member("values")
    shares = values.items()
    if len(shares) != 1:
        raise values.refused("must be one share in thousandths of a percent")
    return PercentageOf(attribute(node.member("attribute").text()), salt, shares[0].integer(0, BUCKETS))


def _tested_clause(node: Node, op: str) -> Condition:
    operator = OPERATORS.get(op)
    if operator is None:
        return UnknownOperator(op)
    values = node.member("values")
    fold = node.find("fold_case")
    arguments = Arguments(tuple(values.elements(MAX_VALUES)), fold_case=fold is not None and fold.boolean())
    try:
        operand = operator.read(arguments)
    except BadArgument as bad:
        raise (values if bad.index is None else values.at(bad.index)).refused(bad.reason) from bad
    return Clause(
        attribute(node.member("attribute").text()),
        op,
        arguments.values,
        arguments.fold_case,
        operator.test,
        operand,
        operator.wanted,
        operator.reach,
    )


def needs_of(condition: Condition | None) -> Needs:
    """Collect what must be known before a condition can be decided; nothing, if there is none."""
    parts = [] if condition is None else list(_flattened(condition))
    return Needs(
        segments=frozenset(part.segment for part in parts if isinstance(part, InSegment)),
        unknown_operators=frozenset(part.op for part in parts if isinstance(part, UnknownOperator)),
    )


def _flattened(condition: Condition) -> Iterator[Condition]:
    match condition:
        case All(conditions) | AnyOf(conditions):
            for inner in conditions:
                yield from _flattened(inner)
        case Not(inner):
            yield from _flattened(inner)
        case _:
            yield condition
