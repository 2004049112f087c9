"""Reads flags and segments from the JSON of a snapshot or change set into finished, checked objects.

Every limit is checked here, so that evaluating what was parsed cannot fail on size, depth or type. Unknown fields are
ignored and an unknown operator only disarms its rule: a newer authority may say more than this reader understands.
Anything else that cannot be meant is an `InvalidConfig` that names the place.
"""

import math
from typing import Any

from relay.engine.conditions import needs_of, parse_condition
from relay.engine.context import LARGEST_INTEGER, SMALLEST_INTEGER, UNIT, unit_of
from relay.engine.environment import amend, assemble
from relay.engine.model import (
    Evaluation,
    Fixed,
    Flag,
    FlagType,
    Group,
    MetadataValue,
    Prerequisite,
    Reason,
    Rule,
    Segment,
)
from relay.engine.node import InvalidConfig, Node
from relay.engine.serving import Answers, Place, parse_serve

__all__ = ["InvalidConfig", "amend", "assemble", "parse_flag", "parse_segment"]

MAX_RULES = 200
MAX_VERSION = 2**63 - 1
NUMBER_FORMATS = ("integer", "float")


def parse_flag(key: str, obj: Any) -> Flag:
    """Read one flag of a snapshot.

    Raises:
        InvalidConfig: it cannot be used; nothing of it may be.
    """
    node = Node(obj, f"flags.{key}")
    flag_type = _flag_type(node.member("type"))
    variations = node.member("variations")
    number_format = _number_format(node, variations) if flag_type is FlagType.NUMBER else None
    values = _variations(variations, flag_type, number_format)
    version = node.member("version").integer(0, MAX_VERSION)
    metadata = _metadata(node.find("metadata"))
    off = node.find("off")
    answers = Answers(values, None if off is None else off.text(), version, metadata)
    if off is not None:
        answers.known(off)
    salt = _text_or(node, "salt", "")
    rules = _rules(node.find("rules"), answers, salt)
    targets = _targets(node.find("targets"), answers)
    place = Place(answers, salt, fixed=Reason.DEFAULT if rules or targets else Reason.STATIC)
    fallthrough = parse_serve(node.member("fallthrough"), place)
    return Flag(
        key=key,
        id=node.member("id").text(),
        name=_text_or(node, "name", key),
        type=flag_type,
        number_format=number_format,
        version=version,
        salt=salt,
        enabled=node.member("enabled").boolean(),
        client_side=_is_set(node, "client_side"),
        analytics=_is_set(node, "analytics"),
        metadata=metadata,
        variations=values,
        off=answers.switched_off(Reason.DISABLED),
        without_unit=answers.without_unit(UNIT if isinstance(fallthrough, Fixed) else fallthrough.by.path),
        fallthrough=fallthrough,
        rules=rules,
        targets=targets,
        prerequisites=_prerequisites(node.find("prerequisites"), answers),
        group=_group(node.find("group"), answers),
    )


def parse_segment(key: str, obj: Any) -> Segment:
    """Read one segment of a snapshot.

    Raises:
        InvalidConfig: it cannot be used; nothing of it may be.
    """
    node = Node(obj, f"segments.{key}")
    when = node.find("when")
    condition = None if when is None else parse_condition(when, salt=key)
    return Segment(
        key=key,
        name=_text_or(node, "name", key),
        version=node.member("version").integer(0, MAX_VERSION),
        include=_units(node.find("include")),
        exclude=_units(node.find("exclude")),
        when=condition,
        needs=needs_of(condition),
    )


def _text_or(node: Node, name: str, default: str) -> str:
    found = node.find(name)
    return default if found is None or found.value == "" else found.text()


def _is_set(node: Node, name: str) -> bool:
    found = node.find(name)
    return found is None or found.boolean()


def _flag_type(node: Node) -> FlagType:
    try:
        return FlagType(node.text())
    except ValueError:
        raise node.refused(f"must be one of {', '.join(FlagType)}") from None


def _number_format(node: Node, variations: Node) -> str:
    declared = node.find("number_format")
    if declared is None:
        has_fraction = any(isinstance(item.member("value").value, float) for item in variations.items())
        return "float" if has_fraction else "integer"
    if declared.value not in NUMBER_FORMATS:
        raise declared.refused(f"must be one of {', '.join(NUMBER_FORMATS)}")
    return declared.text()


def _variations(node: Node, flag_type: FlagType, number_format: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in node.items():
        key = item.member("key")
        if key.text() in values:
            raise key.refused("stands twice")
        value = item.member("value")
        if not flag_type.admits(value.value):
            raise value.refused(f"must be a {flag_type} value")
        values[key.text()] = value.value if number_format is None else _number(value, number_format)
    if not values:
        raise node.refused("must not be empty")
    return values


def _number(node: Node, number_format: str) -> int | float:
    """Return the value as the very type that its format promises, so that 1 is served as 1.0 where floats are meant."""
    value: int | float = node.value
    if isinstance(value, float) and not math.isfinite(value):
        raise node.refused("must be finite")
    if number_format == "integer" and value != int(value):
        raise node.refused("must be a whole number, as the number_format is integer")
    is_whole = isinstance(value, int) or number_format == "integer"
    if is_whole and not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        raise node.refused("must be a whole number of at most 64 bits")
    return float(value) if number_format == "float" else int(value)


def _metadata(node: Node | None) -> dict[str, MetadataValue]:
    if node is None:
        return {}
    flat: dict[str, MetadataValue] = {}
    for name, member in node.entries():
        if not isinstance(member.value, str | int | float):
            raise member.refused("must be a string, a number or a boolean")
        flat[name] = member.value
    return flat


def _rules(node: Node | None, answers: Answers, salt: str) -> tuple[Rule, ...]:
    items = [] if node is None else node.items(MAX_RULES)
    return tuple(_rule(item, index, answers, salt) for index, item in enumerate(items))


def _rule(node: Node, index: int, answers: Answers, salt: str) -> Rule:
    rule_id = node.member("id").text()
    condition = parse_condition(node.member("when"), salt=rule_id)
    place = Place(answers, salt, fixed=Reason.RULE_MATCH, rule_id=rule_id, rule_index=index)
    return Rule(rule_id, condition, parse_serve(node.member("serve"), place), needs_of(condition))


def _targets(node: Node | None, answers: Answers) -> dict[str, Evaluation]:
    """Return the answer for each unit that is named. A unit that stands under two variations keeps the first."""
    named: dict[str, Evaluation] = {}
    for item in [] if node is None else node.items():
        answer = answers.served(answers.known(item.member("variation")), Reason.TARGET_MATCH)
        for unit in _units(item.member("units")):
            named.setdefault(unit, answer)
    return named


def _units(node: Node | None) -> frozenset[str]:
    if node is None:
        return frozenset()
    units: set[str] = set()
    for index, value in enumerate(node.elements()):
        unit = unit_of(value)
        if unit is None:
            raise node.at(index).refused("must be a string that is not empty or an integer")
        units.add(unit)
    return frozenset(units)


def _prerequisites(node: Node | None, answers: Answers) -> tuple[Prerequisite, ...]:
    return () if node is None else tuple(_prerequisite(item, answers) for item in node.items())


def _prerequisite(node: Node, answers: Answers) -> Prerequisite:
    flag, variations = node.member("flag").text(), node.find("variations")
    return Prerequisite(
        flag=flag,
        variations=None if variations is None else frozenset(item.text() for item in variations.items()),
        failed=answers.switched_off(Reason.PREREQUISITE_FAILED, blocked_by=flag),
    )


def _group(node: Node | None, answers: Answers) -> Group | None:
    if node is None:
        return None
    return Group(
        name=node.text(),
        excluded=answers.switched_off(Reason.EXCLUDED, blocked_by=node.text()),
        without_unit=answers.without_unit(UNIT),
    )
