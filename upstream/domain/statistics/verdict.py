"""The verdict on an experiment: one word that a program can act on, and sentences that a person can.

In this order: a sample-ratio mismatch blocks; a fixed horizon that is not reached keeps running, as what is seen on the
way would be wrong too often; a variant that is better on the primary metric and worse on none ships; one that is better
but harms another metric does not; where all are worse, or the planned size has shown no difference, nothing ships; else
the experiment keeps running. The rules see findings, never figures: what is significant was decided before, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """How a result is reached, and so when it may be looked at."""

    FIXED = "fixed"
    SEQUENTIAL = "sequential"
    BAYESIAN = "bayesian"


class Finding(StrEnum):
    """What a metric says of a variant against the control, by the metric's own goal."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"
    UNKNOWN = "unknown"


class Decision(StrEnum):
    """What to do with the experiment."""

    SHIP = "ship"
    DO_NOT_SHIP = "do_not_ship"
    KEEP_RUNNING = "keep_running"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant other than the control: its finding on the primary metric, and the metrics that it makes worse."""

    variant: str
    finding: Finding
    harms: Sequence[str]
    chance_best: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, the variant to ship if one is, and why in plain sentences."""

    decision: Decision
    variant: str | None
    sentence: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the verdict rests on. `findings` of secondary metrics have become the candidates' harms."""

    method: Method
    primary: str
    control: str
    candidates: Sequence[Candidate]
    units: Mapping[str, int]
    planned_total: int
    is_mismatch: bool

    @property
    def total(self) -> int:
        """Units seen in all variants."""
        return sum(self.units.values())

    @property
    def is_complete(self) -> bool:
        """Whether the planned number of units was reached."""
        return self.total >= self.planned_total


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict."""
    if evidence.is_mismatch:
        return _blocked(evidence)
    if evidence.method is Method.FIXED and not evidence.is_complete:
        return _running(
            evidence,
            "A result by the fixed method holds only at the planned number of units; "
            "looking for a winner before finds one too often where there is none.",
        )
    return _claimed(evidence) or _unclaimed(evidence)


def _claimed(evidence: Evidence) -> Verdict | None:
    """Return the verdict where the primary metric has told every variant that matters from the control."""
    better = [each for each in evidence.candidates if each.finding is Finding.BETTER]
    clean = [each for each in better if not each.harms]
    if clean:
        winner = max(clean, key=lambda each: each.chance_best)
        sentence = f"Ship {winner.variant!r}: {evidence.primary!r} is better than with {evidence.control!r}."
        return Verdict(Decision.SHIP, winner.variant, sentence, _reasons(evidence))
    if better:
        sentence = f"Do not ship: what makes {evidence.primary!r} better makes other metrics worse."
        return Verdict(Decision.DO_NOT_SHIP, None, sentence, _reasons(evidence))
    if all(each.finding is Finding.WORSE for each in evidence.candidates):
        sentence = f"Do not ship: {evidence.primary!r} is worse than with {evidence.control!r}."
        return Verdict(Decision.DO_NOT_SHIP, None, sentence, _reasons(evidence))
    return None


def _unclaimed(evidence: Evidence) -> Verdict:
    if any(each.finding is Finding.UNKNOWN for each in evidence.candidates):
        return _running(evidence, "There is too little data, or none that varies, to compare every variant.")
    if not evidence.is_complete:
        return _running(evidence, f"No variant is told from {evidence.control!r} yet.")
    sentence = f"Do not ship: {evidence.total} units have shown no variant better on {evidence.primary!r}."
    return Verdict(Decision.DO_NOT_SHIP, None, sentence, _reasons(evidence))


def _blocked(evidence: Evidence) -> Verdict:
    seen = ", ".join(f"{name!r} {count}" for name, count in evidence.units.items())
    return Verdict(
        Decision.BLOCKED,
        None,
        "Blocked: the variants do not have the shares of the units that the experiment gives them.",
        (
            f"Units seen: {seen}. Chance does not explain that.",
            "Look for exposures that are lost or sent late in one variant, redirects, and bots; then start anew.",
        ),
    )


def _running(evidence: Evidence, reason: str) -> Verdict:
    sentence = f"Keep running: {evidence.total} of {evidence.planned_total} planned units are seen."
    return Verdict(Decision.KEEP_RUNNING, None, sentence, (reason, *_reasons(evidence)))


def _reasons(evidence: Evidence) -> tuple[str, ...]:
    return tuple(
        f"{each.variant!r}: {evidence.primary!r} is {each.finding}"
        + (f"; it makes {', '.join(repr(key) for key in each.harms)} worse." if each.harms else ".")
        for each in evidence.candidates
        if each.finding is not Finding.UNKNOWN
    )
