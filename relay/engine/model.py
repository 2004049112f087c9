"""What the engine evaluates and what it answers: frozen values, built once by `relay.engine.parse`.

Everything that an evaluation could look up or construct is prepared here: a `Serve` holds the finished `Evaluation` of
each of its outcomes, so answering allocates nothing and equal answers are the same object. Nothing in this module reads
JSON, checks limits or decides; and nothing may change an object after it was built, as revisions share them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FlagType(StrEnum):
    """The type of every variation's value of a flag. `json` values are objects or arrays."""

    BOOLEAN = "boolean"
    STRING = "string"
    NUMBER = "number"
    JSON = "json"

    def admits(self, value: Any) -> bool:
        """Tell whether a JSON value may be served by a flag of this type."""
        if isinstance(value, bool):  # which Python takes for an int
            return self is FlagType.BOOLEAN
        return isinstance(value, _ADMITTED[self])


_ADMITTED: Mapping[FlagType, Any] = {
    FlagType.BOOLEAN: bool,
    FlagType.STRING: str,
    FlagType.NUMBER: (int, float),
    FlagType.JSON: (dict, list),
}


class Reason(StrEnum):
    """Why a variation was served. `ERROR` goes with an `ErrorCode`, and only `ERROR` does."""

    DISABLED = "DISABLED"
    TARGET_MATCH = "TARGET_MATCH"
    RULE_MATCH = "RULE_MATCH"
    SPLIT = "SPLIT"
    STATIC = "STATIC"
    DEFAULT = "DEFAULT"
    PREREQUISITE_FAILED = "PREREQUISITE_FAILED"
    EXCLUDED = "EXCLUDED"
    ERROR = "ERROR"


class ErrorCode(StrEnum):
    """What went wrong, in OpenFeature's words. `PARSE_ERROR` is for edges that read requests; the engine sets none."""

    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    TARGETING_KEY_MISSING = "TARGETING_KEY_MISSING"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    PARSE_ERROR = "PARSE_ERROR"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    GENERAL = "GENERAL"


MetadataValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answer for one flag and one context.

    On an error, and wherever a flag is off, `value` and `variation` are those of the off variation. Both are None where
    the flag has no off variation (the default in the caller's code holds), for an unknown flag and on a type mismatch.
    `blocked_by` names the prerequisite that does not hold, or the exclusion group.

    Equality is by content. The hash is that of the object, which costs nothing: equal answers of one flag are the same
    object, and who keeps something by answer means the object.
    """

    __hash__ = object.__hash__

    value: Any
    variation: str | None
    reason: Reason
    rule_id: str | None = None
    rule_index: int | None = None
    version: int | None = None
    experiment: str | None = None
    error_code: ErrorCode | None = None
    error_detail: str | None = None
    flag_metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    blocked_by: str | None = None


@dataclass(frozen=True, slots=True)
class Attribute:
    """A dotted path into the context. `steps` is empty when the path has no dot."""

    path: str
    steps: tuple[str, ...]


# True or False when the operator can read the attribute's value, None when it cannot (`"abc" > 3`).
Test = Callable[[Any, Any], bool | None]


@dataclass(frozen=True, slots=True)
class Reach:
    """How much of a list a clause looks at: so many elements, with so many characters together (None = any number)."""

    elements: int
    characters: int | None = None


@dataclass(frozen=True, slots=True)
class All:
    """Holds when every condition holds; so does an empty one."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds when at least one condition holds; an empty one never does."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """Holds when its condition does not."""

    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Clause:
    """Holds when `test(operand, value of the attribute)` is exactly `wanted`: a negated operator wants False.

    `values` are the operator's arguments as configured, `operand` is what was read from them.
    """

    attribute: Attribute
    op: str
    values: tuple[Any, ...]
    fold_case: bool
    test: Test = field(compare=False)
    operand: Any = field(compare=False)
    wanted: bool
    reach: Reach


@dataclass(frozen=True, slots=True)
class Exists:
    """Holds when the context has the attribute and it is not null."""

    attribute: Attribute


@dataclass(frozen=True, slots=True)
class PercentageOf:
    """Holds for the units, read from the attribute, whose bucket lies below `share` (0..100,000)."""

    attribute: Attribute
    salt: str
    share: int


@dataclass(frozen=True, slots=True)
class InSegment:
    """Holds when the context belongs to the segment."""

    segment: str


@dataclass(frozen=True, slots=True)
class UnknownOperator:
    """A clause of a newer configuration. Whatever contains it is skipped, so this is never asked."""

    op: str


Condition = All | AnyOf | Not | Clause | Exists | PercentageOf | InSegment | UnknownOperator


@dataclass(frozen=True, slots=True)
class Fixed:
    """Serves one variation to everybody."""

    outcome: Evaluation


@dataclass(frozen=True, slots=True)
class Split:
    """Serves `outcomes[i]` to the buckets below `bounds[i]` and not below the bound before it."""

    by: Attribute
    salt: str
    bounds: tuple[int, ...]
    outcomes: tuple[Evaluation, ...]


@dataclass(frozen=True, slots=True)
class Ramp:
    """A split of two whose first share grows with time: `increment` per `every_s` since `start_at_ms`, up to `target`.

    Shares are in thousandths of a percent. A ramp without a start is at 0.
    """

    by: Attribute
    salt: str
    start_at_ms: int | None
    increment: int
    every_s: int
    target: int
    to: Evaluation
    otherwise: Evaluation


Serve = Fixed | Split | Ramp


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be known for conditions to be decided: segments they name, and operators nobody here understands."""

    segments: frozenset[str]
    unknown_operators: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition and what it serves. A rule whose needs are not met never matches."""

    id: str
    when: Condition
    serve: Serve
    needs: Needs


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """Another flag that must be on for this context and, if `variations` is given, serve one of them."""

    flag: str
    variations: frozenset[str] | None
    failed: Evaluation


@dataclass(frozen=True, slots=True)
class Group:
    """Membership in a mutual exclusion group, with the answers for units that are not this flag's."""

    name: str
    excluded: Evaluation
    without_unit: Evaluation


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag in one environment.

    `off` is the answer while it is switched off, `without_unit` the one where the fallthrough needs a unit that the
    context lacks, `targets` those for single units.
    """

    key: str
    id: str
    name: str
    type: FlagType
    number_format: str | None
    version: int
    salt: str
    enabled: bool
    client_side: bool
    analytics: bool
    metadata: Mapping[str, MetadataValue]
    variations: Mapping[str, Any]
    off: Evaluation
    without_unit: Evaluation
    fallthrough: Serve
    rules: tuple[Rule, ...]
    targets: Mapping[str, Evaluation]
    prerequisites: tuple[Prerequisite, ...]
    group: Group | None

    @property
    def unknown_operators(self) -> frozenset[str]:
        """Operators that this version does not understand; the rules that use them are skipped."""
        return frozenset[str]().union(*(rule.needs.unknown_operators for rule in self.rules))


@dataclass(frozen=True, slots=True)
class Segment:
    """A named set of contexts: the units excluded, the units included, then whoever meets the condition."""

    key: str
    name: str
    version: int
    include: frozenset[str]
    exclude: frozenset[str]
    when: Condition | None
    needs: Needs


@dataclass(frozen=True, slots=True)
class Environment:
    """One revision of one environment, with what follows from its flags and segments.

    `usable` are the segments that can be decided, `chained` the prerequisites of each flag that has any, `unsettled`
    the flags whose prerequisites form a cycle or nest too deeply, `groups` the enabled members of each exclusion group,
    `ramps` those of each enabled flag that has any, `segmented` the segments that the rules of each flag name.
    """

    id: str
    key: str
    project_id: str
    project_key: str
    revision: int
    flags: Mapping[str, Flag]
    segments: Mapping[str, Segment]
    usable: Mapping[str, Segment]
    chained: Mapping[str, frozenset[str]]
    unsettled: frozenset[str]
    groups: Mapping[str, frozenset[str]]
    ramps: Mapping[str, tuple[Ramp, ...]]
    segmented: Mapping[str, frozenset[str]]
