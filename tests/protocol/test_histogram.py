"""Histograms of durations: averages, quantiles, merging, the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.histogram import BOUNDS_US, MAX_TOTAL, DurationHistogram
from relay.protocol.sealed import BadBytes, read_numbers, seal, write_number

DURATIONS = st.lists(st.integers(1, 2**27), min_size=1, max_size=60)
NUMBERS = st.integers(0, 2**63 - 1)


def histogram_of(durations: list[int]) -> DurationHistogram:
    """Return a histogram that has counted each duration, in microseconds."""
    histogram = DurationHistogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


def merged(*histograms: DurationHistogram) -> DurationHistogram:
    """Return the sum of the histograms."""
    result = DurationHistogram()
    for each in histograms:
        result.merge(each)
    return result


def body_of(*numbers: int) -> bytes:
    return b"".join(map(write_number, numbers))


@given(DURATIONS)
def test_the_average_is_exact(durations: list[int]) -> None:
    """Buckets blur quantiles, never the average and the count."""
    histogram = histogram_of(durations)
    assert histogram.count == len(durations)
    assert histogram.mean_us() == sum(durations) / len(durations)


@given(DURATIONS, st.sampled_from([0.001, 0.25, 0.5, 0.9, 0.99, 1]))
def test_a_quantile_is_told_within_nine_percent(durations: list[int], share: float) -> None:
    """The quantile is half a bucket away at most from the duration that it stands for."""
    ranked = sorted(durations)
    # The least duration that at least this share of all does not exceed.
    exact = next(each for place, each in enumerate(ranked, 1) if place >= share * len(ranked))
    assert histogram_of(durations).quantile_us(share) == pytest.approx(exact, rel=2 ** (1 / 8) - 1 + 1e-9)


def test_nothing_has_no_average() -> None:
    """Without a duration there is neither average nor quantile."""
    nothing = DurationHistogram()
    assert (nothing.count, nothing.mean_us(), nothing.quantile_us(0.5)) == (0, None, None)


def test_the_ends_are_counted() -> None:
    """A clock that went back counts as 0, and what took longer than the last bound as having taken that."""
    assert histogram_of([-5]).mean_us() == 0
    assert histogram_of([-5]).quantile_us(0.5) == 1
    assert histogram_of([2**40]).quantile_us(0.5) == BOUNDS_US[-1] == 2**27
    assert histogram_of([2**27]).quantile_us(1) == pytest.approx(2**27, rel=0.09)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_nothing_to_all(share: float) -> None:
    """A quantile outside 0..1 is refused by name."""
    with pytest.raises(ValueError, match="share must be from 0 to 1"):
        histogram_of([1]).quantile_us(share)


@given(DURATIONS, DURATIONS, DURATIONS)
def test_merging_adds(one: list[int], two: list[int], three: list[int]) -> None:
    """Merged histograms are the histogram of all durations, in any order and grouping."""
    a, b, c = histogram_of(one), histogram_of(two), histogram_of(three)
    assert merged(a, b, c) == merged(c, merged(b, a)) == histogram_of(one + two + three)
    assert merged(a, b) != a
    assert merged(a) != one


@given(DURATIONS)
def test_the_wire_brings_the_same_histogram(durations: list[int]) -> None:
    """Bytes are read into a histogram that is equal and writes the same bytes."""
    histogram = histogram_of(durations)
    raw = histogram.to_bytes()
    assert DurationHistogram.from_bytes(raw) == histogram
    assert DurationHistogram.from_bytes(raw).to_bytes() == raw


@given(DURATIONS, st.data())
def test_changed_bytes_are_refused(durations: list[int], data: st.DataObject) -> None:
    """One flipped bit or a cut anywhere: an error, never other counts."""
    raw = bytearray(histogram_of(durations).to_bytes())
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BadBytes, match="the histogram of durations"):
        DurationHistogram.from_bytes(bytes(raw[:cut]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadBytes, match="the histogram of durations"):
        DurationHistogram.from_bytes(bytes(raw))


NOT_A_HISTOGRAM = {
    "nothing": (b"", "bucket without a count"),
    "bucket without count": (body_of(5, 1), "bucket without a count"),
    "no such bucket": (body_of(5, 110, 1), "no bucket 110 that could hold 1"),
    "empty bucket": (body_of(5, 1, 0), "no bucket 1 that could hold 0"),
    "bucket twice": (body_of(5, 1, 1, 0, 1), "not in the form"),
    "number in more bytes than needed": (b"\x85\x00", "not in the form"),
    "cut number": (b"\x85", "ends inside a number"),
    "large number": (b"\xff" * 9 + b"\x01", "above 2\\^63"),
    "number without end": (b"\x80" * 11, "above 2\\^63"),
    "too many": (body_of(5, 1, 2**63 - 1, 1, 1), "not in the form"),
}


@pytest.mark.parametrize("case", NOT_A_HISTOGRAM)
def test_a_sound_frame_around_no_histogram_is_refused(case: str) -> None:
    """A right checksum proves nothing about the body."""
    body, message = NOT_A_HISTOGRAM[case]
    with pytest.raises(BadBytes, match=message):
        DurationHistogram.from_bytes(seal(b"H", 1, body))


def test_what_no_database_can_hold_is_not_sent() -> None:
    """A sum above 2^63 - 1 is refused where it is written."""
    with pytest.raises(ValueError, match="more than"):
        histogram_of([MAX_TOTAL, 1]).to_bytes()


@given(st.lists(NUMBERS, max_size=20))
def test_numbers_are_read_as_written(numbers: list[int]) -> None:
    """Every number from 0 to 2^63 - 1 comes back."""
    assert read_numbers("numbers", body_of(*numbers)) == numbers
