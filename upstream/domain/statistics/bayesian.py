"""Bayesian results: what is believed of every variant given its data and a flat prior, and what follows for a choice.

A rate is believed Beta(1 + conversions, 1 + non-conversions): the uniform prior. A mean is believed Student's t with
units - 1 degrees around its sample mean: the posterior under the flat prior on mean and log deviation, which holds
for values of any distribution once there are many. Probabilities are integrals by Gauss-Legendre quadrature between
quantiles, so the same data give the same figures. Beliefs are not made for peeking: a rule that stops at a chance of
95 % errs more often than the sequential method does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod

from upstream.domain.statistics.distributions import Beta, Student, legendre
from upstream.domain.statistics.samples import (
    Comparison,
    Interval,
    Rate,
    Sample,
    difference_of,
    lift_of,
    require_same_kind,
    require_share,
)

MIN_UNITS = 4
"""Below this a Student's t has no variance, and an expected loss no end."""

_ORDER = 16
_STEPS = 60
_SOLVED = 1e-10
"""How near a probability must come to the one that is looked for."""

_EDGE = 1e-9
"""What is believed with less than this is left out of an integral."""

_PIECES = (
    _EDGE,
    1e-7,
    1e-5,
    1e-4,
    1e-3,
    0.01,
    0.05,
    0.2,
    0.5,
    0.8,
    0.95,
    0.99,
    0.999,
    1 - 1e-4,
    1 - 1e-5,
    1 - 1e-7,
    1 - _EDGE,
)

Belief = Beta | Student


@dataclass(frozen=True, slots=True)
class Standing:
    """One variant among all: the chance that it is the best, and how much is lost on average by choosing it."""

    chance_best: float
    expected_loss: float


def belief(sample: Sample) -> Belief | None:
    """Return what is believed after the data; None of a mean with too few units or no variation."""
    if isinstance(sample, Rate):
        return Beta(1 + sample.conversions, 1 + sample.units - sample.conversions)
    variance = sample.variance
    if sample.units < MIN_UNITS or not variance:
        return None
    return Student(sample.total / sample.units, (variance / sample.units) ** 0.5, sample.units - 1)


def standings(samples: Mapping[str, Sample], *, higher_is_better: bool = True) -> dict[str, Standing] | None:
    """Return the standing of every variant; None while nothing is believed of one of them.

    The expected loss is in the metric's own unit: the mean of how far the best variant is ahead of this one.

    Raises:
        ValueError: there are fewer than two variants.
    """
    if len(samples) < 2:  # noqa: PLR2004 - one alone has nobody to be compared with
        raise ValueError(f"samples must hold at least two variants, and holds {len(samples)}")
    beliefs = {name: belief(sample) for name, sample in samples.items()}
    known = {name: found for name, found in beliefs.items() if found is not None}
    if len(known) < len(samples):
        return None
    nodes, weights = _grid(sorted({edge for each in known.values() for edge in each.quantiles(_PIECES)}))
    below = {name: each.cdf(nodes) for name, each in known.items()}
    if not higher_is_better:
        below = {name: [1 - share for share in shares] for name, shares in below.items()}
    found = {}
    for name, each in known.items():
        # The chance that all others are behind, at every node.
        ahead = [prod(shares) for shares in zip(*(below[other] for other in known if other != name), strict=True)]
        best = sum(w * f * a for w, f, a in zip(weights, each.density(nodes), ahead, strict=True))
        # E[max(rest) - own]+ is the integral of P(own <= x) P(max(rest) > x); mirrored, it is that of the minimum.
        loss = sum(w * share * (1 - a) for w, share, a in zip(weights, below[name], ahead, strict=True))
        found[name] = Standing(min(best, 1.0), loss)
    return found


def compare_beliefs(control: Sample, treatment: Sample, *, alpha: float = 0.05) -> Comparison:
    """Return the comparison with credible intervals of 1 - alpha, equal tails; it has no p-value.

    Raises:
        ValueError: the samples are not of one kind, or alpha is no share.
    """
    require_same_kind(control, treatment)
    require_share("alpha", alpha)
    difference, lift = difference_of(control, treatment), lift_of(control, treatment)
    base, other = belief(control), belief(treatment)
    if difference is None or base is None or other is None:
        return Comparison(difference=difference, lift=lift)
    pair = _Pair.of(base, other)
    (low, *_, high), (lowest, *_, highest) = base.quantiles(_PIECES), other.quantiles(_PIECES)
    tails = (alpha / 2, 1 - alpha / 2)
    gaps = [
        _solve(lambda gap: pair.below(lambda x: x + gap, lambda y: y - gap), tail, lowest - high, highest - low)
        for tail in tails
    ]
    ratios = None
    if lift is not None and min(low, lowest) > 0:
        ratios = [
            _solve(
                lambda ratio: pair.below(lambda x: x * ratio, lambda y: y / ratio),
                tail,
                lowest / high,
                highest / low,
            )
            for tail in tails
        ]
    return Comparison(
        difference=difference,
        interval=Interval(*gaps),
        lift=lift,
        lift_interval=Interval(ratios[0] - 1, ratios[1] - 1) if ratios else None,
        chance_above=1 - pair.below(lambda x: x, lambda y: y),
    )


def chance_above(control: Sample, treatment: Sample) -> float | None:
    """Return the probability that the treatment is truly higher than the control; None where nothing is believed."""
    base, other = belief(control), belief(treatment)
    if base is None or other is None:
        return None
    return 1 - _Pair.of(base, other).below(lambda x: x, lambda y: y)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two independent beliefs, integrated over the narrower of them, on whose scale the other is smooth."""

    nodes: Sequence[float]
    masses: Sequence[float]
    other: Belief
    over_control: bool

    @classmethod
    def of(cls, control: Belief, treatment: Belief) -> "_Pair":
        over_control = _width(control) <= _width(treatment)
        narrow, other = (control, treatment) if over_control else (treatment, control)
        nodes, weights = _grid(narrow.quantiles(_PIECES))
        masses = [weight * height for weight, height in zip(weights, narrow.density(nodes), strict=True)]
        whole = sum(masses)
        return cls(nodes, [mass / whole for mass in masses], other, over_control)

    def below(self, to_treatment: Callable[[float], float], to_control: Callable[[float], float]) -> float:
        """Return the probability that the treatment is at most `to_treatment` of the control; its inverse is given."""
        if self.over_control:
            shares = self.other.cdf([to_treatment(node) for node in self.nodes])
        else:
            shares = [1 - share for share in self.other.cdf([to_control(node) for node in self.nodes])]
        return min(sum(mass * share for mass, share in zip(self.masses, shares, strict=True)), 1.0)


def _width(of: Belief) -> float:
    low, high = of.quantiles((0.025, 0.975))
    return high - low


def _grid(edges: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return nodes and weights for an integral over all pieces between the edges."""
    places, shares = _legendre()
    nodes, weights = [], []
    for low, high in pairwise(edges):
        half = (high - low) / 2
        nodes += [low + half * (1 + place) for place in places]
        weights += [half * share for share in shares]
    return nodes, weights


@cache
def _legendre() -> tuple[list[float], list[float]]:
    return legendre(_ORDER)


def _solve(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Return where a probability that rises from 0 to 1 between low and high reaches the target.

    By the Illinois method (Dowell and Jarratt 1971): false position, in which an end that stays loses half of its
    weight. It needs a third of the evaluations of bisection.
    """
    under, over, last = -target, 1 - target, 0.0
    middle = low
    for _ in range(_STEPS):
        middle = (low * over - high * under) / (over - under)
        error = rising(middle) - target
        if abs(error) < _SOLVED:
            break
        if error < 0:
            low, under = middle, error
            over = over / 2 if last < 0 else over
        else:
            high, over = middle, error
            under = under / 2 if last > 0 else under
        last = error
    return middle
