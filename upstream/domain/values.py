"""Values and variations: every value of a flag has the flag's type and lives in exactly one variation.

`Values` holds the variations of one flag while a command is decided. A request may name a variation by key or give a
raw value; the variation with that value is found, or made, so that the engine knows variations only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay.protocol.hashing import canonical
from upstream.domain.entities import FlagType, Json, JsonObject, NumberFormat, Variation
from upstream.domain.errors import Problems
from upstream.domain.naming import VARIATION_KEY, check_text, key_from
from upstream.domain.nearest import no_such_field

MAX_VARIATIONS = 100
MAX_JSON_DEPTH = 16
_SHORT = 40

DEFAULTS: Mapping[FlagType, Json] = {
    FlagType.BOOLEAN: False,
    FlagType.STRING: "",
    FlagType.NUMBER: 0,
    FlagType.JSON: {},
}

BOOLEAN_VARIATIONS = (Variation(key="on", value=True), Variation(key="off", value=False))
_VARIATION_MEMBERS = frozenset({"key", "value", "name"})


def infer_type(value: Json) -> FlagType:
    """Return the flag type that a default value suggests."""
    if isinstance(value, bool):
        return FlagType.BOOLEAN
    if isinstance(value, str):
        return FlagType.STRING
    return FlagType.NUMBER if isinstance(value, int | float) else FlagType.JSON


_EXPECTED: Mapping[FlagType, str] = {
    FlagType.BOOLEAN: "A boolean flag serves true or false.",
    FlagType.STRING: "A string flag serves texts.",
    FlagType.NUMBER: "A number flag serves numbers.",
    FlagType.JSON: "A JSON flag serves objects or arrays.",
}


def value_problem(flag_type: FlagType, value: Json, declared: NumberFormat | None = None) -> str | None:
    """Return what keeps `value` from being a value of a flag of that type and declared number format."""
    if not flag_type.admits(value):
        return _EXPECTED[flag_type]
    if flag_type is FlagType.NUMBER:
        fits = math.isfinite(value) if isinstance(value, float) else -(1 << 63) <= value < (1 << 63)
        return _format_problem(value, declared) if fits else "A number must be finite and fit 64 bits."
    return None if _depth(value) <= MAX_JSON_DEPTH else f"At most {MAX_JSON_DEPTH} levels of nesting are kept."


def _format_problem(value: float, declared: NumberFormat | None) -> str | None:
    if declared == "integer" and (value != int(value) or not -(1 << 63) <= value < (1 << 63)):
        return "The number_format is integer: this must be a whole number that fits 64 bits."
    if declared == "float" and value != float(value):
        return "The number_format is float: this whole number is too large to be kept exactly as a float."
    return None


def check_number_format(
    problems: Problems, flag_type: FlagType, declared: NumberFormat | None, variations: Iterable[Variation]
) -> None:
    """Note where a declared number format does not go with a flag's type or the values that it has."""
    if declared is None:
        return
    if flag_type is not FlagType.NUMBER:
        problems.add("number_format", f"Only a number flag has a number_format; this is a {flag_type} flag.")
        return
    for variation in variations:
        if value_problem(flag_type, variation.value, declared):
            sentence = f"The variation {variation.key!r} is {variation.value}, which cannot be kept as {declared}."
            problems.add("number_format", sentence)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part) for part in inner), default=0) if isinstance(value, dict | list) else 0


def number_format(variations: Iterable[Variation]) -> NumberFormat:
    """Infer the format of a flag that declares none: `float` as soon as one value has a point, else `integer`."""
    return "float" if any(isinstance(variation.value, float) for variation in variations) else "integer"


class Values:
    """The variations of one flag while a command is decided; grows where raw values are given."""

    def __init__(
        self,
        flag_type: FlagType,
        variations: Iterable[Variation],
        problems: Problems,
        declared: NumberFormat | None = None,
    ) -> None:
        self.type = flag_type
        self.number_format = declared
        self._by_key = {variation.key: variation for variation in variations}
        self._problems = problems

    @property
    def variations(self) -> tuple[Variation, ...]:
        """The variations as they now are, in order."""
        return tuple(self._by_key.values())

    def named(self, path: str, key: Any) -> str:
        """Return a variation key that a request gives, after noting whether it is one."""
        if not isinstance(key, str) or key not in self._by_key:
            known = ", ".join(self._by_key)
            self._problems.add(path, f"There is no variation {key!r}; this flag has: {known}.")
        return str(key)

    def with_value(self, path: str, value: Json) -> str:
        """Return the key of the variation with that value, which is made if there is none."""
        if problem := value_problem(self.type, value, self.number_format):
            self._problems.add(path, problem)
            return ""
        for variation in self._by_key.values():
            if same_value(variation.value, value):
                return variation.key
        return self.add(path, value=value)

    def add(self, path: str, *, value: Json, key: str | None = None, name: str | None = None) -> str:
        """Add a variation, whose value is known to be of the flag's type, and return its key."""
        if key is None:
            key = key_from(name or _word_for(value), self._by_key, fallback="variation")
        elif VARIATION_KEY.fullmatch(key) is None:
            self._problems.add(f"{path}.key", "Use 1 to 128 letters, digits, '.', '_' and '-'.")
        elif key in self._by_key:
            self._problems.add(f"{path}.key", f"Two variations cannot both be {key!r}.")
        check_text(self._problems, f"{path}.name", name)
        self._by_key[key] = Variation(key=key, value=value, name=name)
        if len(self._by_key) > MAX_VARIATIONS:
            self._problems.add(path, f"A flag has at most {MAX_VARIATIONS} variations.")
        return key


def same_value(left: Json, right: Json) -> bool:
    """Tell whether two values are the same JSON; 1 and 1.0 are the same number, 1 and true are not."""
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if numbers and not isinstance(left, bool) and not isinstance(right, bool):
        return bool(left == right)
    return canonical(left) == canonical(right)


def _word_for(value: Json) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""
    return text if len(text) <= _SHORT else ""


def given_variations(
    problems: Problems, flag_type: FlagType, entries: Sequence[JsonObject], declared: NumberFormat | None = None
) -> Values:
    """Read the `variations` of a request: `{key?, value, name?}` each."""
    values = Values(flag_type, (), problems, declared)
    if not entries:
        problems.add("variations", "A flag has at least one variation.")
    for index, entry in enumerate(entries):
        added_variation(values, problems, f"variations[{index}]", entry)
    return values


def added_variation(values: Values, problems: Problems, path: str, entry: Any) -> None:
    """Read one variation of a request, `{key?, value, name?}`, into `values`."""
    if isinstance(entry, Mapping):
        for member in sorted(entry.keys() - _VARIATION_MEMBERS):
            problems.add(f"{path}.{member}", no_such_field(member, _VARIATION_MEMBERS))
    if not isinstance(entry, Mapping) or "value" not in entry:
        problems.add(path, "A variation is an object with a `value`, and optionally `key` and `name`.")
        return
    if problem := value_problem(values.type, entry["value"], values.number_format):
        problems.add(f"{path}.value", problem)
    texts = {member: _text(problems, f"{path}.{member}", entry.get(member)) for member in ("key", "name")}
    values.add(path, value=entry["value"], **texts)


def _text(problems: Problems, path: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    problems.add(path, "This must be a text.")
    return None
