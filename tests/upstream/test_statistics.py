"""Statistics of experiments: equal to scipy and to published figures, and silent where there is little to say."""

from itertools import pairwise
from math import exp, inf, lgamma, log, nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats

from upstream.domain.statistics.bayesian import belief, chance_above, compare_beliefs, standings
from upstream.domain.statistics.correction import Correction, adjusted, interval_alpha
from upstream.domain.statistics.distributions import Beta, Student
from upstream.domain.statistics.fixed import compare_fixed, wilson
from upstream.domain.statistics.mismatch import BLOCKS_BELOW, sample_ratio
from upstream.domain.statistics.planning import (
    Plan,
    days_for,
    detectable_for_mean,
    detectable_for_rate,
    power_for_mean,
    power_for_rate,
    size_for_mean,
    size_for_rate,
)
from upstream.domain.statistics.samples import Comparison, Interval, Mean, Rate, Sample
from upstream.domain.statistics.sequential import compare_sequentially

FEW = [3.0, 5.5, 2.25, 8.0, 4.0, 6.0, 1.5]
OTHERS = [4.0, 9.0, 7.5, 6.0, 12.0, 3.0, 8.0, 10.0, 5.0]


def mean_of(values: list[float]) -> Mean:
    """Return the sample of these values."""
    return Mean(len(values), sum(values), sum(value * value for value in values))


@st.composite
def rates(draw: st.DrawFn, most: int = 5_000) -> Rate:
    """Draw a rate with at least one unit."""
    units = draw(st.integers(1, most))
    return Rate(units, draw(st.integers(0, units)))


MEANS = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=20).map(mean_of)


def close(interval: Interval | None, low: float, high: float, rel: float = 1e-9) -> bool:
    assert interval is not None
    return bool(interval.low == pytest.approx(low, rel=rel) and interval.high == pytest.approx(high, rel=rel))


# Samples.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rate(-1, 0), "units must be a whole number"),
        (lambda: Rate(2**53 + 1, 0), "units must be a whole number"),
        (lambda: Rate(units=True, conversions=0), "units must be a whole number"),
        (lambda: Rate(1.5, 0), "units must be a whole number"),  # type: ignore[arg-type]
        (lambda: Rate(3, -1), "conversions must be a whole number"),
        (lambda: Rate(3, 4), r"conversions \(4\) must not exceed units \(3\)"),
        (lambda: Mean(3, nan, 1), "total must be a finite number"),
        (lambda: Mean(3, 1, inf), "squares must be a finite number"),
        (lambda: Mean(3, 0, -1), "squares must not be negative"),
        (lambda: Mean(0, 1, 1), "total and squares must be 0"),
        (lambda: Mean(2, 10, 1), "squares .* is less than 2 values"),
        (lambda: compare_fixed(Rate(1, 1), Mean(1, 1, 1)), "of one kind, and are Rate and Mean"),
        (lambda: compare_fixed(Rate(1, 1), Rate(1, 1), alpha=0), "alpha must be above 0 and below 1"),
        (lambda: compare_sequentially(Rate(1, 1), Rate(1, 1), alpha=nan), "alpha must be above 0 and below 1"),
        (lambda: compare_sequentially(Rate(1, 1), Rate(1, 1), planned_units=0), "planned_units must be a whole"),
        (lambda: compare_beliefs(Rate(1, 1), Rate(1, 1), alpha=1), "alpha must be above 0 and below 1"),
        (lambda: standings({"a": Rate(1, 1)}), "samples must hold at least two variants"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, message: str) -> None:
    """Every wrong argument is named with what it must be."""
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sample_knows_its_value() -> None:
    """A rate, a mean and a variance, and None where there are too few units for one."""
    assert (Rate(8, 2).value, Rate(0, 0).value) == (0.25, None)
    assert (mean_of(FEW).value, mean_of(FEW).variance) == pytest.approx((np.mean(FEW), np.var(FEW, ddof=1)))
    assert (Mean(0, 0, 0).value, Mean(0, 0, 0).variance, Mean(1, 3, 9).variance) == (None, None, None)


def test_rounding_is_no_variance() -> None:
    """Equal values whose sums were rounded have no variance, rather than a tiny or negative one."""
    assert mean_of([0.1] * 1_000).variance == 0
    assert Mean(3, 0.3, 0.3 * 0.1).variance == 0


# The fixed horizon.


def test_the_difference_of_rates_is_newcombes() -> None:
    """The first example of Newcombe (1998), method 10: 56/70 against 48/80."""
    assert close(compare_fixed(Rate(80, 48), Rate(70, 56)).interval, 0.0524, 0.3339, rel=1e-3)


@pytest.mark.parametrize("sample", [Rate(70, 56), Rate(10, 0), Rate(10, 10), Rate(1, 1), Rate(10**9, 12_345)])
def test_wilsons_interval_is_scipys(sample: Rate) -> None:
    """Wilson's score interval equals scipy's."""
    expected = stats.binomtest(sample.conversions, sample.units).proportion_ci(0.9, "wilson")
    assert close(wilson(sample, 0.1), expected.low, expected.high)


def test_the_p_value_of_rates_is_chi_squares() -> None:
    """With many conversions it is the pooled z test, which is chi-square without correction."""
    expected = stats.chi2_contingency([[100, 900], [150, 950]], correction=False)
    assert compare_fixed(Rate(1_000, 100), Rate(1_100, 150)).p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    ("control", "treatment"),
    [
        (Rate(10, 1), Rate(12, 5)),
        (Rate(1_000, 0), Rate(1_000, 7)),
        (Rate(12, 12), Rate(9, 5)),
        (Rate(1, 0), Rate(3, 3)),
        (Rate(5, 2), Rate(5, 2)),
        (Rate(20_000, 3), Rate(10, 2)),
        (Rate(1_000_000, 1), Rate(3, 3)),
    ],
)
def test_the_p_value_of_few_is_fishers(control: Rate, treatment: Rate) -> None:
    """With fewer than five expected it is Fisher's exact test, as scipy has it."""
    table = [[each.conversions, each.units - each.conversions] for each in (treatment, control)]
    expected = stats.fisher_exact(table).pvalue
    assert compare_fixed(control, treatment).p_value == pytest.approx(expected, rel=1e-6)


def test_the_difference_of_means_is_welchs() -> None:
    """Interval and p-value equal scipy's t test with unequal variances."""
    found, expected = compare_fixed(mean_of(FEW), mean_of(OTHERS)), stats.ttest_ind(OTHERS, FEW, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert close(found.interval, *expected.confidence_interval(0.95))
    assert found.difference == pytest.approx(np.mean(OTHERS) - np.mean(FEW))


def test_the_lift_of_means_is_the_delta_methods() -> None:
    """The interval of the lift has the delta method's standard error and Welch's quantile."""
    found, control, treatment = compare_fixed(mean_of(FEW), mean_of(OTHERS)), np.array(FEW), np.array(OTHERS)
    base, other = control.var(ddof=1) / 7, treatment.var(ddof=1) / 9
    degrees = (base + other) ** 2 / (base**2 / 6 + other**2 / 8)
    lift = treatment.mean() / control.mean() - 1
    error = sqrt(other / control.mean() ** 2 + base * treatment.mean() ** 2 / control.mean() ** 4)
    reach = stats.t.ppf(0.975, degrees) * error
    assert found.lift == pytest.approx(lift)
    assert close(found.lift_interval, lift - reach, lift + reach)


@given(rates(), rates())
def test_difference_and_ratio_agree_about_no_difference(control: Rate, treatment: Rate) -> None:
    """0 is in the interval of the difference where it is in the lift's, and both hold what was seen."""
    found = compare_fixed(control, treatment)
    assert found.interval is not None
    assert found.difference is not None
    assert -1 <= found.interval.low <= found.difference <= found.interval.high <= 1
    assert found.p_value is not None
    assert 0 <= found.p_value <= 1
    assert (found.lift_interval is None) == (control.conversions == 0)
    if found.lift_interval is not None and found.lift is not None:
        assert -1 <= found.lift_interval.low <= found.lift + 1e-9
        assert found.lift <= found.lift_interval.high + 1e-9
        assume(min(map(abs, (found.interval.low, found.interval.high))) > 1e-9)
        assert (0 in found.interval) == (0 in found.lift_interval)


@given(rates(), rates())
def test_exchanged_rates_give_the_mirrored_result(control: Rate, treatment: Rate) -> None:
    """Which of the two is called control changes signs and nothing else; so do conversions and non-conversions."""
    found, back = compare_fixed(control, treatment), compare_fixed(treatment, control)
    assert found.interval is not None
    assert close(back.interval, -found.interval.high, -found.interval.low)
    assert back.p_value == pytest.approx(found.p_value)
    lost = compare_fixed(*(Rate(each.units, each.units - each.conversions) for each in (control, treatment)))
    assert lost.p_value == pytest.approx(found.p_value)


@given(MEANS, MEANS, st.floats(0.1, 10))
def test_means_do_not_depend_on_the_unit_of_measure(control: Mean, treatment: Mean, scale: float) -> None:
    """Cents or euros: the p-value and the lift stay."""
    assume(min((control.variance or 0), (treatment.variance or 0)) > 1e-3)
    scaled = [Mean(each.units, each.total * scale, each.squares * scale * scale) for each in (control, treatment)]
    found, other = compare_fixed(control, treatment), compare_fixed(*scaled)
    assert other.p_value == pytest.approx(found.p_value, rel=1e-6, abs=1e-12)
    assert (other.lift is None) == (found.lift is None)
    assert compare_fixed(treatment, control).p_value == pytest.approx(found.p_value)


@given(rates(), rates(), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_more_confidence_is_a_wider_interval(control: Rate, treatment: Rate, one: float, two: float) -> None:
    """The smaller alpha, the wider, by every method."""
    wide, narrow = sorted((one, two))
    for method in (compare_fixed, compare_sequentially):
        outer, inner = (
            method(control, treatment, alpha=wide).interval,
            method(control, treatment, alpha=narrow).interval,
        )
        if outer and inner:
            assert outer.low <= inner.low + 1e-12
            assert inner.high <= outer.high + 1e-12


NOTHING = Comparison()
UNTOLD = {
    "no units in the control": (Rate(0, 0), Rate(9, 3), NOTHING),
    "no units in the treatment": (Rate(9, 3), Rate(0, 0), NOTHING),
    "no units of a mean": (Mean(0, 0, 0), Mean(2, 2, 3), NOTHING),
    "one unit of a mean": (Mean(1, 2, 4), Mean(9, 20, 90), Comparison(difference=2 / 9, lift=1 / 9)),
    "no variance": (Mean(9, 9, 9), Mean(9, 18, 36), Comparison(difference=1, lift=1)),
    "no variance around 0": (Mean(9, 0, 0), Mean(9, 0, 0), Comparison(difference=0)),
}


@pytest.mark.parametrize("case", UNTOLD)
@pytest.mark.parametrize("method", [compare_fixed, compare_sequentially])
def test_what_cannot_be_told_is_none(case: str, method: Any) -> None:
    """Without units, or values that vary, there is neither interval nor p-value, and no error either."""
    control, treatment, expected = UNTOLD[case]
    found = method(control, treatment)
    assert (found.interval, found.lift_interval, found.p_value) == (None, None, None)
    assert (found.difference, found.lift) == (pytest.approx(expected.difference), pytest.approx(expected.lift))


def test_nobody_and_everybody_is_no_difference() -> None:
    """Where nobody or everybody converts in both, there is an interval around 0 and nothing against equality."""
    for conversions in (0, 50):
        found = compare_fixed(Rate(50, conversions), Rate(50, conversions))
        assert found.p_value == 1
        assert found.interval is not None
        assert found.interval.low < 0 < found.interval.high
    assert compare_fixed(Rate(50, 0), Rate(50, 0)).lift is None


def test_a_control_near_0_has_no_interval_of_the_lift() -> None:
    """A lift over what may be nothing has no bounds; a negative control has no lift at all."""
    assert compare_fixed(mean_of([-3.0, 4.0, -1.0, 2.0]), mean_of(OTHERS)).lift_interval is None
    assert compare_fixed(mean_of([-3.0, -4.0]), mean_of(OTHERS)).lift is None
    wide = Mean(200, 20, 20_000)
    assert compare_sequentially(wide, Mean(200, 900, 9_000)).lift_interval is None


def test_a_treatment_that_is_0_throughout_has_a_lift_without_interval() -> None:
    """Its lift is -100 %, which the delta method would take for certain."""
    control, nothing = Mean(200, 400, 1_000), Mean(200, 0, 0)
    for found in (compare_fixed(control, nothing), compare_sequentially(control, nothing)):
        assert (found.lift, found.lift_interval) == (-1, None)
        assert found.interval is not None


def test_huge_counts_are_told_exactly() -> None:
    """A billion units are no overflow, and a difference of a thousandth of a percent point is found."""
    found = compare_fixed(Rate(10**9, 10**8), Rate(10**9, 10**8 + 10**5))
    assert found.p_value is not None
    assert found.p_value < 1e-10
    assert close(found.interval, 1e-4 - 2.63e-5, 1e-4 + 2.63e-5, rel=1e-2)
    believed = compare_beliefs(Rate(10**9, 10**8), Rate(10**9, 10**8 + 10**5))
    assert close(believed.interval, 1e-4 - 2.63e-5, 1e-4 + 2.63e-5, rel=1e-2)


# The always-valid method.


def test_the_boundary_is_the_papers() -> None:
    """Waudby-Smith et al. (2024), theorem 2.2, for two equal samples: sigma² is the variance of a pair's difference."""
    control, treatment, planned = Mean(400, 800, 2_000), Mean(400, 880, 2_400), 1_000
    sigma2 = (control.variance or 0) + (treatment.variance or 0)
    rho2 = (-2 * log(0.05) + log(-2 * log(0.05) + 1)) / planned
    n, found = 400, compare_sequentially(control, treatment, planned_units=planned)
    reach = sqrt(sigma2) * sqrt((n * rho2 + 1) / (n * n * rho2) * log((n * rho2 + 1) / 0.05**2))
    assert close(found.interval, 0.2 - reach, 0.2 + reach)


@given(rates(), rates(), st.integers(1, 10**6), st.floats(0.001, 0.3))
def test_p_value_and_interval_say_the_same(control: Rate, treatment: Rate, planned: int, alpha: float) -> None:
    """0 leaves the always-valid interval exactly when the p-value falls below alpha, at any level."""
    found = compare_sequentially(control, treatment, planned_units=planned, alpha=alpha)
    if found.p_value is not None and found.interval is not None:
        assume(abs(found.p_value - alpha) > 1e-9)
        assert (found.p_value < alpha) == (0 not in found.interval)


@pytest.mark.parametrize(
    ("control", "treatment"),
    [(Rate(99, 50), Rate(500, 50)), (Rate(500, 4), Rate(500, 5)), (Rate(500, 496), Rate(500, 495))],
)
def test_little_data_is_not_spoken_of(control: Rate, treatment: Rate) -> None:
    """Below 100 units in a variant, or 10 conversions or non-conversions in all, nothing is claimed."""
    found = compare_sequentially(control, treatment)
    assert (found.interval, found.p_value) == (None, None)
    assert found.difference is not None


def test_a_clear_difference_is_claimed_while_it_runs() -> None:
    """A tenth more on many units is found, its lift too; p-values below what a float can hold are 0."""
    found = compare_sequentially(Rate(20_000, 2_000), Rate(20_000, 2_400))
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.lift_interval is not None
    assert 0 < found.lift_interval.low < 0.2 < found.lift_interval.high
    assert compare_sequentially(Rate(10**7, 10), Rate(10**7, 5_000_000)).p_value == 0


def test_a_control_that_never_varies_has_a_lift() -> None:
    """The lift over a control whose values are all alike has the treatment's error only; over 0 it has none."""
    always = compare_sequentially(Mean(200, 400, 800), Mean(200, 480, 1_400))
    assert always.lift_interval is not None
    assert 0.2 in always.lift_interval
    assert compare_sequentially(Mean(200, 0, 0), Mean(200, 480, 1_400)).lift_interval is None


# Beliefs.


def beta_chance(control: Rate, treatment: Rate) -> float:
    """Return the chance that the treatment is higher by Miller's exact sum (2015), for uniform priors."""

    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    a, b = 1 + control.conversions, 1 + control.units - control.conversions
    c, d = 1 + treatment.conversions, 1 + treatment.units - treatment.conversions
    return sum(exp(log_beta(a + i, b + d) - log(d + i) - log_beta(1 + i, d) - log_beta(a, b)) for i in range(c))


@given(rates(most=400), rates(most=400))
def test_the_chance_to_win_is_the_exact_sum(control: Rate, treatment: Rate) -> None:
    """The integral equals Miller's closed form, and both ways add up to 1."""
    assert chance_above(control, treatment) == pytest.approx(beta_chance(control, treatment), abs=1e-7)
    assert (chance_above(treatment, control) or 0) + beta_chance(control, treatment) == pytest.approx(1, abs=1e-7)


@given(st.lists(rates(), min_size=2, max_size=5))
def test_somebody_wins(samples: list[Rate]) -> None:
    """Chances to be the best add up to 1, whichever way is better; a loss is never negative."""
    named: dict[str, Sample] = {str(place): sample for place, sample in enumerate(samples)}
    for higher in (True, False):
        found = standings(named, higher_is_better=higher)
        assert found is not None
        assert sum(each.chance_best for each in found.values()) == pytest.approx(1, abs=1e-6)
        assert all(each.expected_loss >= 0 for each in found.values())


def test_expected_loss_is_the_mean_of_what_is_missed() -> None:
    """For two variants the losses differ by the difference of the believed means, and one is E[max(a - b, 0)]."""
    control, treatment = Rate(100, 10), Rate(120, 18)
    found = standings({"a": control, "b": treatment})
    assert found is not None
    gap = stats.beta(19, 103).mean() - stats.beta(11, 91).mean()
    assert found["a"].expected_loss - found["b"].expected_loss == pytest.approx(gap, abs=1e-9)
    rng = np.random.default_rng(1)
    drawn = rng.beta(11, 91, 400_000) - rng.beta(19, 103, 400_000)
    assert found["b"].expected_loss == pytest.approx(np.maximum(drawn, 0).mean(), rel=0.02)


@pytest.mark.parametrize(
    ("control", "treatment", "base", "other"),
    [
        (Rate(100, 10), Rate(120, 18), stats.beta(11, 91), stats.beta(19, 103)),
        (Rate(10_000, 1_000), Rate(50, 9), stats.beta(1_001, 9_001), stats.beta(10, 42)),
        (Rate(40, 40), Rate(50, 50), stats.beta(41, 1), stats.beta(51, 1)),
        (
            mean_of(FEW),
            mean_of(OTHERS),
            stats.t(6, np.mean(FEW), np.std(FEW, ddof=1) / sqrt(7)),
            stats.t(8, np.mean(OTHERS), np.std(OTHERS, ddof=1) / 3),
        ),
    ],
)
def test_credible_intervals_leave_equal_tails(control: Sample, treatment: Sample, base: Any, other: Any) -> None:
    """Below each end of the difference's and the lift's interval lies what should, by scipy's own integration."""
    found = compare_beliefs(control, treatment)
    assert found.interval is not None
    edges = base.ppf([1e-9, 0.01, 0.5, 0.99, 1 - 1e-9])

    def below(share: Any) -> float:
        pieces = pairwise(edges)
        return float(sum(integrate.quad(lambda x: base.pdf(x) * share(x), low, high)[0] for low, high in pieces))

    assert below(lambda x: other.cdf(x + found.interval.low)) == pytest.approx(0.025, abs=1e-5)
    assert below(lambda x: other.cdf(x + found.interval.high)) == pytest.approx(0.975, abs=1e-5)
    assert found.chance_above == pytest.approx(below(other.sf), abs=1e-5)
    if found.lift_interval is not None:
        assert below(lambda x: other.cdf(x * (1 + found.lift_interval.low))) == pytest.approx(0.025, abs=1e-5)
        assert below(lambda x: other.cdf(x * (1 + found.lift_interval.high))) == pytest.approx(0.975, abs=1e-5)
    assert (found.lift_interval is None) == isinstance(control, Mean)


def test_nothing_is_believed_of_too_little() -> None:
    """A mean of three units, or of units that are all alike, has no belief; a rate always has one."""
    enough = mean_of(OTHERS)
    for little in (mean_of(FEW[:3]), Mean(9, 9, 9)):
        assert belief(little) is None
        assert chance_above(little, enough) is chance_above(enough, little) is None
        assert standings({"a": little, "b": enough}) is None
        assert compare_beliefs(little, enough).interval is None
    assert belief(Rate(0, 0)) == Beta(1, 1)
    assert compare_beliefs(Rate(0, 0), Rate(5, 1)) == Comparison()


def test_a_lift_is_believed_where_both_are_clear_of_0() -> None:
    """The lift of means has a credible interval once both are surely above 0."""
    negative = compare_beliefs(Mean(1_000, 5_000, 26_000), Mean(1_000, -5_500, 32_000))
    assert negative.lift == pytest.approx(-2.1)
    assert negative.lift_interval is None
    found = compare_beliefs(Mean(1_000, 5_000, 26_000), Mean(1_000, 5_500, 32_000))
    assert found.lift_interval is not None
    assert 0 < found.lift_interval.low < 0.1 < found.lift_interval.high


@pytest.mark.parametrize("degrees", [3, 50, 10**7])
def test_the_density_of_t_is_scipys(degrees: int) -> None:
    """Also for many degrees, where the gamma functions are larger than their difference."""
    values, expected = [-2.0, 0.5, 3.0, 9.0], stats.t(degrees, 1.0, 2.0)
    assert Student(1.0, 2.0, degrees).density(values) == pytest.approx(list(expected.pdf(values)), rel=1e-6)
    assert Student(1.0, 2.0, degrees).cdf(values) == pytest.approx(list(expected.cdf(values)))


# Sample ratio.


def test_the_ratio_has_chi_squares_p_value() -> None:
    """The p-value for one look equals scipy's; weights may have any sum."""
    found = sample_ratio({"a": 520, "b": 480, "c": 1_100}, {"a": 25, "b": 25, "c": 50})
    expected = stats.chisquare([520, 480, 1_100], [525, 525, 1_050])
    assert found.chi_square_p_value == pytest.approx(expected.pvalue)
    assert not found.is_mismatch


def test_the_always_valid_p_value_is_the_mixtures() -> None:
    """Lindon and Malek (2022): the likelihood of the weights over that of the Dirichlet-multinomial mixture."""
    seen, shares = [5_300, 4_700], [0.5, 0.5]
    mixture = stats.dirichlet_multinomial.logpmf(seen, [50, 50], 10_000)
    expected = exp(stats.multinomial.logpmf(seen, 10_000, shares) - mixture)
    found = sample_ratio({"a": 5_300, "b": 4_700}, {"a": 1, "b": 1})
    assert found.p_value == pytest.approx(expected, rel=1e-6)
    assert found.p_value < BLOCKS_BELOW
    assert found.is_mismatch


def test_units_where_none_are_sent_are_a_mismatch() -> None:
    """A variant with weight 0 has no units; where it has, something is wrong."""
    assert sample_ratio({"a": 10, "b": 1}, {"a": 1, "b": 0}).is_mismatch
    assert sample_ratio({"a": 10, "b": 0}, {"a": 1, "b": 0}).p_value == 1
    assert sample_ratio({"a": 0, "b": 0}, {"a": 1, "b": 1}).p_value == 1


@pytest.mark.parametrize(
    ("units", "weights", "message"),
    [
        ({"a": 1}, {"b": 1.0}, r"must name the same variants: \['a'\] and \['b'\]"),
        ({"a": -1}, {"a": 1.0}, r"units\['a'\] must be a whole number"),
        ({"a": 1}, {"a": -1.0}, r"weights\['a'\] must be a finite number"),
        ({"a": 1}, {"a": inf}, r"weights\['a'\] must be a finite number"),
        ({"a": 1}, {"a": 0.0}, "weights must hold one above 0"),
    ],
)
def test_a_ratio_of_nothing_is_refused(units: dict[str, int], weights: dict[str, float], message: str) -> None:
    """Every wrong count and weight is named."""
    with pytest.raises(ValueError, match=message):
        sample_ratio(units, weights)


# Corrections.


def test_holms_values_are_the_published_ones() -> None:
    """As `p.adjust` of R has them; an unanswered question counts as asked."""
    p_values = dict(enumerate((0.01, 0.04, 0.03, 0.005)))
    assert list(adjusted(p_values).values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_open: dict[str, float | None] = {"a": 0.02, "b": None}
    assert adjusted(with_open) == {"a": 0.04, "b": None}
    assert adjusted({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_only_raise_p_values(p_values: list[float]) -> None:
    """Benjamini-Hochberg equals scipy's; Holm is at least as strict; order is kept."""
    asked: dict[int, float | None] = dict(enumerate(p_values))
    holm, false_discovery = adjusted(asked), adjusted(asked, Correction.BENJAMINI_HOCHBERG)
    assert list(false_discovery.values()) == pytest.approx(list(stats.false_discovery_control(p_values)))
    assert adjusted(asked, Correction.NONE) == asked
    for place, p in enumerate(p_values):
        assert p - 1e-12 <= (false_discovery[place] or 0) <= (holm[place] or 0) + 1e-12
        assert all((holm[place] or 0) <= (holm[other] or 0) for other in range(len(p_values)) if p < p_values[other])


def test_intervals_widen_with_the_questions() -> None:
    """By Bonferroni for Holm, by the share of claims for Benjamini-Hochberg, not at all without correction."""
    found = {"a": 0.01, "b": 0.03, "c": 0.2, "d": None}
    assert interval_alpha(found, 0.04) == 0.01
    assert interval_alpha(found, 0.04, Correction.BENJAMINI_HOCHBERG) == 0.02
    assert interval_alpha({"c": 0.2, "d": 0.3}, 0.04, Correction.BENJAMINI_HOCHBERG) == 0.02
    assert interval_alpha(found, 0.04, Correction.NONE) == 0.04
    assert interval_alpha({}, 0.04) == 0.04


def test_a_p_value_is_a_share() -> None:
    """What is no p-value is refused by name."""
    with pytest.raises(ValueError, match=r"p_values\['a'\] must be from 0 to 1"):
        adjusted({"a": 1.5})


# Planning.


def test_the_size_is_the_published_one() -> None:
    """R's example `power.prop.test(p1 = .50, p2 = .75, power = .90)` needs 76.7 units a variant."""
    found = size_for_rate(0.5, 0.75, Plan(power=0.9))
    assert (found.control, found.treatment, found.total) == (77, 77, 154)


def test_the_size_of_a_mean_is_the_usual_one() -> None:
    """Sixteen times variance over squared difference a variant, as the rule of thumb for 80 % says: 15.7 exactly."""
    assert size_for_mean(10.0, -1.0).control == 1_570
    assert size_for_mean(10.0, 1.0, Plan(control_share=0.75, treatment_share=0.25)).total == 4_187


PLANS = st.builds(
    Plan,
    alpha=st.floats(0.001, 0.1),
    power=st.floats(0.5, 0.99),
    control_share=st.floats(0.1, 0.5),
    treatment_share=st.floats(0.1, 0.5),
    comparisons=st.integers(1, 10),
)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), PLANS)
def test_size_power_and_effect_agree(base: float, other: float, plan: Plan) -> None:
    """At the size found, the power is what was asked for, and the least effect found is the one planned for."""
    assume(abs(base - other) > 0.005)
    total = size_for_rate(base, other, plan).total
    assume(total > 200)
    assert power_for_rate(base, other, total, plan) == pytest.approx(plan.power, abs=0.02)
    assert power_for_rate(base, other, 2 * total, plan) >= power_for_rate(base, other, total, plan)
    if other > base:
        assert detectable_for_rate(base, total, plan) == pytest.approx(other - base, rel=0.03)
    total = size_for_mean(1.0, other - base, plan).total
    assert power_for_mean(1.0, other - base, total, plan) == pytest.approx(plan.power, abs=0.02)
    assert detectable_for_mean(1.0, total, plan) == pytest.approx(abs(other - base), rel=0.03)


def test_what_few_units_cannot_find_is_none() -> None:
    """From a high rate there is not enough room for a rise that few units would show; from a low one there is."""
    assert detectable_for_rate(0.9, 20) is None
    assert detectable_for_rate(0.1, 20) is not None


def test_days_are_whole() -> None:
    """An experiment runs whole days, one at least."""
    assert (days_for(1_000, 300), days_for(900, 300), days_for(1, 300)) == (4, 3, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plan(alpha=0), "alpha must be above 0"),
        (lambda: Plan(power=1), "power must be above 0 and below 1"),
        (lambda: Plan(power=0.04), "power .* must be above alpha"),
        (lambda: Plan(control_share=0.6), "must not exceed 1 together"),
        (lambda: Plan(comparisons=0), "comparisons must be a whole number from 1"),
        (lambda: size_for_rate(0, 0.5), "base must be above 0"),
        (lambda: size_for_rate(0.5, 1), "other must be above 0"),
        (lambda: size_for_rate(0.5, 0.5), "must differ"),
        (lambda: size_for_rate(0.5, 0.5 + 1e-12), "more than 2\\*\\*53 units"),
        (lambda: size_for_mean(0, 1), "deviation must be a finite number above 0"),
        (lambda: size_for_mean(1, 0), "difference must be a finite number above 0"),
        (lambda: power_for_rate(0.1, 0.2, 0), "total must be a whole number from 1"),
        (lambda: days_for(10, 0), "units_per_day must be a finite number above 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_name(make: Any, message: str) -> None:
    """Every wrong argument is named with what it must be."""
    with pytest.raises(ValueError, match=message):
        make()
