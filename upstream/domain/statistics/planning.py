"""How many units an experiment needs, how long it takes, and what it can find: for a fixed horizon, by normal theory.

Rates: Fleiss, Levin and Paik (2003, "Statistical methods for rates and proportions", 4.2), without their correction for
continuity, for the two-sided pooled z test. Means: the two-sided z test with a known deviation. A `Plan` says how the
units are divided and how sure the answer is to be; with several comparisons alpha is divided among them (Bonferroni),
which is what Holm guarantees at least. The sequential method claims a difference of this size with the same power only
at about twice the units, but may stop as soon as it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite, sqrt

from upstream.domain.statistics.distributions import normal_cdf, normal_quantile
from upstream.domain.statistics.samples import MAX_UNITS, require_count, require_share

_STEPS = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of an experiment. The shares are those of all its units that control and treatment get."""

    alpha: float = 0.05
    power: float = 0.8
    control_share: float = 0.5
    treatment_share: float = 0.5
    comparisons: int = 1

    def __post_init__(self) -> None:
        for name in ("alpha", "power", "control_share", "treatment_share"):
            require_share(name, getattr(self, name))
        # Shares such as 0.7 and 0.3 may add up to a little more than 1.
        if self.control_share + self.treatment_share > 1 + 1e-9:
            raise ValueError("control_share and treatment_share must not exceed 1 together")
        require_count("comparisons", self.comparisons, least=1)
        if self.power <= self.alpha:
            raise ValueError(f"power ({self.power}) must be above alpha ({self.alpha})")

    @property
    def surprise(self) -> float:
        """The z beyond which a difference is claimed."""
        return normal_quantile(1 - self.alpha / self.comparisons / 2)


@dataclass(frozen=True, slots=True)
class Size:
    """Units needed: in control, in the treatment, and in the whole experiment by its shares."""

    control: int
    treatment: int
    total: int


def size_for_rate(base: float, other: float, plan: Plan | None = None) -> Size:
    """Return the units needed to tell a rate from the control's.

    Raises:
        ValueError: a rate is no share, or the two are equal.
    """
    require_share("base", base)
    require_share("other", other)
    if base == other:
        raise ValueError("base and other must differ")
    plan = plan or Plan()
    return _size(plan, *_rate_errors(base, other, plan), abs(other - base))


def size_for_mean(deviation: float, difference: float, plan: Plan | None = None) -> Size:
    """Return the units needed to tell a difference of means, given the deviation of one unit's value.

    Raises:
        ValueError: the deviation is not above 0, or the difference is 0.
    """
    _require_positive("deviation", deviation)
    _require_positive("difference", abs(difference))
    plan = plan or Plan()
    error = _mean_error(deviation, plan)
    return _size(plan, error, error, abs(difference))


def power_for_rate(base: float, other: float, total: int, plan: Plan | None = None) -> float:
    """Return the chance that a true rate of `other` is told from `base` with this many units in all.

    Raises:
        ValueError: a rate is no share, or `total` no count.
    """
    require_share("base", base)
    require_share("other", other)
    require_count("total", total, least=1)
    plan = plan or Plan()
    return _power(plan, *_rate_errors(base, other, plan), abs(other - base), total)


def power_for_mean(deviation: float, difference: float, total: int, plan: Plan | None = None) -> float:
    """Return the chance that a true difference of means is told from none with this many units in all.

    Raises:
        ValueError: the deviation is not above 0, or `total` no count.
    """
    _require_positive("deviation", deviation)
    require_count("total", total, least=1)
    plan = plan or Plan()
    error = _mean_error(deviation, plan)
    return _power(plan, error, error, abs(difference), total)


def detectable_for_rate(base: float, total: int, plan: Plan | None = None) -> float | None:
    """Return the least rise of a rate that is found with the plan's power; None where even a rate of 1 is not.

    Raises:
        ValueError: the rate is no share, or `total` no count.
    """
    require_share("base", base)
    require_count("total", total, least=1)
    plan, room = plan or Plan(), 1 - base

    def found(rise: float) -> float:
        return _power(plan, *_rate_errors(base, base + rise, plan), rise, total)

    return _least(found, plan.power, room) if found(room) >= plan.power else None


def detectable_for_mean(deviation: float, total: int, plan: Plan | None = None) -> float:
    """Return the least difference of means that is found with the plan's power.

    Raises:
        ValueError: the deviation is not above 0, or `total` no count.
    """
    _require_positive("deviation", deviation)
    require_count("total", total, least=1)
    plan = plan or Plan()
    error = _mean_error(deviation, plan)
    # Enough by itself: the far tail, left out here, only adds to the power.
    most = (plan.surprise + max(normal_quantile(plan.power), 0)) * error / sqrt(total)
    return _least(lambda gap: _power(plan, error, error, gap, total), plan.power, most)


def days_for(total: int, units_per_day: float) -> int:
    """Return the whole days until the experiment has its units.

    Raises:
        ValueError: `total` is no count, or no units come.
    """
    require_count("total", total, least=1)
    _require_positive("units_per_day", units_per_day)
    return max(ceil(total / units_per_day), 1)


def _require_positive(name: str, value: float) -> None:
    if not isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, and is {value!r}")


def _rate_errors(base: float, other: float, plan: Plan) -> tuple[float, float]:
    """Return the errors of the difference, if the rates were equal and as given, times the root of all units."""
    here, there = plan.control_share, plan.treatment_share
    pooled = (here * base + there * other) / (here + there)
    return (
        sqrt(pooled * (1 - pooled) * (1 / here + 1 / there)),
        sqrt(base * (1 - base) / here + other * (1 - other) / there),
    )


def _mean_error(deviation: float, plan: Plan) -> float:
    return deviation * sqrt(1 / plan.control_share + 1 / plan.treatment_share)


def _size(plan: Plan, under_none: float, under_some: float, difference: float) -> Size:
    root = (plan.surprise * under_none + normal_quantile(plan.power) * under_some) / difference
    if not isfinite(root * root) or root * root > MAX_UNITS:
        raise ValueError("the difference is too small: more than 2**53 units would be needed")
    total = root * root
    control, treatment = ceil(total * plan.control_share), ceil(total * plan.treatment_share)
    return Size(control, treatment, max(ceil(total), control + treatment))


def _power(plan: Plan, under_none: float, under_some: float, difference: float, total: int) -> float:
    shift, edge = difference * sqrt(total), plan.surprise * under_none
    return normal_cdf((shift - edge) / under_some) + normal_cdf((-shift - edge) / under_some)


def _least(found: Callable[[float], float], power: float, most: float) -> float:
    low, high = 0.0, most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if found(middle) < power:
            low = middle
        else:
            high = middle
    return high
