"""Sample-ratio mismatch: do the variants have the share of the units that the experiment gives them?

Where they do not, units are lost or sent elsewhere for a reason that may have to do with the variant, and no comparison
can be trusted. The familiar chi-square p-value is for one look. People and schedules look all the time, so what blocks
a verdict is the always-valid p-value of Lindon and Malek ("Anytime-valid inference for multinomial count data", NeurIPS
2022): the likelihood of the configured weights against a Dirichlet mixture around them. With the threshold 0.01, at
most 1 % of sound experiments are ever blocked, in their whole life; that asks for about 3.7 standard errors at 10,000
units, somewhat more than the customary p < 0.001 of a single chi-square (3.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite, lgamma, log

from upstream.domain.statistics.distributions import chi_square_above
from upstream.domain.statistics.samples import require_count

BLOCKS_BELOW = 0.01
_CONCENTRATION = 100
"""How many units' worth of belief the mixture puts in the weights: shares that are off by some points are likely."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """How the units are divided. `p_value` is always valid and decides; `chi_square_p_value` is for one look."""

    p_value: float
    chi_square_p_value: float
    is_mismatch: bool


def sample_ratio(units: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """Hold the units of every variant against the configured weights (of any sum).

    Raises:
        ValueError: the two do not name the same variants, or a count or weight is out of range.
    """
    _check(units, weights)
    whole, total = sum(weights.values()), sum(units.values())
    shares = {name: weight / whole for name, weight in weights.items() if weight}
    if any(units[name] for name in units if not weights[name]):
        # A variant that nobody is sent to has units: no chance explains that.
        return SampleRatio(0.0, 0.0, is_mismatch=True)
    if not total or len(shares) == 1:
        return SampleRatio(1.0, 1.0, is_mismatch=False)
    statistic = sum((units[name] - total * share) ** 2 / (total * share) for name, share in shares.items())
    evidence = lgamma(_CONCENTRATION) - lgamma(_CONCENTRATION + total)
    for name, share in shares.items():
        prior = _CONCENTRATION * share
        evidence += lgamma(prior + units[name]) - lgamma(prior) - units[name] * log(share)
    p_value = exp(-max(evidence, 0.0))
    return SampleRatio(p_value, chi_square_above(statistic, len(shares) - 1), is_mismatch=p_value < BLOCKS_BELOW)


def _check(units: Mapping[str, int], weights: Mapping[str, float]) -> None:
    if units.keys() != weights.keys():
        raise ValueError(f"units and weights must name the same variants: {sorted(units)} and {sorted(weights)}")
    for name, count in units.items():
        require_count(f"units[{name!r}]", count)
    for name, weight in weights.items():
        if not isfinite(weight) or weight < 0:
            raise ValueError(f"weights[{name!r}] must be a finite number not below 0, and is {weight!r}")
    if not any(weights.values()):
        raise ValueError("weights must hold one above 0")
