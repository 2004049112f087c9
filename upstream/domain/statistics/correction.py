"""Correction for several questions at once: p-values adjusted so that they are compared with alpha as they stand.

Holm's method (1979, "A simple sequentially rejective multiple test procedure") is the default: the chance of even one
false claim stays below alpha, whatever the dependence between metrics and variants. Benjamini and Hochberg (1995) hold
the expected share of false claims among all claims instead, for independent or positively dependent questions; it
finds more where many are asked. Intervals are widened to match: by Bonferroni for Holm, and to the false coverage rate
(Benjamini and Yekutieli 2005) for Benjamini-Hochberg.
"""

from collections.abc import Hashable, Mapping
from enum import StrEnum
from itertools import accumulate
from typing import TypeVar

from upstream.domain.statistics.samples import require_share

Question = TypeVar("Question", bound=Hashable)


class Correction(StrEnum):
    """How p-values and intervals account for the number of questions."""

    HOLM = "holm"
    BENJAMINI_HOCHBERG = "benjamini-hochberg"
    NONE = "none"


def adjusted(
    p_values: Mapping[Question, float | None], method: Correction = Correction.HOLM
) -> dict[Question, float | None]:
    """Return the adjusted p-value of every question; one without a p-value yet stays without, and counts as asked.

    Raises:
        ValueError: a p-value is not from 0 to 1.
    """
    for question, p in p_values.items():
        if p is not None and not 0 <= p <= 1:
            raise ValueError(f"p_values[{question!r}] must be from 0 to 1, and is {p!r}")
    known = sorted((p, place, question) for place, (question, p) in enumerate(p_values.items()) if p is not None)
    asked = len(p_values)
    if method is Correction.HOLM:
        raw = [(asked - rank) * p for rank, (p, _, _) in enumerate(known)]
        steps = list(accumulate(raw, max))
    elif method is Correction.BENJAMINI_HOCHBERG:
        raw = [asked * p / (rank + 1) for rank, (p, _, _) in enumerate(known)]
        steps = list(accumulate(reversed(raw), min))[::-1]
    else:
        steps = [p for p, _, _ in known]
    result: dict[Question, float | None] = dict.fromkeys(p_values)
    for (_, _, question), step in zip(known, steps, strict=True):
        result[question] = min(step, 1.0)
    return result


def interval_alpha(
    adjusted_p_values: Mapping[Question, float | None], alpha: float, method: Correction = Correction.HOLM
) -> float:
    """Return the alpha at which every interval is to be computed, so that they match the adjusted p-values.

    Raises:
        ValueError: alpha is no share.
    """
    require_share("alpha", alpha)
    asked = max(len(adjusted_p_values), 1)
    if method is Correction.HOLM:
        return alpha / asked
    if method is Correction.BENJAMINI_HOCHBERG:
        claimed = sum(1 for p in adjusted_p_values.values() if p is not None and p <= alpha)
        return alpha * max(claimed, 1) / asked
    return alpha
