"""The distributions that results rest on: normal, Student's t, chi-square and beta, over plain floats.

Owns the one import of scipy, made at the first call: `scipy.special` costs some 40 MB and a part of a second, which an
authority without experiments never pays. `scipy.stats` costs twice that and is not used. `Beta` and `Student` are
what is believed of a rate or a mean (see `bayesian`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, lgamma, log, log1p, pi
from typing import Any

_BELOW_ONE = 1 - 2**-53


@cache
def _special() -> Any:
    from scipy import special  # noqa: PLC0415 - see the module's docstring

    return special


def normal_cdf(z: float) -> float:
    """Return the probability that a standard normal is at most z."""
    return float(_special().ndtr(z))


def normal_quantile(probability: float) -> float:
    """Return the z below which a standard normal falls with this probability."""
    return float(_special().ndtri(probability))


def two_sided_normal(z: float) -> float:
    """Return the probability that a standard normal is at least as far from 0 as z."""
    return 2 * normal_cdf(-abs(z))


def two_sided_student(t: float, degrees: float) -> float:
    """Return the probability that Student's t is at least as far from 0 as t."""
    return 2 * float(_special().stdtr(degrees, -abs(t)))


def student_quantile(probability: float, degrees: float) -> float:
    """Return the value below which Student's t falls with this probability."""
    return float(_special().stdtrit(degrees, probability))


def chi_square_above(statistic: float, degrees: int) -> float:
    """Return the probability that chi-square exceeds the statistic."""
    return float(_special().chdtrc(degrees, statistic))


def legendre(order: int) -> tuple[list[float], list[float]]:
    """Return nodes and weights of Gauss-Legendre quadrature on [-1, 1]."""
    nodes, weights = _special().roots_legendre(order)
    return nodes.tolist(), weights.tolist()


@dataclass(frozen=True, slots=True)
class Beta:
    """A beta distribution with both shapes at least 1, so that its density has no poles."""

    a: float
    b: float

    def cdf(self, values: Sequence[float]) -> list[float]:
        """Return the probability of at most each value; values outside [0, 1] are allowed."""
        inside = [min(max(value, 0.0), 1.0) for value in values]
        return [float(share) for share in _special().betainc(self.a, self.b, inside)]

    def density(self, values: Sequence[float]) -> list[float]:
        """Return the density at each value above 0 and at most 1."""
        scale = float(_special().betaln(self.a, self.b))
        # Where everybody converts, what is believed lies so close to 1 that values are rounded to it.
        inside = [min(value, _BELOW_ONE) for value in values]
        return [exp((self.a - 1) * log(value) + (self.b - 1) * log1p(-value) - scale) for value in inside]

    def quantiles(self, probabilities: Sequence[float]) -> list[float]:
        """Return the value below which each probability lies."""
        return [float(value) for value in _special().betaincinv(self.a, self.b, list(probabilities))]


@dataclass(frozen=True, slots=True)
class Student:
    """Student's t, moved to a mean and stretched by a scale above 0."""

    mean: float
    scale: float
    degrees: int

    def cdf(self, values: Sequence[float]) -> list[float]:
        """Return the probability of at most each value."""
        moved = [(value - self.mean) / self.scale for value in values]
        return [float(share) for share in _special().stdtr(self.degrees, moved)]

    def density(self, values: Sequence[float]) -> list[float]:
        """Return the density at each value."""
        half = self.degrees / 2
        # For many degrees the two lgamma nearly cancel: their difference is then log(half) / 2 up to 1 / (8 half).
        gammas = lgamma(half + 0.5) - lgamma(half) if half < 1e6 else log(half) / 2 - 1 / (8 * half)  # noqa: PLR2004
        scale = gammas - log(self.degrees * pi) / 2 - log(self.scale)
        moved = [(value - self.mean) / self.scale for value in values]
        return [exp(scale - (half + 0.5) * log1p(t * t / self.degrees)) for t in moved]

    def quantiles(self, probabilities: Sequence[float]) -> list[float]:
        """Return the value below which each probability lies."""
        found = _special().stdtrit(self.degrees, list(probabilities))
        return [self.mean + self.scale * float(value) for value in found]
