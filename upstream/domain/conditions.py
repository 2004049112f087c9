"""Conditions as people write them, brought into the one form that is stored and published.

Operator aliases become canonical names, a single `value` becomes `values`. Every leaf is read by the engine's own
parser, so that nothing is accepted here which a relay would refuse or skip; unlike the engine, which stops at the first
fault, all leaves are looked at.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from relay.engine.conditions import MAX_DEPTH, parse_condition
from relay.engine.node import InvalidConfig, Node
from relay.engine.operators import ALIASES, CONDITION_OPERATORS, OPERATORS, canonical
from upstream.domain.entities import JsonObject
from upstream.domain.errors import Problems
from upstream.domain.nearest import SHOWN_NAME, hint, no_such_field

MAX_PARTS = 1_000
_LISTS = ("all", "any")
_FORMS = (*_LISTS, "not", "segment", "op")
_LEAF_MEMBERS = frozenset({"attribute", "op", "value", "values", "fold_case"})
_ABOUT_THE_FIELD = ("must ", "is ", "has ", "cannot ", "stands ")
_FORM = (
    'A condition has `all`, `any`, `not`, `segment`, or `attribute` with `op` and `values`: {"all": []} always holds.'
)


def normalised(problems: Problems, path: str, raw: Any, depth: int = 1) -> JsonObject:
    """Return a condition in its stored form, after noting everything that is wrong with it."""
    forms = [form for form in _FORMS if form in raw] if isinstance(raw, Mapping) else []
    if len(forms) != 1:
        problems.add(path, _FORM)
        return {}
    if depth > MAX_DEPTH:
        problems.add(path, f"At most {MAX_DEPTH} conditions can stand inside each other.")
        return {}
    form = forms[0]
    if form == "op":
        return _leaf(problems, path, raw)
    for member in sorted(raw.keys() - {form}):
        problems.add(f"{path}.{member}", f"Beside `{form}` nothing else can stand in a condition.")
    match form:
        case "not":
            return {"not": normalised(problems, f"{path}.not", raw["not"], depth + 1)}
        case "segment":
            return _checked(problems, path, {"segment": raw["segment"]})
        case _:
            return {form: _parts(problems, f"{path}.{form}", raw[form], depth)}


def _parts(problems: Problems, path: str, raw: Any, depth: int) -> list[JsonObject]:
    if not isinstance(raw, list | tuple):
        problems.add(path, "This must be a list of conditions.")
        return []
    if len(raw) > MAX_PARTS:
        problems.add(path, f"At most {MAX_PARTS} conditions can stand in one list.")
        return []
    return [normalised(problems, f"{path}[{index}]", part, depth + 1) for index, part in enumerate(raw)]


def _leaf(problems: Problems, path: str, raw: JsonObject) -> JsonObject:
    for member in sorted(raw.keys() - _LEAF_MEMBERS):
        problems.add(f"{path}.{member}", no_such_field(member, _LEAF_MEMBERS))
    op = canonical(raw["op"]) if isinstance(raw["op"], str) else None
    if op is None:
        problems.add(f"{path}.op", _unknown_operator(raw["op"]))
        return {}
    leaf: dict[str, Any] = {"op": op}
    if "attribute" in raw:
        leaf["attribute"] = raw["attribute"]
    values = raw.get("values", [raw["value"]] if "value" in raw else None)
    if values is not None and op not in {"exists", "not_exists"}:
        leaf["values"] = list(values) if isinstance(values, tuple) else values
    if leaf.get("values") == []:
        problems.add(f"{path}.values", "Without a value to compare with, this never matches.")
    if raw.get("fold_case") is not None:
        leaf["fold_case"] = raw["fold_case"]
    return _checked(problems, path, leaf)


def _unknown_operator(op: Any) -> str:
    if not isinstance(op, str):
        return "An operator is a text, such as 'in'."
    known = {*OPERATORS, *CONDITION_OPERATORS, *ALIASES}
    return f"There is no operator {op[:SHOWN_NAME]!r}; {hint(op, known)}"


def _checked(problems: Problems, path: str, leaf: JsonObject) -> JsonObject:
    try:
        parse_condition(Node(leaf, path), "")
    except InvalidConfig as invalid:
        problems.add(invalid.path, sentence(invalid.reason))
    return leaf


def sentence(reason: str) -> str:
    """Turn a reason of the engine's parser into a sentence: `must be a number` is about the field, others are whole."""
    text = f"This {reason}" if reason.startswith(_ABOUT_THE_FIELD) else reason[:1].upper() + reason[1:]
    return f"{text}."


def segments_in(condition: JsonObject | None) -> Iterator[str]:
    """Yield the keys of the segments that a stored condition names."""
    if not condition:
        return
    for form in _LISTS:
        for part in condition.get(form, ()):
            yield from segments_in(part)
    yield from segments_in(condition.get("not"))
    if isinstance(condition.get("segment"), str):
        yield condition["segment"]
    if condition.get("op") in {"in_segment", "not_in_segment"}:
        yield from (key for key in condition.get("values", ()) if isinstance(key, str))
