"""Evaluates flags: total, pure, ordered. This interpreter is the reference that says what every flag means.

No JSON context and no configuration that `relay.engine.parse` let through makes it raise; it does no I/O and reads no
clock. The order is: switch, prerequisites, exclusion group, targets, rules, fallthrough. Recursion is bounded by the
depths that were checked at parse and assembly; within one run every flag and segment is decided at most once.
"""

from bisect import bisect_right
from dataclasses import replace
from typing import Any

from relay.engine.bucketing import bucket, winner
from relay.engine.context import UNIT, lookup, unit_of
from relay.engine.model import (
    All,
    AnyOf,
    Clause,
    Condition,
    Environment,
    ErrorCode,
    Evaluation,
    Exists,
    Fixed,
    Flag,
    FlagType,
    InSegment,
    Needs,
    Not,
    PercentageOf,
    Prerequisite,
    Ramp,
    Reach,
    Reason,
    Rule,
    Segment,
    Serve,
    Split,
)

ON = frozenset({Reason.TARGET_MATCH, Reason.RULE_MATCH, Reason.SPLIT, Reason.STATIC, Reason.DEFAULT})
"""The reasons of a flag that is on for a context, so that flags which require it may be on too."""


def evaluate(environment: Environment, flag_key: str, context: Any, now_ms: int) -> Evaluation:
    """Evaluate one flag for a context, a parsed JSON object whose `targetingKey` is the unit."""
    flag = environment.flags.get(flag_key)
    if flag is None:
        return no_flag(environment, flag_key)
    if not isinstance(context, dict):
        return no_context(flag)
    return _answered(Run(environment, context, now_ms), flag)


def evaluate_all(
    environment: Environment, context: Any, now_ms: int, *, client_side_only: bool = False
) -> dict[str, Evaluation]:
    """Evaluate every flag, or those that browsers may see, for one context."""
    flags = [flag for flag in environment.flags.values() if flag.client_side or not client_side_only]
    if not isinstance(context, dict):
        return {flag.key: no_context(flag) for flag in flags}
    run = Run(environment, context, now_ms)
    return {flag.key: _answered(run, flag) for flag in flags}


def belongs(environment: Environment, segment_key: str, context: dict[str, Any], now_ms: int) -> bool:
    """Tell whether a context is in a segment, one of the environment's usable ones."""
    return Run(environment, context, now_ms).is_in(segment_key)


def next_change_at(environment: Environment, now_ms: int) -> int | None:
    """Return the first moment after `now_ms` at which a ramp takes a step, or None if time will change nothing."""
    steps = [next_step_ms(ramp, now_ms) for ramps in environment.ramps.values() for ramp in ramps]
    return min((step for step in steps if step is not None), default=None)


def typed(evaluation: Evaluation, wanted: FlagType) -> Evaluation:
    """Return the evaluation for a getter of one type: a value of another type is a TYPE_MISMATCH.

    Errors, and answers that leave the value to the code's default, stay as they are.
    """
    if evaluation.error_code is not None or evaluation.variation is None or wanted.admits(evaluation.value):
        return evaluation
    return Evaluation(
        None,
        None,
        Reason.ERROR,
        version=evaluation.version,
        error_code=ErrorCode.TYPE_MISMATCH,
        error_detail=f"the flag does not serve {wanted} values",
        flag_metadata=evaluation.flag_metadata,
    )


def share_of(ramp: Ramp, now_ms: int) -> int:
    """Return how much of 100,000 a ramp serves its `to` at a moment."""
    if ramp.start_at_ms is None or now_ms < ramp.start_at_ms:
        return 0
    return min(ramp.target, ramp.increment * ((now_ms - ramp.start_at_ms) // (ramp.every_s * 1000)))


def next_step_ms(ramp: Ramp, now_ms: int) -> int | None:
    """Return the first moment after `now_ms` at which a ramp takes a step, None if it takes none any more."""
    if ramp.start_at_ms is None or ramp.increment == 0 or share_of(ramp, now_ms) >= ramp.target:
        return None
    every_ms = ramp.every_s * 1000
    steps_taken = max(0, (now_ms - ramp.start_at_ms) // every_ms)
    return ramp.start_at_ms + (steps_taken + 1) * every_ms


def no_flag(environment: Environment, flag_key: str) -> Evaluation:
    """Return the answer for a flag that does not exist."""
    return Evaluation(
        None,
        None,
        Reason.ERROR,
        error_code=ErrorCode.FLAG_NOT_FOUND,
        error_detail=f"there is no flag {flag_key!r} in environment {environment.key!r}",
    )


def no_context(flag: Flag) -> Evaluation:
    """Return the answer for a context that is no JSON object."""
    return _failed(flag, ErrorCode.INVALID_CONTEXT, "the context must be a JSON object")


def unsettled(flag: Flag) -> Evaluation:
    """Return the answer of a flag whose prerequisites lead nowhere."""
    return _failed(flag, ErrorCode.GENERAL, "its prerequisites form a cycle or nest too deeply")


def too_deep(flag: Flag) -> Evaluation:
    """Return the answer of a flag whose parts are nested too deeply; never of one that was parsed and assembled."""
    return _failed(flag, ErrorCode.GENERAL, "its configuration is nested too deeply")


def passes(clause: Clause, value: Any) -> bool:
    """Test an attribute's value; of a list, any element may match, and a negated operator must see every one pass.

    Of a list that is too long only the beginning is looked at; so a negated operator has not seen every one.
    """
    if value is None:
        return False
    if not isinstance(value, list):
        return clause.test(clause.operand, value) is clause.wanted
    elements = _within(clause.reach, value)
    passed = (clause.test(clause.operand, element) is clause.wanted for element in elements)
    return any(passed) if clause.wanted else len(elements) == len(value) and all(passed)


def _within(reach: Reach, values: list[Any]) -> list[Any]:
    """Return the elements that are looked at; always the first, of which an operator sees no more than it may."""
    elements = values[: reach.elements]
    if reach.characters is not None:
        left = reach.characters
        for index, element in enumerate(elements):
            left -= len(element) if isinstance(element, str) else 0
            if left < 0:
                return elements[: max(index, 1)]
    return elements


def _answered(run: "Run", flag: Flag) -> Evaluation:
    try:
        return run.flag(flag)
    except RecursionError:
        return too_deep(flag)


def _failed(flag: Flag, code: ErrorCode, detail: str) -> Evaluation:
    return replace(flag.off, reason=Reason.ERROR, error_code=code, error_detail=detail)


class Run:
    """The evaluation of any number of flags for one context at one moment.

    Its methods are the steps of the order; `relay.engine.explain` looks on at each.
    """

    __slots__ = ("_flags", "_members", "context", "environment", "now_ms", "unit")

    def __init__(self, environment: Environment, context: dict[str, Any], now_ms: int) -> None:
        self.environment = environment
        self.context = context
        self.now_ms = now_ms
        self.unit = unit_of(context.get(UNIT))
        self._flags: dict[str, Evaluation] = {}
        self._members: dict[str, bool] = {}

    def flag(self, flag: Flag) -> Evaluation:
        """Evaluate a flag, once."""
        known = self._flags.get(flag.key)
        if known is None:
            known = self._flags[flag.key] = self.decided(flag)
        return known

    def decided(self, flag: Flag) -> Evaluation:
        """Work out a flag's answer, in the order that is promised."""
        if not flag.enabled:
            return flag.off
        if flag.key in self.environment.unsettled:
            return unsettled(flag)
        for prerequisite in flag.prerequisites:
            if not self.holds(prerequisite):
                return prerequisite.failed
        return self.elsewhere(flag) or self.targeted(flag) or self.ruled(flag) or self.fallen_through(flag)

    def holds(self, prerequisite: Prerequisite) -> bool:
        """Tell whether the flag that is required is there, on, and serves what is required of it."""
        required = self.environment.flags.get(prerequisite.flag)
        if required is None:
            return False
        found = self.flag(required)
        return found.reason in ON and (prerequisite.variations is None or found.variation in prerequisite.variations)

    def elsewhere(self, flag: Flag) -> Evaluation | None:
        """Answer for units that belong to another flag of the exclusion group."""
        group = flag.group
        if group is None:
            return None
        if self.unit is None:
            return group.without_unit
        is_ours = winner(group.name, self.environment.groups[group.name], self.unit) == flag.key
        return None if is_ours else group.excluded

    def targeted(self, flag: Flag) -> Evaluation | None:
        """Answer for a unit that is named."""
        return None if self.unit is None else flag.targets.get(self.unit)

    def ruled(self, flag: Flag) -> Evaluation | None:
        """Answer with the first rule that matches."""
        for rule in flag.rules:
            answer = self.rule(rule)
            if answer is not None:
                return answer
        return None

    def rule(self, rule: Rule) -> Evaluation | None:
        """Answer with a rule, if it matches. One that serves by a unit which is not there does not."""
        return self.served(rule.serve) if self.can_decide(rule.needs) and self.meets(rule.when) else None

    def fallen_through(self, flag: Flag) -> Evaluation:
        """Answer where nothing matched."""
        return self.served(flag.fallthrough) or flag.without_unit

    def can_decide(self, needs: Needs) -> bool:
        """Tell whether every operator is understood and every segment usable."""
        if needs.unknown_operators:
            return False
        return not needs.segments or needs.segments <= self.environment.usable.keys()

    def served(self, serve: Serve) -> Evaluation | None:
        """Answer with what is served to this unit; None where there is no unit to tell."""
        if isinstance(serve, Fixed):
            return serve.outcome
        unit = unit_of(lookup(self.context, serve.by))
        if unit is None:
            return None
        drawn = bucket("rollout", serve.salt, unit)
        if isinstance(serve, Split):
            return serve.outcomes[bisect_right(serve.bounds, drawn)]
        return serve.to if drawn < share_of(serve, self.now_ms) else serve.otherwise

    def meets(self, condition: Condition) -> bool:  # noqa: PLR0911 - one per kind of condition
        """Tell whether a condition holds; all that it needs is there."""
        match condition:
            case Clause():
                return passes(condition, lookup(self.context, condition.attribute))
            case All():
                return all(map(self.meets, condition.conditions))
            case AnyOf():
                return any(map(self.meets, condition.conditions))
            case Not():
                return not self.meets(condition.condition)
            case InSegment():
                return self.is_in(condition.segment)
            case Exists():
                return lookup(self.context, condition.attribute) is not None
            case PercentageOf():
                unit = unit_of(lookup(self.context, condition.attribute))
                return unit is not None and bucket("rollout", condition.salt, unit) < condition.share
            case _:  # an unknown operator
                return False

    def is_in(self, key: str) -> bool:
        """Tell whether the context is in a segment, once. Who is excluded by name stays out, whatever else holds."""
        known = self._members.get(key)
        if known is None:
            known = self._members[key] = self.is_member(self.environment.usable[key])
        return known

    def is_member(self, segment: Segment) -> bool:
        """Work out the membership in a segment."""
        if self.unit in segment.exclude:
            return False
        return self.unit in segment.include or (segment.when is not None and self.meets(segment.when))
