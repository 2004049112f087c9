"""Says why: the interpreter's own run, with a note of every step that it takes and of what each one compared.

Nothing is decided here; every note stands beside a call of the interpreter, so an explanation cannot differ from the
evaluation that it explains. Texts are for people, `facts` are the same for programs.
"""

import json
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from relay.engine.bucketing import bucket, draw
from relay.engine.context import lookup, unit_of
from relay.engine.evaluate import Run, no_context, no_flag, share_of, too_deep
from relay.engine.model import (
    All,
    AnyOf,
    Clause,
    Condition,
    Environment,
    Evaluation,
    Exists,
    Fixed,
    Flag,
    InSegment,
    Not,
    PercentageOf,
    Prerequisite,
    Ramp,
    Rule,
    Segment,
    Serve,
    Split,
)

_SHOWN_VALUES: Final = 20
_SHOWN_CHARACTERS: Final = 120
_SHOWN_BITS: Final = 512


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an evaluation: of which kind, whether it held, what was compared, and the steps inside it.

    `holds` is None for a step that has no yes or no, such as what a split serves.
    """

    kind: str
    holds: bool | None
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    inner: tuple["Step", ...] = ()

    def members(self) -> dict[str, Any]:
        """Return the step as JSON members."""
        told: dict[str, Any] = {"step": self.kind, "holds": self.holds, "text": self.text, **self.facts}
        if self.inner:
            told["steps"] = [step.members() for step in self.inner]
        return told


@dataclass(frozen=True, slots=True)
class Explanation:
    """An evaluation and the steps that led to it, in order."""

    evaluation: Evaluation
    steps: tuple[Step, ...]


def explain(environment: Environment, flag_key: str, context: Any, now_ms: int) -> Explanation:
    """Evaluate one flag, and say why. Total, as `relay.engine.evaluate.evaluate`."""
    flag = environment.flags.get(flag_key)
    if flag is None:
        return Explanation(no_flag(environment, flag_key), ())
    if not isinstance(context, dict):
        return Explanation(no_context(flag), ())
    run = _Explained(environment, context, now_ms)
    try:
        answer = run.flag(flag)
    except RecursionError:
        answer = too_deep(flag)
    return Explanation(answer, run.steps())


class _Explained(Run):
    """A run that notes what it does. Each override asks the interpreter and notes what came of it."""

    __slots__ = ("_open",)

    def __init__(self, environment: Environment, context: dict[str, Any], now_ms: int) -> None:
        super().__init__(environment, context, now_ms)
        self._open: list[list[Step]] = [[]]

    def steps(self) -> tuple[Step, ...]:
        """Return the steps of the run."""
        return tuple(self._open[0])

    def decided(self, flag: Flag) -> Evaluation:
        """Note the switch, and prerequisites that lead nowhere."""
        self._note("switch", flag.enabled, f"{flag.key!r} is switched {'on' if flag.enabled else 'off'}")
        if flag.enabled and flag.key in self.environment.unsettled:
            self._note("prerequisites", False, "the prerequisites form a cycle or nest too deeply")  # noqa: FBT003
        return super().decided(flag)

    def holds(self, prerequisite: Prerequisite) -> bool:
        """Note a prerequisite, with the evaluation of the flag that it names."""
        with self._inside() as inner:
            result = super().holds(prerequisite)
        facts: dict[str, Any] = {"flag": prerequisite.flag}
        wanted = "it must be on"
        if prerequisite.variations is not None:
            facts["variations"] = sorted(prerequisite.variations)
            wanted = f"it must be on and serve {_any_of(facts['variations'])}"
        required = self.environment.flags.get(prerequisite.flag)
        if required is None:
            text = f"needs {prerequisite.flag!r}, which does not exist"
        else:
            found = self.flag(required)
            facts |= {"variation": found.variation, "reason": found.reason}
            served = "no value" if found.variation is None else repr(found.variation)
            text = f"needs {prerequisite.flag!r}: {wanted}, and it serves {served} ({found.reason})"
        self._note("prerequisite", result, text, facts, inner)
        return result

    def elsewhere(self, flag: Flag) -> Evaluation | None:
        """Note the draw of an exclusion group."""
        answer = super().elsewhere(flag)
        if flag.group is None:
            return answer
        name = flag.group.name
        if self.unit is None:
            self._note("group", False, f"the group {name!r} needs a targetingKey to draw for", {"group": name})  # noqa: FBT003
            return answer
        unit = self.unit
        draws = {key: draw(name, key, unit) for key in self.environment.groups[name]}
        first = max(draws, key=lambda key: (draws[key], key))
        facts = {"group": name, "unit": unit, "draws": dict(sorted(draws.items())), "winner": first}
        text = f"in the group {name!r} the unit {unit!r} belongs to {first!r}, of {len(draws)} flags"
        self._note("group", answer is None, text, facts)
        return answer

    def targeted(self, flag: Flag) -> Evaluation | None:
        """Note whether the unit is named."""
        answer = super().targeted(flag)
        if not flag.targets:
            return answer
        facts = {"unit": self.unit, "named": len(flag.targets)}
        if answer is not None:
            text = f"the unit {self.unit!r} is named under {answer.variation!r}"
        elif self.unit is None:
            text = f"{len(flag.targets)} units are named, and the context has no targetingKey"
        else:
            text = f"the unit {self.unit!r} is not among the {len(flag.targets)} that are named"
        self._note("targets", answer is not None, text, facts)
        return answer

    def rule(self, rule: Rule) -> Evaluation | None:
        """Note a rule, with its conditions and what it serves."""
        with self._inside() as inner:
            answer = super().rule(rule)
        facts: dict[str, Any] = {"rule_id": rule.id}
        if answer is not None:
            text = f"rule {rule.id!r} matches"
        elif rule.needs.unknown_operators:
            facts["unknown_operators"] = sorted(rule.needs.unknown_operators)
            text = f"rule {rule.id!r} is skipped: this version does not know {_listed(facts['unknown_operators'])}"
        elif not self.can_decide(rule.needs):
            facts["unusable_segments"] = sorted(rule.needs.segments - self.environment.usable.keys())
            text = f"rule {rule.id!r} is skipped: {_listed(facts['unusable_segments'])} cannot be used as a segment"
        elif inner and inner[0].holds:
            text = f"rule {rule.id!r} does not match: its condition holds, but there is no unit to serve by"
        else:
            text = f"rule {rule.id!r} does not match"
        self._note("rule", answer is not None, text, facts, inner)
        return answer

    def fallen_through(self, flag: Flag) -> Evaluation:
        """Note what is served where nothing matched."""
        with self._inside() as inner:
            answer = super().fallen_through(flag)
        what = (
            "nothing matched, so the fallthrough decides" if flag.rules or flag.targets else "the fallthrough decides"
        )
        self._note("fallthrough", None, what, {}, inner)
        return answer

    def served(self, serve: Serve) -> Evaluation | None:
        """Note what is served, with the bucket and the ranges where one decides."""
        answer = super().served(serve)
        if isinstance(serve, Fixed):
            self._note("serve", None, f"serves {serve.outcome.variation!r}", {"variation": serve.outcome.variation})
            return answer
        unit = unit_of(lookup(self.context, serve.by))
        kind = "split" if isinstance(serve, Split) else "ramp"
        if unit is None or answer is None:
            text = f"the context has no {serve.by.path!r} that is a unit: a string that is not empty, or an integer"
            self._note(kind, None, text, {"by": serve.by.path, "unit": None})
            return answer
        drawn = bucket("rollout", serve.salt, unit)
        facts: dict[str, Any] = {
            "by": serve.by.path,
            "unit": unit,
            "salt": serve.salt,
            "bucket": drawn,
            "variation": answer.variation,
        }
        if isinstance(serve, Split):
            facts["ranges"] = [
                {"variation": outcome.variation, "from": low, "to": high}
                for outcome, low, high in zip(serve.outcomes, (0, *serve.bounds), serve.bounds, strict=False)
            ]
            low, high = next(
                (each["from"], each["to"]) for each in facts["ranges"] if each["from"] <= drawn < each["to"]
            )
            text = f"{unit!r} is in bucket {drawn}, and {low}..{high - 1} serve {answer.variation!r}"
        else:
            text = self._ramp_text(serve, drawn, unit, facts)
        self._note(kind, None, text, facts)
        return answer

    def meets(self, condition: Condition) -> bool:
        """Note a condition, with those inside it that were looked at."""
        with self._inside() as inner:
            result = super().meets(condition)
        kind, text, facts = self._told(condition, result, len(inner))
        self._note(kind, result, text, facts, inner)
        return result

    def is_member(self, segment: Segment) -> bool:
        """Note why the context is in a segment or not."""
        result = super().is_member(segment)
        if self.unit in segment.exclude:
            self._note("excluded", True, f"the unit {self.unit!r} is excluded by name")  # noqa: FBT003
        elif self.unit in segment.include:
            self._note("included", True, f"the unit {self.unit!r} is included by name")  # noqa: FBT003
        elif segment.when is None:
            self._note("included", False, "the unit is not included by name, and the segment has no condition")  # noqa: FBT003
        return result

    def _ramp_text(self, ramp: Ramp, drawn: int, unit: str, facts: dict[str, Any]) -> str:
        share = share_of(ramp, self.now_ms)
        facts |= {"share": share, "target": ramp.target, "start_at_ms": ramp.start_at_ms}
        served = ramp.to if drawn < share else ramp.otherwise
        stands = f"the ramp stands at {share / 1000:g} % of {ramp.target / 1000:g} %"
        return f"{unit!r} is in bucket {drawn}, {stands}, so {served.variation!r} is served"

    def _told(self, condition: Condition, result: bool, looked_at: int) -> tuple[str, str, dict[str, Any]]:  # noqa: FBT001, PLR0911 - one per kind
        match condition:
            case Clause():
                return "clause", *self._told_clause(condition, result=result)
            case All(conditions) | AnyOf(conditions):
                kind = "all" if isinstance(condition, All) else "any"
                left = len(conditions) - looked_at
                more = f"; {left} more not looked at" if left else ""
                return kind, f"{kind} of {len(conditions)}{more}", {"of": len(conditions), "not_looked_at": left}
            case Not():
                return "not", "not", {}
            case InSegment(key):
                return "segment", f"is {'' if result else 'not '}in the segment {key!r}", {"segment": key}
            case Exists(attribute):
                return (
                    "exists",
                    f"{attribute.path} is {'there' if result else 'missing'}",
                    {"attribute": attribute.path},
                )
            case PercentageOf(attribute, salt, share):
                return "percentage_of", *self._told_share(attribute.path, lookup(self.context, attribute), salt, share)
            case _:
                return "unknown_operator", f"this version does not know {condition.op!r}", {"op": condition.op}

    def _told_clause(self, clause: Clause, *, result: bool) -> tuple[str, dict[str, Any]]:
        value = lookup(self.context, clause.attribute)
        facts: dict[str, Any] = {
            "attribute": clause.attribute.path,
            "op": clause.op,
            "values": list(clause.values[:_SHOWN_VALUES]),
            "fold_case": clause.fold_case,
            "actual": value,
        }
        more = len(clause.values) - _SHOWN_VALUES
        wanted = _listed(facts["values"]) + (f" and {more} more" if more > 0 else "")
        asked = f"{clause.attribute.path} {clause.op} {wanted}{' (case folded)' if clause.fold_case else ''}"
        if value is None:
            return f"{asked}: the context has no {clause.attribute.path!r}", facts
        if not result and not isinstance(value, list) and clause.test(clause.operand, value) is None:
            return f"{asked}: it is {_shown(value)}, which {clause.op} cannot read", facts
        return f"{asked}: it is {_shown(value)}", facts

    @staticmethod
    def _told_share(path: str, value: Any, salt: str, share: int) -> tuple[str, dict[str, Any]]:
        facts: dict[str, Any] = {"attribute": path, "share": share, "salt": salt, "actual": value}
        unit = unit_of(value)
        if unit is None:
            return f"percentage_of {path}: the context has no {path!r} that is a unit", facts
        facts["bucket"] = bucket("rollout", salt, unit)
        return f"percentage_of {path}: {unit!r} is in bucket {facts['bucket']}, and 0..{share - 1} are meant", facts

    def _note(
        self,
        kind: str,
        holds: bool | None,  # noqa: FBT001 - the step's own word
        text: str,
        facts: Mapping[str, Any] | None = None,
        inner: list[Step] | None = None,
    ) -> None:
        self._open[-1].append(Step(kind, holds, text, facts or {}, tuple(inner or ())))

    @contextmanager
    def _inside(self) -> Iterator[list[Step]]:
        """Collect the steps that are noted meanwhile."""
        inner: list[Step] = []
        self._open.append(inner)
        try:
            yield inner
        finally:
            self._open.pop()


class _Short(reprlib.Repr):
    """Shows lists and objects only as deep as a line has room for, and no number that Python refuses to print."""

    def repr_int(self, x: int, _level: int) -> str:
        """Return an integer, or how large it is."""
        return str(x) if x.bit_length() <= _SHOWN_BITS else f"an integer of {x.bit_length()} bits"


def _shown(value: Any) -> str:
    """Return a value as JSON would write it, shortened."""
    is_plain = value is None or isinstance(value, str | bool | float)
    text = json.dumps(value, ensure_ascii=False) if is_plain else _Short().repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _listed(values: list[Any]) -> str:
    return ", ".join(map(_shown, values)) or "nothing"


def _any_of(values: list[str]) -> str:
    return _listed(list(values)) if len(values) == 1 else f"one of {_listed(list(values))}"
