"""What can change a flag's answer: attributes of the context, and the passing of time.

An upper bound, worked out from the configuration alone: an answer may depend on less for a given context, never on
more. Two contexts in which these attributes have the same values get the same answer, up to the next of these moments.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from relay.engine.context import UNIT
from relay.engine.evaluate import next_step_ms
from relay.engine.model import (
    All,
    AnyOf,
    Clause,
    Condition,
    Environment,
    Exists,
    Fixed,
    Flag,
    InSegment,
    Not,
    PercentageOf,
    Ramp,
)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Paths of the attributes that a flag's answer depends on, and the ramps that move it as time passes."""

    attributes: frozenset[str]
    ramps: tuple[Ramp, ...]

    def next_change_at(self, now_ms: int) -> int | None:
        """Return the first moment after `now_ms` at which time changes anything, None if it never does."""
        steps = [next_step_ms(ramp, now_ms) for ramp in self.ramps]
        return min((step for step in steps if step is not None), default=None)


def depends_on(environment: Environment, flag_key: str) -> Dependencies:
    """Return what the answer of a flag depends on; nothing, for a flag that does not exist."""
    attributes: set[str] = set()
    ramps: list[Ramp] = []
    segments: set[str] = set()
    for flag in _with_required(environment, flag_key):
        if flag.group is not None or flag.targets:
            attributes.add(UNIT)
        # A rule that cannot be decided in this revision never matches, whatever the context.
        rules = [
            rule for rule in flag.rules if _is_decidable(rule.needs.unknown_operators, rule.needs.segments, environment)
        ]
        for rule in rules:
            attributes.update(_attributes_of([rule.when]))
            segments |= rule.needs.segments
        for serve in (flag.fallthrough, *(rule.serve for rule in rules)):
            if not isinstance(serve, Fixed):
                attributes.add(serve.by.path)
            if isinstance(serve, Ramp):
                ramps.append(serve)
    for segment in _with_nested(environment, segments):
        held = environment.usable[segment]
        if held.include or held.exclude:
            attributes.add(UNIT)
        if held.when is not None:
            attributes.update(_attributes_of([held.when]))
    return Dependencies(frozenset(attributes), tuple(ramps))


def _is_decidable(unknown_operators: frozenset[str], segments: frozenset[str], environment: Environment) -> bool:
    return not unknown_operators and segments <= environment.usable.keys()


def _with_required(environment: Environment, flag_key: str) -> Iterator[Flag]:
    """Yield the flag and all that it requires, over any number of steps: those that are on and can be decided."""
    waiting, known = [flag_key], {flag_key}
    while waiting:
        flag = environment.flags.get(waiting.pop())
        if flag is None or not flag.enabled or flag.key in environment.unsettled:
            continue
        yield flag
        needed = {prerequisite.flag for prerequisite in flag.prerequisites} - known
        known |= needed
        waiting += needed


def _with_nested(environment: Environment, segments: Iterable[str]) -> set[str]:
    """Return the segments, all of them usable, and those inside them."""
    known, waiting = set(segments), list(segments)
    while waiting:
        more = environment.usable[waiting.pop()].needs.segments - known
        known |= more
        waiting += more
    return known


def _attributes_of(conditions: Iterable[Condition]) -> Iterator[str]:
    for condition in conditions:
        match condition:
            case All(inner) | AnyOf(inner):
                yield from _attributes_of(inner)
            case Not(one):
                yield from _attributes_of([one])
            case Clause() | Exists() | PercentageOf():
                yield condition.attribute.path
            case InSegment() | _:
                pass
