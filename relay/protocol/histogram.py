"""Counts durations in fixed buckets, so that averages and quantiles of many relays can be added up.

The bounds grow by the fourth root of 2 from 1 µs to 128 s, the same everywhere and for ever (a change of them is a new
version): 109 buckets, the last of which has no end. A quantile is told within 9 % (half a bucket), the average exactly.
Merging adds, so it is a histogram's sender who must see to it that it is merged once. Pure.
"""

from bisect import bisect_left
from typing import Self

from relay.protocol.sealed import BadBytes, read_numbers, seal, unseal, write_number

MAX_TOTAL = 2**63 - 1
"""The largest count and sum: what a database's integer can hold."""

_STEPS_PER_DOUBLING = 4
_DOUBLINGS = 27
_BEYOND = _STEPS_PER_DOUBLING * _DOUBLINGS + 1
_KIND = b"H"
_VERSION = 1
_NAME = "the histogram of durations"
_HEAD = 1
_MOST_BYTES = 9 + _BEYOND * 11

BOUNDS_US = tuple(2 ** (step / _STEPS_PER_DOUBLING) for step in range(_BEYOND))
"""The upper ends of the buckets in microseconds, each belonging to its bucket; one bucket more lies above the last."""


class DurationHistogram:  # noqa: PLW1641 - it changes
    """Durations in microseconds, counted by how long they took."""

    __slots__ = ("_counts", "sum_us")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.sum_us = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DurationHistogram) and self.to_bytes() == other.to_bytes()

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._counts.values())

    def add(self, duration_us: int) -> None:
        """Count one duration; what a clock that was set back makes negative counts as 0."""
        duration_us = max(duration_us, 0)
        bucket = bisect_left(BOUNDS_US, duration_us)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.sum_us += duration_us

    def merge(self, other: "DurationHistogram") -> None:
        """Count every duration of the other one."""
        for bucket, count in other._counts.items():  # noqa: SLF001 - its own kind
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.sum_us += other.sum_us

    def mean_us(self) -> float | None:
        """Return the average; None of none."""
        return self.sum_us / self.count if self._counts else None

    def quantile_us(self, share: float) -> float | None:
        """Return about the duration that this share of all (0..1) does not exceed; None of none.

        It is the geometric middle of the bucket; the first bucket's is its end, and of the last, which has no end, its
        beginning.

        Raises:
            ValueError: `share` is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must be from 0 to 1, and is {share!r}")
        rest = share * self.count
        for bucket, count in sorted(self._counts.items()):
            rest -= count
            if rest <= 0:
                return _middle_us(bucket)
        return None

    def to_bytes(self) -> bytes:
        """Return the one form of these counts on the wire: the sum, then each bucket's step from the last and count.

        Raises:
            ValueError: a count or the sum is above `MAX_TOTAL`.
        """
        if max(self.count, self.sum_us) > MAX_TOTAL:
            raise ValueError(f"{_NAME} holds more than 2^63 - 1")
        numbers, last = [self.sum_us], 0
        for bucket, count in sorted(self._counts.items()):
            numbers += [bucket - last, count]
            last = bucket
        return seal(_KIND, _VERSION, b"".join(map(write_number, numbers)))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            BadBytes: it is something else; the text says what is wrong.
        """
        numbers = read_numbers(_NAME, unseal(_NAME, _KIND, _VERSION, raw, most=_MOST_BYTES))
        if len(numbers) % 2 != _HEAD:
            raise BadBytes(f"{_NAME} has a bucket without a count")
        histogram = cls()
        histogram._read(numbers)
        if histogram.count > MAX_TOTAL or histogram.to_bytes() != raw:
            raise BadBytes(f"{_NAME} is not in the form in which it is written")
        return histogram

    def _read(self, numbers: list[int]) -> None:
        self.sum_us, bucket = numbers[0], 0
        for step, count in zip(numbers[1::2], numbers[2::2], strict=True):
            bucket += step
            if bucket > _BEYOND or not count:
                raise BadBytes(f"{_NAME} has no bucket {bucket} that could hold {count}")
            self._counts[bucket] = self._counts.get(bucket, 0) + count


def _middle_us(bucket: int) -> float:
    if bucket in {0, _BEYOND}:
        return BOUNDS_US[min(bucket, _BEYOND - 1)]
    return 2 ** ((bucket - 0.5) / _STEPS_PER_DOUBLING)
