"""Frequentist results for a fixed horizon: true to their level when looked at once, at the planned number of units.

Rates: the difference by Newcombe's hybrid of Wilson score intervals (Newcombe 1998, "Interval estimation for the
difference between independent proportions", method 10), the ratio by the same principle (Donner and Zou 2012, MOVER-R),
so that the two always agree about "no difference"; the p-value by the pooled z test, and by Fisher's exact test where
fewer than five conversions (or non-conversions) are expected in a variant. Means: Welch's t test; the lift by the delta
method. Near the edge of significance a p-value and an interval for rates can differ; the p-value decides.
"""

from math import exp, hypot, lgamma, sqrt

from upstream.domain.statistics.distributions import (
    normal_quantile,
    student_quantile,
    two_sided_normal,
    two_sided_student,
)
from upstream.domain.statistics.samples import (
    Comparison,
    Interval,
    Mean,
    Rate,
    Sample,
    difference_of,
    lift_of,
    require_same_kind,
    require_share,
)

FEW_EXPECTED = 5
"""Below this many expected in any cell the normal approximation is not used for a p-value."""

_TIE = 1 + 1e-7
"""Tables that are as probable as the one seen count, whatever rounding says; R and scipy use the same factor."""
_NEGLIGIBLE = 1e-17


def compare_fixed(control: Sample, treatment: Sample, *, alpha: float = 0.05) -> Comparison:
    """Return the comparison at confidence 1 - alpha, for one look at the planned number of units.

    Raises:
        ValueError: the samples are not of one kind, or alpha is no share.
    """
    require_same_kind(control, treatment)
    require_share("alpha", alpha)
    if isinstance(control, Rate) and isinstance(treatment, Rate):
        return _rates(control, treatment, alpha)
    assert isinstance(control, Mean)  # noqa: S101 - for the type checker; both are of one kind
    assert isinstance(treatment, Mean)  # noqa: S101
    return _means(control, treatment, alpha)


def wilson(sample: Rate, alpha: float) -> Interval:
    """Return Wilson's score interval (1927) of a rate with at least one unit."""
    z, units, share = normal_quantile(1 - alpha / 2), sample.units, sample.conversions / sample.units
    middle = (share + z * z / (2 * units)) / (1 + z * z / units)
    half = z / (1 + z * z / units) * sqrt(share * (1 - share) / units + z * z / (4 * units * units))
    # At the ends the two terms are equal but for rounding.
    low = 0.0 if sample.conversions == 0 else max(middle - half, 0.0)
    high = 1.0 if sample.conversions == units else min(middle + half, 1.0)
    return Interval(low, high)


def _rates(control: Rate, treatment: Rate, alpha: float) -> Comparison:
    difference = difference_of(control, treatment)
    if difference is None:
        return Comparison()
    base, other = wilson(control, alpha), wilson(treatment, alpha)
    before, after = control.conversions / control.units, treatment.conversions / treatment.units
    low = difference - sqrt((after - other.low) ** 2 + (base.high - before) ** 2)
    high = difference + sqrt((other.high - after) ** 2 + (before - base.low) ** 2)
    return Comparison(
        difference=difference,
        interval=Interval(max(low, -1.0), min(high, 1.0)),
        lift=lift_of(control, treatment),
        lift_interval=_ratio_less_one(before, base, after, other),
        p_value=rates_p_value(control, treatment),
    )


def _ratio_less_one(before: float, base: Interval, after: float, other: Interval) -> Interval | None:
    """Return the MOVER-R interval of after / before, less 1; None without an upper end, where before may be 0."""
    if base.low <= 0:
        return None
    product = before * after
    # Donner and Zou's lower end with its root moved below the line: theirs divides by 0 at base.high = 2 before.
    reach = other.low * (2 * after - other.low)
    root = sqrt(max(product * product - reach * base.high * (2 * before - base.high), 0.0))
    low = reach / (product + root) if product + root else 0.0
    spread = base.low * (2 * before - base.low)
    high = (product + sqrt(max(product * product - other.high * (2 * after - other.high) * spread, 0.0))) / spread
    return Interval(low - 1, high - 1)


def rates_p_value(control: Rate, treatment: Rate) -> float:
    """Return the two-sided p-value of "both convert alike", for samples with at least one unit each."""
    units, conversions = control.units + treatment.units, control.conversions + treatment.conversions
    rarer = min(conversions, units - conversions)
    if not rarer:
        return 1.0
    if rarer * min(control.units, treatment.units) / units < FEW_EXPECTED:
        return _fisher(control, treatment)
    pooled = conversions / units
    error = sqrt(pooled * (1 - pooled) * (1 / control.units + 1 / treatment.units))
    gap = treatment.conversions / treatment.units - control.conversions / control.units
    return two_sided_normal(gap / error)


def _fisher(control: Rate, treatment: Rate) -> float:
    """Return Fisher's exact p-value: all tables with these margins that are no more probable than the one seen.

    Probabilities are walked from the mode outwards by their ratios, relative to the mode's, until they no longer count.
    """
    units, drawn = control.units + treatment.units, treatment.units
    marked = control.conversions + treatment.conversions
    least, most = max(0, drawn + marked - units), min(drawn, marked)
    mode = min(max((drawn + 1) * (marked + 1) // (units + 2), least), most)

    def up(count: int) -> float:
        """Return how much more probable one more is."""
        return (drawn - count) * (marked - count) / ((count + 1) * (units - drawn - marked + count + 1))

    weights = {mode: 1.0}
    weight, count = 1.0, mode
    while count < most and weight > _NEGLIGIBLE:
        weight, count = weight * up(count), count + 1
        weights[count] = weight
    weight, count = 1.0, mode
    while count > least and weight > _NEGLIGIBLE:
        weight, count = weight / up(count - 1), count - 1
        weights[count] = weight
    seen = weights.get(treatment.conversions, 0.0)
    total = sum(weights.values())
    if not seen:
        return exp(_log_table(units, drawn, marked, treatment.conversions))
    return min(sum(weight for weight in weights.values() if weight <= seen * _TIE) / total, 1.0)


def _log_table(units: int, drawn: int, marked: int, count: int) -> float:
    """Return the log of the probability of one table; what lies beyond it is smaller still by orders of magnitude."""

    def choose(whole: int, part: int) -> float:
        return lgamma(whole + 1) - lgamma(part + 1) - lgamma(whole - part + 1)

    return choose(marked, count) + choose(units - marked, drawn - count) - choose(units, drawn)


def _means(control: Mean, treatment: Mean, alpha: float) -> Comparison:
    difference, lift = difference_of(control, treatment), lift_of(control, treatment)
    if difference is None or (not control.variance and not treatment.variance):
        return Comparison(difference=difference, lift=lift)
    if control.variance is None or treatment.variance is None:
        return Comparison(difference=difference, lift=lift)
    base, other = control.variance / control.units, treatment.variance / treatment.units
    error, part = sqrt(base + other), base / (base + other)
    # By Welch and Satterthwaite; as parts of the whole, because squares of very small or large variances are no floats.
    degrees = 1 / (part * part / (control.units - 1) + (1 - part) ** 2 / (treatment.units - 1))
    reach = student_quantile(1 - alpha / 2, degrees)
    return Comparison(
        difference=difference,
        interval=Interval(difference - reach * error, difference + reach * error),
        lift=lift,
        lift_interval=_delta(control.total / control.units, base, treatment.total / treatment.units, other, reach),
        p_value=two_sided_student(difference / error, degrees),
    )


def lift_error(before: float, base: float, after: float, other: float) -> float:
    """Return the standard error of after / before by the delta method; `base` and `other` are the means' variances."""
    return hypot(sqrt(other), after / before * sqrt(base)) / before


def _delta(before: float, base: float, after: float, other: float, reach: float) -> Interval | None:
    """Return the delta method's interval of after / before - 1; None where `before` is not told from 0.

    None as well where the treatment is 0 without exception, of which the method would make a certainty.
    """
    if before <= reach * sqrt(base):
        return None
    lift, error = after / before - 1, lift_error(before, base, after, other)
    if not error:
        return None
    return Interval(lift - reach * error, lift + reach * error)
