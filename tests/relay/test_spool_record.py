"""Records in damaged bytes: whatever is whole is found, nothing is made up, nothing crashes."""

from hypothesis import given
from hypothesis import strategies as st

from relay.events.record import HEADER_BYTES, MAGIC, Bad, Good, Torn, encode, scan

bodies = st.lists(st.binary(max_size=40), max_size=6)


def whole(data: bytes) -> list[bytes]:
    return [item.body for item in scan(data) if isinstance(item, Good)]


def assert_complete(data: bytes) -> None:
    """Check that the items cover the data in order and without a hole."""
    position = 0
    for item in scan(data):
        assert item.start == position
        position = len(data) if isinstance(item, Torn) else item.end
    assert position == len(data)


@given(bodies)
def test_records_are_read_back(records: list[bytes]) -> None:
    """What was written is read back in order, each with its time."""
    data = b"".join(encode(body, at_ms) for at_ms, body in enumerate(records))
    assert [(item.at_ms, item.body) for item in scan(data) if isinstance(item, Good)] == list(enumerate(records))
    assert_complete(data)


def test_a_cut_at_every_byte_keeps_every_record_before_it() -> None:
    """However much of the end is missing, all records before are whole, and the rest is told to be torn."""
    records = [b"first", b"", b"third record", b"x" * 100]
    encoded = [encode(body, 0) for body in records]
    data = b"".join(encoded)
    ends = [sum(map(len, encoded[: n + 1])) for n in range(len(records))]
    for cut in range(len(data) + 1):
        count = sum(end <= cut for end in ends)
        assert whole(data[:cut]) == records[:count]
        rest = [item for item in scan(data[:cut]) if not isinstance(item, Good)]
        assert all(isinstance(item, Torn) for item in rest)
        assert bool(rest) == (cut not in {0, *ends})


def test_every_flipped_bit_costs_exactly_its_own_record() -> None:
    """One wrong bit anywhere, in a header or a body, loses that record and no other."""
    records = [f"record {n} ".encode() * 4 for n in range(10)]
    encoded = [encode(body, 1_790_000_000_000) for body in records]
    data = bytearray(b"".join(encoded))
    owner = [n for n, record in enumerate(encoded) for _ in record]
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        hit = owner[bit // 8]
        assert whole(bytes(data)) == records[:hit] + records[hit + 1 :]
        data[bit // 8] ^= 1 << bit % 8


@given(bodies, st.binary(max_size=60), bodies)
def test_garbage_between_records_is_stepped_over(before: list[bytes], garbage: bytes, after: list[bytes]) -> None:
    """Any bytes between whole records are told as damage and the records behind them are found."""
    data = b"".join(encode(body, 0) for body in before) + garbage + b"".join(encode(body, 0) for body in after)
    assert_complete(data)
    assert whole(data) == before + after


def test_a_damaged_header_is_not_taken_for_the_next_one() -> None:
    """The magic alone makes no header: the search goes on to one whose own checksum holds."""
    damaged = MAGIC + b"x" * 40
    assert next(scan(damaged * 2 + encode(b"whole", 0))) == Bad(0, 2 * len(damaged))
    assert whole(damaged * 2 + encode(b"whole", 0)) == [b"whole"]


def test_a_body_cannot_pass_for_a_header() -> None:
    """The magic is no UTF-8 text, so the records of an attacker cannot contain a header."""
    assert b"\xff" in MAGIC
    inner = encode(b"forged", 0)
    data = bytearray(encode(b"x" + inner, 0))
    assert whole(bytes(data)) == [b"x" + inner]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_scanned(data: bytes) -> None:
    """Scanning covers every byte of any input and ends."""
    assert_complete(data)


def test_a_header_without_its_end_is_torn() -> None:
    """A beginning that may still become a header is torn; other bytes are damage."""
    assert list(scan(encode(b"", 0)[: HEADER_BYTES - 1])) == [Torn(0)]
    assert list(scan(b"\xffH")) == [Torn(0)]
    assert list(scan(b"xy")) == [Bad(0, 2)]
