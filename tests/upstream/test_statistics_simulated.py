"""Statistics against known truth: simulated experiments, of which it is known whether there is a difference.

Seeds are fixed, so every run draws the same experiments. What is asserted is what docs/experiments.md promises. Data
come from numpy, results from the functions that the authority calls. They know no database, so they run once, in the
last part.
"""

from collections.abc import Callable

import numpy as np
import pytest

from upstream.domain.statistics.fixed import compare_fixed
from upstream.domain.statistics.mismatch import sample_ratio
from upstream.domain.statistics.planning import Plan, power_for_mean, power_for_rate, size_for_mean, size_for_rate
from upstream.domain.statistics.samples import Mean, Rate, Sample
from upstream.domain.statistics.sequential import compare_sequentially

pytestmark = pytest.mark.timed
EXPERIMENTS = 2_000
LOOKS = 100
REPEATS = 4_000
# 95 ± 1.5 %: more than four standard errors of a share seen in the repeats.
COVERED = (0.935, 0.965)

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def peeks(rng: np.random.Generator, draw: Draw, per_look: int) -> tuple[np.ndarray, np.ndarray]:
    """Return running totals and sums of squares, an experiment a row and a look a column."""
    totals, squares = [], []
    for _ in range(EXPERIMENTS):
        values = draw(rng, LOOKS, per_look)
        totals.append(values.sum(axis=1).cumsum())
        squares.append((values * values).sum(axis=1).cumsum())
    return np.array(totals), np.array(squares)


def binomial_peeks(rng: np.random.Generator, rate: float, per_look: int) -> list[list[int]]:
    """Return running conversions, an experiment a row and a look a column."""
    drawn: list[list[int]] = rng.binomial(per_look, rate, size=(EXPERIMENTS, LOOKS)).cumsum(axis=1).tolist()
    return drawn


def is_claimed(control: Sample, treatment: Sample) -> bool:
    """Whether the sequential test claims a difference."""
    p_value = compare_sequentially(control, treatment, planned_units=5_000).p_value
    return p_value is not None and p_value <= 0.05


@pytest.mark.parametrize(("rate", "share"), [(0.05, 0.5), (0.3, 0.5), (0.01, 0.5), (0.1, 0.1)])
def test_peeking_at_no_difference_claims_one_in_five_percent_at_most(rate: float, share: float) -> None:
    """2,000 A/A experiments on a rate, looked at 100 times up to 10,000 units a variant (or as the shares have it)."""
    rng = np.random.default_rng(7)
    of_control, of_treatment = round(20_000 * (1 - share)) // LOOKS, round(20_000 * share) // LOOKS
    base, other = binomial_peeks(rng, rate, of_control), binomial_peeks(rng, rate, of_treatment)
    found = 0
    for control, treatment in zip(base, other, strict=True):
        found += any(
            is_claimed(Rate(of_control * look, seen), Rate(of_treatment * look, seen_there))
            for look, (seen, seen_there) in enumerate(zip(control, treatment, strict=True), 1)
        )
    assert found / EXPERIMENTS <= 0.05


def skewed(rng: np.random.Generator, looks: int, units: int) -> np.ndarray:
    """Return values of which most are small and a few large, as order values are."""
    return np.asarray(rng.lognormal(0, 1, size=(looks, units)))


def counts(rng: np.random.Generator, looks: int, units: int) -> np.ndarray:
    """Return counts per unit, most of them 0."""
    return np.asarray(rng.poisson(0.2, size=(looks, units)), dtype=float)


@pytest.mark.parametrize("draw", [skewed, counts])
def test_peeking_at_equal_means_claims_a_difference_in_five_percent_at_most(draw: Draw) -> None:
    """2,000 A/A experiments on a mean of skewed values or counts, looked at 100 times up to 5,000 units a variant."""
    rng, per_look = np.random.default_rng(8), 5_000 // LOOKS
    (totals, squares), (others, others_squares) = peeks(rng, draw, per_look), peeks(rng, draw, per_look)
    found = sum(
        any(
            is_claimed(
                Mean(per_look * (look + 1), float(totals[row, look]), float(squares[row, look])),
                Mean(per_look * (look + 1), float(others[row, look]), float(others_squares[row, look])),
            )
            for look in range(LOOKS)
        )
        for row in range(EXPERIMENTS)
    )
    assert found / EXPERIMENTS <= 0.05


def test_peeking_with_the_fixed_method_claims_far_more() -> None:
    """What the sequential method is there for: the same looks with the fixed one claim a difference far too often."""
    rng, per_look = np.random.default_rng(7), 10_000 // LOOKS
    base, other = binomial_peeks(rng, 0.05, per_look), binomial_peeks(rng, 0.05, per_look)
    found = sum(
        any(
            (compare_fixed(Rate(per_look * look, seen), Rate(per_look * look, there)).p_value or 1) <= 0.05
            for look, (seen, there) in enumerate(zip(base[row], other[row], strict=True), 1)
        )
        for row in range(300)
    )
    assert found / 300 > 0.15


def test_sequential_intervals_hold_the_truth_at_every_look() -> None:
    """In at least 95 % of 2,000 experiments with a difference, all intervals hold it, and the lift's hold the lift."""
    rng, per_look = np.random.default_rng(9), 10_000 // LOOKS
    base, other = binomial_peeks(rng, 0.10, per_look), binomial_peeks(rng, 0.12, per_look)
    held = lift_held = 0
    for control, treatment in zip(base, other, strict=True):
        found = [
            compare_sequentially(Rate(per_look * look, seen), Rate(per_look * look, there), planned_units=5_000)
            for look, (seen, there) in enumerate(zip(control, treatment, strict=True), 1)
        ]
        held += all(each.interval is None or 0.02 in each.interval for each in found)
        lift_held += all(each.lift_interval is None or 0.2 in each.lift_interval for each in found)
        assert found[-1].lift_interval is not None
    assert held / EXPERIMENTS >= 0.95
    assert lift_held / EXPERIMENTS >= 0.95


@pytest.mark.parametrize(
    ("base", "other", "units", "others"),
    [(0.1, 0.12, 1_000, 1_000), (0.5, 0.5, 200, 200), (0.02, 0.03, 4_000, 1_000), (0.9, 0.8, 300, 500)],
)
def test_fixed_intervals_of_rates_cover_as_they_say(base: float, other: float, units: int, others: int) -> None:
    """95 ± 1.5 % of the intervals hold the true difference, and as many of those of the lift the true lift."""
    rng = np.random.default_rng(10)
    held = lift_held = 0
    drawn = zip(rng.binomial(units, base, REPEATS).tolist(), rng.binomial(others, other, REPEATS).tolist(), strict=True)
    for seen, there in drawn:
        found = compare_fixed(Rate(units, seen), Rate(others, there))
        assert found.interval is not None
        assert found.lift_interval is not None
        held += other - base in found.interval
        lift_held += other / base - 1 in found.lift_interval
    assert COVERED[0] <= held / REPEATS <= COVERED[1]
    assert COVERED[0] <= lift_held / REPEATS <= COVERED[1]


@pytest.mark.parametrize("draw", [skewed, counts])
def test_fixed_intervals_of_means_cover_as_they_say(draw: Draw) -> None:
    """95 ± 1.5 % of Welch's intervals hold the true difference, and of the delta method's the true lift."""
    rng = np.random.default_rng(11)
    held = lift_held = 0
    for _ in range(REPEATS):
        base, other = draw(rng, 1, 800)[0], draw(rng, 1, 400)[0] * 1.1
        found = compare_fixed(
            Mean(800, float(base.sum()), float(base @ base)), Mean(400, float(other.sum()), float(other @ other))
        )
        mean = float(np.exp(0.5)) if draw is skewed else 0.2
        assert found.interval is not None
        assert found.lift_interval is not None
        held += mean * 0.1 in found.interval
        lift_held += 0.1 in found.lift_interval
    assert COVERED[0] <= held / REPEATS <= COVERED[1]
    assert COVERED[0] <= lift_held / REPEATS <= COVERED[1]


@pytest.mark.parametrize(
    ("base", "other", "plan"),
    [
        (0.10, 0.12, Plan()),
        (0.02, 0.025, Plan(power=0.9)),
        (0.5, 0.45, Plan(control_share=0.7, treatment_share=0.3)),
        (0.1, 0.13, Plan(control_share=1 / 3, treatment_share=1 / 3, comparisons=2)),
    ],
)
def test_as_many_differences_of_rates_are_found_as_planned(base: float, other: float, plan: Plan) -> None:
    """At the size that the formula gives, the share of experiments that find the difference is its power ± 3 points."""
    rng, size = np.random.default_rng(12), size_for_rate(base, other, plan)
    control = rng.binomial(size.control, base, REPEATS).tolist()
    treatment = rng.binomial(size.treatment, other, REPEATS).tolist()
    level = plan.alpha / plan.comparisons
    found = sum(
        (compare_fixed(Rate(size.control, seen), Rate(size.treatment, there)).p_value or 1) <= level
        for seen, there in zip(control, treatment, strict=True)
    )
    assert found / REPEATS == pytest.approx(plan.power, abs=0.03)
    assert power_for_rate(base, other, size.total, plan) == pytest.approx(plan.power, abs=0.01)


@pytest.mark.parametrize("plan", [Plan(), Plan(power=0.9, control_share=0.8, treatment_share=0.2)])
def test_as_many_differences_of_means_are_found_as_planned(plan: Plan) -> None:
    """The same of means: normal values, of which mean and variance are drawn as they are distributed."""
    rng, size = np.random.default_rng(13), size_for_mean(2.0, 0.25, plan)

    def drawn(units: int, mean: float) -> list[Mean]:
        means = rng.normal(mean, 2.0 / np.sqrt(units), REPEATS)
        spreads = 4.0 * rng.chisquare(units - 1, REPEATS)
        return [
            Mean(units, float(each * units), float(spread + each * each * units))
            for each, spread in zip(means, spreads, strict=True)
        ]

    found = sum(
        (compare_fixed(control, treatment).p_value or 1) <= plan.alpha
        for control, treatment in zip(drawn(size.control, 5.0), drawn(size.treatment, 5.25), strict=True)
    )
    assert found / REPEATS == pytest.approx(plan.power, abs=0.03)
    assert power_for_mean(2.0, 0.25, size.total, plan) == pytest.approx(plan.power, abs=0.01)


def test_a_sound_experiment_is_hardly_ever_blocked() -> None:
    """Of 2,000 experiments with the right shares, looked at 100 times, at most 1 % are ever called mismatched."""
    rng, per_look = np.random.default_rng(14), 20_000 // LOOKS
    firsts = binomial_peeks(rng, 0.3, per_look)
    blocked = sum(
        any(
            sample_ratio({"a": seen, "b": per_look * look - seen}, {"a": 3, "b": 7}).is_mismatch
            for look, seen in enumerate(row, 1)
        )
        for row in firsts
    )
    assert blocked / EXPERIMENTS <= 0.01
