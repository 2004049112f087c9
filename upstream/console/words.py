"""Serves, conditions and rules of flags in words; values as compact JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

_WHOLE = 100_000
_USUAL_UNIT = "targetingKey"
_DISTANCES = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))

OPERATORS: Mapping[str, str] = {
    "equals": "is",
    "not_equals": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "contains": "contains",
    "not_contains": "does not contain",
    "starts_with": "starts with",
    "not_starts_with": "does not start with",
    "ends_with": "ends with",
    "not_ends_with": "does not end with",
    "matches": "matches",
    "gt": ">",
    "gte": "≥",
    "lt": "<",
    "lte": "≤",
    "between": "is between",
    "semver_eq": "is version",
    "semver_gt": "is a version >",
    "semver_gte": "is a version ≥",
    "semver_lt": "is a version <",
    "semver_lte": "is a version ≤",
    "before": "is before",
    "after": "is after",
    "in_cidr": "is in the network",
    "not_in_cidr": "is not in the network",
    "exists": "exists",
    "not_exists": "does not exist",
    "in_segment": "is in the segment",
    "not_in_segment": "is not in the segment",
    "percentage_of": "is within the percentage",
}


def value(found: Any) -> str:
    """Return a value as compact JSON."""
    return orjson.dumps(found).decode()


def percentage(buckets: int) -> str:
    """Return a share of the buckets in percent: 12500 is `12.5 %`."""
    return f"{100 * buckets / _WHOLE:g} %"


def serve(found: Any) -> str:
    """Return what is served, in words."""
    if not isinstance(found, Mapping) or not found:
        return "nothing"
    if "variation" in found:
        return str(found["variation"])
    if "split" in found:
        split = found["split"]
        return ", ".join(share(each) for each in split["weights"] if each[1]) + _by(split)
    if "ramp" in found:
        return _ramp(found["ramp"])
    return value(found)


def share(weight: Sequence[Any]) -> str:
    """Return one part of a split: its variation and buckets."""
    return f"{percentage(weight[1])} {weight[0]}"


def _ramp(ramp: Mapping[str, Any]) -> str:
    start = "not started" if ramp["start_at"] is None else f"from {ramp['start_at']} on"
    step = f"{percentage(ramp['increment'])} more every {_distance(ramp['every_s'])} up to {percentage(ramp['target'])}"
    return f"{ramp['to']} to {step}, {start}, {ramp['else']} to the rest{_by(ramp)}"


def _by(serve_part: Mapping[str, Any]) -> str:
    unit = serve_part.get("by", _USUAL_UNIT)
    return "" if unit == _USUAL_UNIT else f" by {unit}"


def _distance(every_s: int) -> str:
    size, name = next((size, name) for size, name in _DISTANCES if every_s % size == 0)
    count = every_s // size
    return name if count == 1 else f"{count} {name}s"


def condition(found: Any, *, is_inner: bool = False) -> str:
    """Return a condition in words."""
    if not isinstance(found, Mapping):
        return value(found)
    if "segment" in found:
        return f"in the segment {found['segment']}"
    if "not" in found:
        return f"not ({condition(found['not'])})"
    for form, word in (("all", " and "), ("any", " or ")):
        if form in found:
            parts = [condition(part, is_inner=True) for part in found[form]]
            joined = word.join(parts) if parts else "always" if form == "all" else "never"
            return f"({joined})" if is_inner and len(parts) > 1 else joined
    operator = str(found.get("op"))
    values = ", ".join(each if isinstance(each, str) else value(each) for each in found.get("values", ()))
    fold = " in any case" if found.get("fold_case") else ""
    return f"{found.get('attribute')} {OPERATORS.get(operator, operator)} {values}".rstrip() + fold


def rule(found: Mapping[str, Any]) -> str:
    """Return a rule in words."""
    name = f"{found['name']}: " if found.get("name") else ""
    off = "" if found.get("is_active", True) else "   (inactive)"
    return f"{name}if {condition(found.get('when'))} → {serve(found.get('serve'))}{off}"


def target(found: Mapping[str, Any]) -> str:
    """Return the units that get one variation, in words; of many the first ones."""
    units, shown = list(found["units"]), 10
    more = f" and {len(units) - shown} more" if len(units) > shown else ""
    return f"{', '.join(map(str, units[:shown]))}{more} → {found['variation']}"
