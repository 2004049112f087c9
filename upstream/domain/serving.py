"""Serves, rules and targets as people write them, brought into the one form that is stored and published.

Raw values become variations (`Values`), weights may be pairs or objects, defaults are filled in. What a serve means is
the engine's business: the finished flag is read by the engine's parser before it is stored (`configs.verify`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from relay.engine.bucketing import BUCKETS
from relay.engine.context import UNIT
from relay.engine.literals import moment_ms
from upstream.domain.conditions import normalised
from upstream.domain.entities import JsonObject, Rule, Target
from upstream.domain.errors import Problems
from upstream.domain.facts import Facts
from upstream.domain.naming import check_text
from upstream.domain.nearest import no_such_field
from upstream.domain.values import Values

MAX_RULES = 200
MAX_UNITS = 10_000
MAX_ID_CHARACTERS = 128

_SERVE_FORM = "A serve has exactly one of `variation`, `value`, `split` and `ramp`."
_FORMS = ("variation", "value", "split", "ramp")
_RAMP_MEMBERS = frozenset({"to", "to_value", "else", "else_value", "start_at", "increment", "every_s", "target", "by"})
_DAY_S = 86_400
_MAX_EVERY_S = 366 * _DAY_S


class Reader:
    """Reads the serves, rules and targets of one flag, noting every problem."""

    def __init__(self, values: Values, problems: Problems, facts: Facts) -> None:
        self._values = values
        self._problems = problems
        self._facts = facts

    def serve(self, path: str, raw: Any) -> JsonObject:
        """Return a serve in its stored form."""
        if not isinstance(raw, Mapping):
            self._problems.add(path, _SERVE_FORM)
            return {}
        forms = [form for form in _FORMS if form in raw]
        if len(forms) != 1:
            self._only(path, raw, {*_FORMS, "experiment"})
            self._problems.add(path, _SERVE_FORM)
            return {}
        form = forms[0]
        self._only(path, raw, {form, "experiment"} if form == "split" else {form})
        match form:
            case "split":
                split = self.split(f"{path}.split", raw["split"])
                if raw.get("experiment") is None:
                    return {"split": split}
                return {"split": split, "experiment": self._text(path, raw, "experiment", "")}
            case "ramp":
                return {"ramp": self.ramp(f"{path}.ramp", raw["ramp"])}
            case _:
                return {"variation": self._variation(path, raw, "variation", "value")}

    def rules(self, path: str, raw: Any) -> tuple[Rule, ...]:
        """Return a list of rules in its stored form; rules without an id get one."""
        entries = self._list(path, raw, MAX_RULES)
        rules = [self.rule(f"{path}[{index}]", entry) for index, entry in enumerate(entries)]
        seen: set[str] = set()
        for index, rule in enumerate(rules):
            if rule.id in seen:
                self._problems.add(f"{path}[{index}].id", f"Two rules cannot both have the id {rule.id!r}.")
            seen.add(rule.id)
        return tuple(rules)

    def targets(self, path: str, raw: Any) -> tuple[Target, ...]:
        """Return a list of individual targets in its stored form: one entry for each variation, each unit once."""
        units: dict[str, dict[str, None]] = {}
        owner: dict[str, str] = {}
        for index, entry in enumerate(self._list(path, raw, MAX_UNITS)):
            at = f"{path}[{index}]"
            if not isinstance(entry, Mapping):
                self._problems.add(at, "A target is an object with `variation` and `units`.")
                continue
            self._only(at, entry, {"variation", "value", "units"})
            variation = self._variation(at, entry, "variation", "value")
            for unit in unit_list(self._problems, f"{at}.units", entry.get("units", [])):
                if owner.setdefault(unit, variation) != variation:
                    self._problems.add(f"{at}.units", f"The unit {unit!r} is a target of {owner[unit]!r} already.")
                units.setdefault(variation, {})[unit] = None
        return tuple(Target(variation=variation, units=tuple(listed)) for variation, listed in units.items())

    def rule(self, path: str, raw: Any) -> Rule:
        """Return one rule in its stored form; without an id it gets one."""
        if not isinstance(raw, Mapping):
            self._problems.add(path, "A rule is an object with `when` and `serve`.")
            return Rule(id=self._facts.new_id(), when={}, serve={})
        self._only(path, raw, {"id", "name", "when", "serve", "variation", "value", "is_active"})
        identity, name, is_active = raw.get("id"), raw.get("name"), raw.get("is_active", True)
        if identity is not None and not (isinstance(identity, str) and 0 < len(identity) <= MAX_ID_CHARACTERS):
            self._problems.add(f"{path}.id", f"A rule's id is a text of 1 to {MAX_ID_CHARACTERS} characters.")
        if name is not None and not isinstance(name, str):
            self._problems.add(f"{path}.name", "This must be a text.")
        check_text(self._problems, f"{path}.name", name if isinstance(name, str) else None)
        if not isinstance(is_active, bool):
            self._problems.add(f"{path}.is_active", "This must be true or false.")
        if "serve" in raw:
            serve = self.serve(f"{path}.serve", raw["serve"])
        else:
            serve = {"variation": self._variation(path, raw, "variation", "value")}
        return Rule(
            id=str(identity) if identity is not None else self._facts.new_id(),
            when=normalised(self._problems, f"{path}.when", raw.get("when")),
            serve=serve,
            name=name,
            is_active=is_active is True,
        )

    def split(self, path: str, raw: Any) -> JsonObject:
        """Return what stands in a split in its stored form."""
        if not isinstance(raw, Mapping):
            self._problems.add(path, 'A split is an object with `weights`: [["on", 25000], ["off", 75000]].')
            return {}
        self._only(path, raw, {"by", "weights", "salt"})
        weights = [
            self._weight(f"{path}.weights[{index}]", entry)
            for index, entry in enumerate(self._list(f"{path}.weights", raw.get("weights"), MAX_RULES))
        ]
        total = sum(weight for _, weight in weights)
        if total != BUCKETS:
            self._problems.add(f"{path}.weights", f"The weights must sum to {BUCKETS} (100 %); these sum to {total}.")
        split = {"by": self._text(path, raw, "by", UNIT), "weights": weights}
        if raw.get("salt") is not None:
            split["salt"] = self._text(path, raw, "salt", "")
        return split

    def _weight(self, path: str, raw: Any) -> tuple[str, int]:
        if isinstance(raw, Mapping):
            self._only(path, raw, {"variation", "value", "weight"})
            variation, weight = self._variation(path, raw, "variation", "value"), raw.get("weight")
        elif isinstance(raw, list | tuple) and len(raw) == 2:  # noqa: PLR2004 - a pair
            variation, weight = self._values.named(f"{path}[0]", raw[0]), raw[1]
        else:
            self._problems.add(path, "A weight is a pair [variation, weight] or {variation|value, weight}.")
            return "", 0
        return variation, self._integer(path, weight, 0, BUCKETS)

    def ramp(self, path: str, raw: Any) -> JsonObject:
        """Return what stands in a ramp in its stored form."""
        if not isinstance(raw, Mapping):
            self._problems.add(path, "A ramp is an object with `to`, `else`, `increment` and `every_s`.")
            return {}
        self._only(path, raw, _RAMP_MEMBERS)
        start_at = raw.get("start_at")
        if start_at is not None and moment_ms(start_at) is None:
            self._problems.add(
                f"{path}.start_at",
                "This must be an RFC 3339 time such as 2026-11-21T06:30:00Z, or null.",
            )
        return {
            "to": self._variation(path, raw, "to", "to_value"),
            "else": self._variation(path, raw, "else", "else_value"),
            "start_at": start_at,
            "increment": self._integer(f"{path}.increment", raw.get("increment", 10_000), 1, BUCKETS),
            "every_s": self._integer(f"{path}.every_s", raw.get("every_s", _DAY_S), 1, _MAX_EVERY_S),
            "target": self._integer(f"{path}.target", raw.get("target", BUCKETS), 0, BUCKETS),
            "by": self._text(path, raw, "by", UNIT),
        }

    def _variation(self, path: str, raw: JsonObject, by_key: str, by_value: str) -> str:
        if (by_key in raw) == (by_value in raw):
            self._problems.add(path, f"Give exactly one of `{by_key}` and `{by_value}`.")
            return ""
        if by_key in raw:
            return self._values.named(f"{path}.{by_key}", raw[by_key])
        return self._values.with_value(f"{path}.{by_value}", raw[by_value])

    def _only(self, path: str, raw: JsonObject, known: set[str] | frozenset[str]) -> None:
        for member in sorted(raw.keys() - known):
            self._problems.add(f"{path}.{member}", no_such_field(member, known))

    def _list(self, path: str, raw: Any, limit: int) -> Sequence[Any]:
        if not isinstance(raw, list | tuple):
            self._problems.add(path, "This must be a list.")
            return ()
        if len(raw) > limit:
            self._problems.add(path, f"At most {limit} entries are allowed; this has {len(raw)}.")
            return ()
        return raw

    def _text(self, path: str, raw: JsonObject, member: str, default: str) -> str:
        value = raw.get(member, default)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS:
            self._problems.add(f"{path}.{member}", f"This must be a text of 1 to {MAX_ID_CHARACTERS} characters.")
            return default
        return value

    def _integer(self, path: str, value: Any, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._problems.add(path, f"This must be a whole number from {low} to {high}.")
            return 0
        return value


def unit_list(problems: Problems, path: str, raw: Any) -> tuple[str, ...]:
    """Return a list of units, each once; whole numbers are taken in decimal, as the engine reads them."""
    if not isinstance(raw, list | tuple):
        problems.add(path, "This must be a list of texts.")
        return ()
    if len(raw) > MAX_UNITS:
        problems.add(path, f"At most {MAX_UNITS} units can be listed; use a condition for more.")
        return ()
    units: dict[str, None] = {}
    for index, unit in enumerate(raw):
        if isinstance(unit, int) and not isinstance(unit, bool):
            units[str(unit)] = None
        elif isinstance(unit, str) and unit:
            units[unit] = None
        else:
            problems.add(f"{path}[{index}]", "A unit is a text that is not empty, or a whole number.")
    return tuple(units)
