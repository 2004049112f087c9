"""Puts units into 100,000 buckets, and gives each unit of an exclusion group to one flag, by MurmurHash3.

The formulas are a promise to every other implementation and to whoever is already in a rollout: everything around them
may change, they may not.
"""

from collections.abc import Iterable
from typing import Literal

import mmh3

BUCKETS = 100_000
"""One bucket is a thousandth of a percent."""

Purpose = Literal["rollout", "variant", "holdout"]

_SEPARATOR = "\x1f"


def bucket(purpose: Purpose, salt: str, unit: str) -> int:
    """Return the bucket of a unit, 0..99,999: the upper part of 100,000 times its 32-bit hash, so no modulo bias."""
    return (_murmur3(f"{purpose}:{salt}:{unit}") * BUCKETS) >> 32


def winner(group: str, flags: Iterable[str], unit: str) -> str:
    """Return the one flag of an exclusion group to which the unit belongs: the highest draw (rendezvous hashing).

    A flag that joins takes only units that it wins itself, and a flag that leaves gives back only its own. `flags` must
    not be empty.
    """
    return max(flags, key=lambda flag: (draw(group, flag, unit), flag))


def draw(group: str, flag: str, unit: str) -> int:
    """Return a flag's draw for a unit in an exclusion group, 0..2^32-1. Of equal draws the later key wins."""
    return _murmur3(f"{group}{_SEPARATOR}{flag}{_SEPARATOR}{unit}")


def _murmur3(text: str) -> int:
    # The bytes are made here because mmh3 5.3.1 crashes the process on a string that holds half of a surrogate pair,
    # and a lenient JSON reader lets one through.
    return mmh3.hash(text.encode("utf-8", "surrogatepass"), 0, signed=False)
