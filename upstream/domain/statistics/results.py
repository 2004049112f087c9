"""The results of an experiment: every variant against the control on every metric, corrected, and the verdict.

The way into this package. The primary metric's comparisons are one family for the correction and all secondary ones
another: the primary alone can ship a variant, the secondary can only hold it back. Bayesian results have no p-value and
are not corrected; there a variant is better (or worse) where the chance of that is at least 1 - alpha.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from upstream.domain.statistics.bayesian import Standing, chance_above, compare_beliefs, standings
from upstream.domain.statistics.correction import Correction, adjusted, interval_alpha
from upstream.domain.statistics.fixed import compare_fixed
from upstream.domain.statistics.mismatch import SampleRatio, sample_ratio
from upstream.domain.statistics.samples import Comparison, Rate, Sample, require_count, require_share
from upstream.domain.statistics.sequential import compare_sequentially
from upstream.domain.statistics.verdict import Candidate, Evidence, Finding, Method, Verdict, judge


class Goal(StrEnum):
    """Which way is better on a metric."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Metric:
    """The samples of all variants on one metric, control included."""

    key: str
    samples: Mapping[str, Sample]
    goal: Goal = Goal.HIGHER


@dataclass(frozen=True, slots=True)
class Design:
    """What was fixed before the experiment started. `planned_total` is in units of the whole experiment."""

    control: str
    weights: Mapping[str, float]
    planned_total: int
    method: Method = Method.SEQUENTIAL
    alpha: float = 0.05
    correction: Correction = Correction.HOLM

    def __post_init__(self) -> None:
        require_share("alpha", self.alpha)
        require_count("planned_total", self.planned_total, least=1)
        if self.control not in self.weights:
            raise ValueError(f"control must be one of the variants {sorted(self.weights)}, and is {self.control!r}")
        if len(self.weights) < 2:  # noqa: PLR2004 - a control and what is compared with it
            raise ValueError("weights must name at least two variants")


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One variant on one metric. Of the control only sample, value and standing are known."""

    variant: str
    sample: Sample
    value: float | None
    comparison: Comparison = field(default_factory=Comparison)
    adjusted_p_value: float | None = None
    chance_to_win: float | None = None
    standing: Standing | None = None
    finding: Finding = Finding.UNKNOWN

    @property
    def units(self) -> int:
        """Units seen."""
        return self.sample.units

    @property
    def conversions(self) -> int | None:
        """Units that converted; None of a mean."""
        return self.sample.conversions if isinstance(self.sample, Rate) else None


@dataclass(frozen=True, slots=True)
class Results:
    """All that an experiment says: per metric and variant, how the units are divided, and the verdict."""

    primary: Mapping[str, VariantResult]
    secondary: Mapping[str, Mapping[str, VariantResult]]
    ratio: SampleRatio
    verdict: Verdict


def results(design: Design, primary: Metric, secondary: Sequence[Metric] = ()) -> Results:
    """Return the results; units are those of the primary metric.

    Raises:
        ValueError: a metric does not have the design's variants, two have one key, or samples differ in kind.
    """
    _check(design, (primary, *secondary))
    units = {name: primary.samples[name].units for name in design.weights}
    ratio = sample_ratio(units, design.weights)
    first = _family(design, (primary,))[primary.key]
    others = _family(design, secondary)
    candidates = [
        Candidate(
            name,
            found.finding,
            tuple(key for key, found_by in others.items() if found_by[name].finding is Finding.WORSE),
            found.standing.chance_best if found.standing else 0.0,
        )
        for name, found in first.items()
        if name != design.control
    ]
    evidence = Evidence(
        method=design.method,
        primary=primary.key,
        control=design.control,
        candidates=candidates,
        units=units,
        planned_total=design.planned_total,
        is_mismatch=ratio.is_mismatch,
    )
    return Results(first, others, ratio, judge(evidence))


def _check(design: Design, metrics: Sequence[Metric]) -> None:
    keys = [metric.key for metric in metrics]
    if len(set(keys)) < len(keys):
        raise ValueError(f"metrics must have different keys, and have {keys}")
    for metric in metrics:
        if metric.samples.keys() != design.weights.keys():
            raise ValueError(
                f"metric {metric.key!r} must have samples of {sorted(design.weights)}, and has {sorted(metric.samples)}"
            )


def _family(design: Design, metrics: Sequence[Metric]) -> dict[str, dict[str, VariantResult]]:
    """Return the results of metrics whose comparisons are corrected together."""
    questions = [(metric, name) for metric in metrics for name in design.weights if name != design.control]
    plain = {(metric.key, name): _compare(design, metric, name, design.alpha) for metric, name in questions}
    p_values = adjusted({question: found.p_value for question, found in plain.items()}, design.correction)
    alpha = design.alpha
    if design.method is not Method.BAYESIAN:
        alpha = interval_alpha(p_values, alpha, design.correction)
    found: dict[str, dict[str, VariantResult]] = {}
    for metric in metrics:
        ranks = standings(metric.samples, higher_is_better=metric.goal is Goal.HIGHER) or {}
        found[metric.key] = {
            name: VariantResult(name, metric.samples[name], metric.samples[name].value, standing=ranks.get(name))
            for name in design.weights
        }
    for metric, name in questions:
        question = (metric.key, name)
        comparison = plain[question] if alpha == design.alpha else _compare(design, metric, name, alpha)
        found[metric.key][name] = _told(design, metric, found[metric.key][name], comparison, p_values[question])
    return found


def _compare(design: Design, metric: Metric, variant: str, alpha: float) -> Comparison:
    control, treatment = metric.samples[design.control], metric.samples[variant]
    if design.method is Method.BAYESIAN:
        return compare_beliefs(control, treatment, alpha=alpha)
    chance = chance_above(control, treatment)
    if design.method is Method.FIXED:
        return replace(compare_fixed(control, treatment, alpha=alpha), chance_above=chance)
    each = max(design.planned_total // len(design.weights), 1)
    return replace(compare_sequentially(control, treatment, alpha=alpha, planned_units=each), chance_above=chance)


def _told(
    design: Design, metric: Metric, result: VariantResult, comparison: Comparison, p_value: float | None
) -> VariantResult:
    chance = comparison.chance_above
    if chance is not None and metric.goal is Goal.LOWER:
        chance = 1 - chance
    return replace(
        result,
        comparison=comparison,
        adjusted_p_value=p_value,
        chance_to_win=chance,
        finding=_finding(design, metric.goal, comparison, p_value, chance),
    )


def _finding(
    design: Design, goal: Goal, comparison: Comparison, p_value: float | None, chance: float | None
) -> Finding:
    if design.method is Method.BAYESIAN:
        if chance is None:
            return Finding.UNKNOWN
        if min(chance, 1 - chance) > design.alpha:
            return Finding.UNCLEAR
        return Finding.BETTER if chance > 0.5 else Finding.WORSE  # noqa: PLR2004 - more likely than not
    if p_value is None or comparison.difference is None:
        return Finding.UNKNOWN
    if p_value > design.alpha:
        return Finding.UNCLEAR
    return Finding.BETTER if (comparison.difference > 0) is (goal is Goal.HIGHER) else Finding.WORSE
