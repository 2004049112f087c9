"""What is known of one variant on one metric: counts for a rate, sums for a mean; and the shape of a comparison.

A sample is checked when it is made, so that no method has to. Sums come from storage, added up over relays and hours;
they carry rounding, so what they say about the variance is believed only beyond it. A count per unit (purchases) is a
mean like any other.
"""

from dataclasses import dataclass
from math import isfinite

MAX_UNITS = 2**53
"""Beyond this a float no longer tells one unit from the next."""

_ROUNDING = 1e-9
"""By how much of itself a sum of squares may be off; a variance below that is none."""


def require_share(name: str, value: float) -> None:
    """Refuse what is not strictly between 0 and 1.

    Raises:
        ValueError: names the argument.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must be above 0 and below 1, and is {value!r}")


def require_count(name: str, value: int, *, least: int = 0) -> None:
    """Refuse what is no count of units.

    Raises:
        ValueError: names the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_UNITS:
        raise ValueError(f"{name} must be a whole number from {least} to 2**53, and is {value!r}")


def _require_finite(name: str, value: float) -> None:
    if not isfinite(value):
        raise ValueError(f"{name} must be a finite number, and is {value!r}")


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of values, ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of the units converted, each counted once."""

    units: int
    conversions: int

    def __post_init__(self) -> None:
        require_count("units", self.units)
        require_count("conversions", self.conversions)
        if self.conversions > self.units:
            raise ValueError(f"conversions ({self.conversions}) must not exceed units ({self.units})")

    @property
    def value(self) -> float | None:
        """The share that converted; None without units."""
        return self.conversions / self.units if self.units else None


@dataclass(frozen=True, slots=True)
class Mean:
    """The sum over all units of each unit's value, and the sum of the squares of these values."""

    units: int
    total: float
    squares: float

    def __post_init__(self) -> None:
        require_count("units", self.units)
        _require_finite("total", self.total)
        _require_finite("squares", self.squares)
        if self.squares < 0:
            raise ValueError(f"squares must not be negative, and is {self.squares!r}")
        if not self.units and (self.total or self.squares):
            raise ValueError("total and squares must be 0 where units is 0")
        if self.units and self._spread < -_ROUNDING * self.squares:
            raise ValueError(
                f"squares ({self.squares!r}) is less than {self.units} values with the total {self.total!r} can have"
            )

    @property
    def value(self) -> float | None:
        """The mean; None without units."""
        return self.total / self.units if self.units else None

    @property
    def variance(self) -> float | None:
        """The unbiased variance of one unit's value; None where it is not known, with fewer than two units."""
        if self.units < 2:  # noqa: PLR2004 - of one value there is no variance
            return None
        return self._spread / (self.units - 1) if self._spread > _ROUNDING * self.squares else 0.0

    @property
    def _spread(self) -> float:
        return self.squares - (self.total / self.units) * self.total


Sample = Rate | Mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant against the control: treatment minus control, and treatment divided by control minus 1.

    A member is None where the samples cannot tell it: `lift` where the control is not above 0, the others also while
    there are too few units or no variation at all. `chance_above` is the probability that the treatment is truly
    higher, given the data and a flat prior.
    """

    difference: float | None = None
    interval: Interval | None = None
    lift: float | None = None
    lift_interval: Interval | None = None
    p_value: float | None = None
    chance_above: float | None = None


def difference_of(control: Sample, treatment: Sample) -> float | None:
    """Return treatment minus control."""
    if control.value is None or treatment.value is None:
        return None
    return treatment.value - control.value


def lift_of(control: Sample, treatment: Sample) -> float | None:
    """Return the relative lift of the treatment, None where the control is not above 0."""
    if not control.value or control.value < 0 or treatment.value is None:
        return None
    return treatment.value / control.value - 1


def require_same_kind(control: Sample, treatment: Sample) -> None:
    """Refuse to compare a rate with a mean.

    Raises:
        ValueError: names both.
    """
    if type(control) is not type(treatment):
        kinds = f"{type(control).__name__} and {type(treatment).__name__}"
        raise ValueError(f"control and treatment must be of one kind, and are {kinds}")
