"""Always-valid results: true to their level at every look, however often and whenever one stops.

The difference is held in an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-
uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024); the boundary is Robbins'
normal mixture; its p-value is the mixture sequential probability ratio test of Johari, Koomen, Pekelis and Walsh
("Always valid inference", Operations Research 2022). The lift is held likewise, by its delta-method error.

Each figure is valid at whatever moment it is looked at, so none has to be remembered; who shows a history may show the
least p-value so far, which is valid too. "Asymptotic" asks for a start: nothing is said below `MIN_UNITS` units in a
variant, nor, for rates, below `MIN_EVENTS` conversions and non-conversions in both together.
"""

from math import exp, log, log1p, sqrt

from upstream.domain.statistics.fixed import lift_error
from upstream.domain.statistics.samples import (
    Comparison,
    Interval,
    Rate,
    Sample,
    difference_of,
    lift_of,
    require_count,
    require_same_kind,
    require_share,
)

MIN_UNITS = 100
MIN_EVENTS = 10
PLANNED_UNITS = 10_000
"""Units per variant at which the sequence is tightest, unless an experiment plans others. Must not change with data."""

_TUNED_FOR = 0.05
"""The level for which the mixture is tuned. One for all, so that p-value and intervals of any level fit together."""


def compare_sequentially(
    control: Sample, treatment: Sample, *, alpha: float = 0.05, planned_units: int = PLANNED_UNITS
) -> Comparison:
    """Return the comparison at confidence 1 - alpha, valid at every look.

    Args:
        control: the sample of the control.
        treatment: the sample of the variant compared with it.
        alpha: the share of experiments without a difference in which one may ever be claimed.
        planned_units: units per variant for which the experiment is planned, fixed before it starts.

    Raises:
        ValueError: the samples are not of one kind, or an argument is out of range.
    """
    require_same_kind(control, treatment)
    require_share("alpha", alpha)
    require_count("planned_units", planned_units, least=1)
    difference, lift = difference_of(control, treatment), lift_of(control, treatment)
    before, after = control.value, treatment.value
    base, other = _unit_variance(control), _unit_variance(treatment)
    if difference is None or before is None or after is None or not _may_speak(control, treatment) or not base + other:
        return Comparison(difference=difference, lift=lift)
    error = sqrt(base / control.units + other / treatment.units)
    planned = sqrt((base + other) / planned_units)
    reach = _reach(error, planned, alpha)
    return Comparison(
        difference=difference,
        interval=Interval(difference - reach, difference + reach),
        lift=lift,
        lift_interval=_lift_interval(control, treatment, alpha, planned_units),
        p_value=_p_value(difference / error, error / planned),
    )


def _may_speak(control: Sample, treatment: Sample) -> bool:
    if min(control.units, treatment.units) < MIN_UNITS:
        return False
    if not isinstance(control, Rate) or not isinstance(treatment, Rate):
        return True
    conversions = control.conversions + treatment.conversions
    return min(conversions, control.units + treatment.units - conversions) >= MIN_EVENTS


def _unit_variance(sample: Sample) -> float:
    """Return the variance of one unit's value.

    A rate's is taken with one conversion and one non-conversion more: a variant in which nobody converted yet has no
    known rate, which a variance of 0 would say.
    """
    if isinstance(sample, Rate):
        share = (sample.conversions + 1) / (sample.units + 2)
        return share * (1 - share)
    return sample.variance or 0.0


def _narrowness(relative: float) -> float:
    """Return the variance of the estimate over that of the mixture, which is tightest at the planned error.

    Waudby-Smith et al. (2024), appendix on the choice of rho: rho² n = -2 log alpha + log(1 - 2 log alpha).
    `relative` is the error over the planned one. Only such ratios are squared: squares of small or large errors are
    no floats.
    """
    evidence = -2 * log(_TUNED_FOR)
    return relative * relative / (evidence + log(1 + evidence))


def _reach(error: float, planned: float, alpha: float) -> float:
    ratio = _narrowness(error / planned)
    return error * sqrt((1 + ratio) * (log1p(1 / ratio) - 2 * log(alpha)))


def _p_value(z: float, relative: float) -> float:
    ratio = _narrowness(relative)
    return min(1.0, exp(log1p(1 / ratio) / 2 - z * z / (2 * (1 + ratio))))


def _lift_interval(control: Sample, treatment: Sample, alpha: float, planned_units: int) -> Interval | None:
    """Return the sequence of the lift; None while the control's own sequence does not leave 0 below it."""
    before, after = control.value or 0.0, treatment.value or 0.0
    base, other = _unit_variance(control), _unit_variance(treatment)
    own = _reach(sqrt(base / control.units), sqrt(base / planned_units), alpha) if base else 0.0
    if before <= own:
        return None
    error = lift_error(before, base / control.units, after, other / treatment.units)
    if not error:
        # The treatment is 0 without exception, of which the delta method would make a certainty.
        return None
    planned = lift_error(before, base / planned_units, after, other / planned_units)
    reach = _reach(error, planned, alpha)
    return Interval(after / before - 1 - reach, after / before - 1 + reach)
