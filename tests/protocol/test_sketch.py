"""Sketches of units: how well they count, that merging is a set union, and what the wire does to them."""

from collections.abc import Iterable
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.sealed import BadBytes, seal
from relay.protocol.sketch import MAX_ESTIMATE, REGISTERS, SPARSE_IN_MEMORY, SPARSE_ON_WIRE, UnitSketch, unit_hash
from tests.protocol.sketch_accuracy import error_of

TOP = 50
SCALES = (0, 1, 40, SPARSE_IN_MEMORY - 1, SPARSE_IN_MEMORY + 40, 5_000, 40_000)


def sketch_of(units: Iterable[object]) -> UnitSketch:
    """Return a sketch that has counted each unit."""
    sketch = UnitSketch()
    for unit in units:
        sketch.add(f"user-{unit}")
    return sketch


def merged(*sketches: UnitSketch) -> UnitSketch:
    """Return all that any of the sketches has counted."""
    result = UnitSketch()
    for sketch in sketches:
        result.merge(sketch)
    return result


# Sketches of every form; those of one scale overlap.
MADE = {(start, size): sketch_of(range(start, start + size)) for size in SCALES for start in (0, size // 2)}
SKETCHES = st.sampled_from(sorted(MADE)).map(MADE.__getitem__) | st.lists(st.integers(0, 2**64 - 1), max_size=30).map(
    lambda hashes: with_hashes(hashes)  # noqa: PLW0108 - it stands below
)


def with_hashes(hashes: Iterable[int]) -> UnitSketch:
    """Return a sketch that has counted units with these hashes."""
    sketch = UnitSketch()
    for hashed in hashes:
        sketch.add_hash(hashed)
    return sketch


def hash_for(index: int, rank: int) -> int:
    """Return a hash that falls to a register with a rank."""
    return index << 49 | (1 << (49 - rank) if rank < TOP else 0)


def test_a_million_units_seen_by_twenty_relays_are_counted_within_two_percent() -> None:
    """Every relay sees a twentieth of the units, and half of those that the next one sees; typical errors are 0.6 %."""
    assert abs(error_of(1_000_000, seed=0)) <= 0.02


@pytest.mark.parametrize("size", SCALES)
def test_any_number_is_counted_within_two_percent(size: int) -> None:
    """From nobody to many, without a range in which another method takes over."""
    assert MADE[0, size].estimate() == pytest.approx(size, rel=0.02)


def test_nobody_is_counted_twice() -> None:
    """A unit that comes again changes nothing, in either form."""
    for sketch in (sketch_of(range(3)), sketch_of(range(2_000))):
        before = sketch.to_bytes()
        for unit in range(3):
            sketch.add(f"user-{unit}")
        assert sketch.to_bytes() == before


def test_full_registers_are_an_estimate_still() -> None:
    """Registers that hold all they can are the largest number, no error."""
    full = with_hashes(hash_for(index, TOP) for index in range(REGISTERS))
    nearly = with_hashes(hash_for(index, TOP - 10 * (index % 2)) for index in range(REGISTERS))
    assert full.estimate() == MAX_ESTIMATE > nearly.estimate() > 2**50


def test_half_of_a_surrogate_pair_is_a_unit() -> None:
    """Text that is no valid Unicode is hashed like any other and crashes nothing."""
    assert unit_hash("\udcff") != unit_hash("\udcfe")


def test_the_hash_is_a_promise() -> None:
    """Relays of all versions must hash alike, or their sketches add up to too much."""
    assert unit_hash("user-1") == HASH_OF_USER_1
    assert unit_hash("grüße") == HASH_OF_GREETINGS


HASH_OF_USER_1 = 2298052846165483416
HASH_OF_GREETINGS = 956952264206729823


@given(SKETCHES, SKETCHES, SKETCHES)
def test_merging_is_a_union(one: UnitSketch, two: UnitSketch, three: UnitSketch) -> None:
    """Order, grouping and repetition of merges do not matter, and nobody is nothing."""
    assert merged(one, two) == merged(two, one)
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert merged(one, two, one, one) == merged(one, two)
    assert merged(one, UnitSketch()) == one


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), SKETCHES)
def test_merging_counts_what_both_have_counted(hashes: list[int], other: UnitSketch) -> None:
    """A merged sketch is the one that would have counted all units itself."""
    together = other.copy()
    for hashed in hashes:
        together.add_hash(hashed)
    assert merged(with_hashes(hashes), other) == together


def test_a_copy_goes_its_own_way() -> None:
    """What is added to a copy is not added to the original, in either form."""
    for original in (sketch_of(range(3)), sketch_of(range(2_000))):
        before = original.to_bytes()
        copied = original.copy()
        copied.merge(sketch_of(range(5_000, 6_000)))
        assert original.to_bytes() == before != copied.to_bytes()
        assert original != copied
    assert original != before


@given(SKETCHES)
def test_the_wire_brings_the_same_sketch(sketch: UnitSketch) -> None:
    """Bytes are read into a sketch that is equal, counts the same and writes the same bytes."""
    raw = sketch.to_bytes()
    read = UnitSketch.from_bytes(raw)
    assert read == sketch
    assert read.estimate() == sketch.estimate()
    assert read.to_bytes() == raw


def test_few_registers_are_sent_as_the_dense_form_would_send_them() -> None:
    """A sketch that holds all registers but uses few has the bytes of one that holds few: the form is no fact."""
    few = with_hashes(hash_for(index, 3) for index in range(SPARSE_IN_MEMORY))
    many = with_hashes(hash_for(index, 3) for index in range(SPARSE_IN_MEMORY + 1))
    grown = few.copy()
    grown.add_hash(hash_for(SPARSE_IN_MEMORY, 3))
    assert grown.to_bytes() == many.to_bytes() == UnitSketch.from_bytes(many.to_bytes()).to_bytes()
    assert few.to_bytes() == UnitSketch.from_bytes(few.to_bytes()).to_bytes()


@pytest.mark.parametrize("used", [SPARSE_ON_WIRE, SPARSE_ON_WIRE + 1])
def test_the_shorter_form_is_sent(used: int) -> None:
    """At the limit the two forms have about the same length, and neither is ever longer than 17 KiB of itself."""
    sketch = with_hashes(hash_for(index, 1) for index in range(used))
    assert UnitSketch.from_bytes(sketch.to_bytes()) == sketch
    assert len(sketch.to_bytes()) <= 16_400


def test_ranks_far_above_the_rest_survive() -> None:
    """Half a byte holds 14 ranks above the least; what lies beyond is sent beside."""
    sketch = with_hashes(hash_for(index, 2 + index % 49) for index in range(REGISTERS))
    assert UnitSketch.from_bytes(sketch.to_bytes()) == sketch


@given(st.sampled_from([MADE[0, 40], MADE[0, 40_000]]), st.data())
def test_changed_bytes_are_refused(sketch: UnitSketch, data: st.DataObject) -> None:
    """One flipped bit, a cut or an addition anywhere: an error, never another count."""
    raw = bytearray(sketch.to_bytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadBytes, match="the sketch of units"):
        UnitSketch.from_bytes(bytes(raw))
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BadBytes, match="the sketch of units"):
        UnitSketch.from_bytes(sketch.to_bytes()[:cut])
    with pytest.raises(BadBytes, match="checksum"):
        UnitSketch.from_bytes(sketch.to_bytes() + b"\0")


def test_another_version_says_so() -> None:
    """A sketch by a newer writer is refused by what it is, not as damage."""
    with pytest.raises(BadBytes, match="has version 2, and this reader knows version 1"):
        UnitSketch.from_bytes(seal(b"U", 2, b""))


def entry(index: int, rank: int) -> bytes:
    return (index << 6 | rank).to_bytes(3, "big")


NOT_A_SKETCH = {
    "no form": (b"", "neither of its forms"),
    "unknown form": (b"\x02", "neither of its forms"),
    "cut dense form": (b"\x01\x00" + bytes(16_000), "neither of its forms"),
    "cut register": (b"\x00\x00\x00", "ends inside a register"),
    "no such register": (b"\x00" + entry(REGISTERS, 1), "no register 32768 that could hold 1"),
    "rank 0": (b"\x00" + entry(7, 0), "no register 7 that could hold 0"),
    "rank too high": (b"\x00" + entry(7, TOP + 1), "no register 7 that could hold 51"),
    "falling": (b"\x00" + entry(7, 1) + entry(6, 1), "not in the form"),
    "twice": (b"\x00" + entry(7, 1) + entry(7, 2), "not in the form"),
    "dense but few": (b"\x01\x00" + bytes(16_384), "not in the form"),
    "no such base": (b"\x01\xff" + bytes(16_384), "not in the form"),
    "half of what is beside": (b"\x01\x01" + b"\xff" * 16_384, "not in the form"),
}


@pytest.mark.parametrize("case", NOT_A_SKETCH)
def test_a_sound_frame_around_no_sketch_is_refused(case: str) -> None:
    """A right checksum proves nothing about the body, which is read as strictly as anybody's."""
    body, message = NOT_A_SKETCH[case]
    with pytest.raises(BadBytes, match=message):
        UnitSketch.from_bytes(seal(b"U", 1, body))


def test_what_is_too_long_is_not_looked_at() -> None:
    """Length is checked first, so that nobody can make the authority work on megabytes."""
    body = b"U\x01" + bytes(200_000)
    with pytest.raises(BadBytes, match="more than the"):
        UnitSketch.from_bytes(body + crc32(body).to_bytes(4, "big"))
