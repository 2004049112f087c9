"""Counts distinct units in bounded space: a HyperLogLog sketch of our own, which relays send and the authority merges.

32,768 registers (p = 15) hold the longest run of zero bits among the hashes that fell to them; merging takes the
larger of each, so it may happen in any order and any number of times. The estimate is Ertl's improved raw estimator
("New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6): no tables, no switch between
ranges, and a standard error of 0.6 %. Few registers are kept in a dict, many in a bytearray; both are the same sketch,
with the same bytes. Pure, and without numpy, which the relay does not have.
"""

from collections.abc import Iterator
from math import log, sqrt
from typing import Self

import mmh3

from relay.protocol.sealed import BadBytes, seal, unseal

PRECISION = 15
REGISTERS = 1 << PRECISION
SPARSE_IN_MEMORY = 512
"""Registers up to which a dict is smaller than all of them."""
SPARSE_ON_WIRE = 5_461
"""Registers up to which they are sent one by one: beyond that, half a byte for each of all is shorter."""
MAX_ESTIMATE = 2**63 - 1
"""What a database's integer can hold; no honest sketch comes near."""

_REST_BITS = 64 - PRECISION
_REST = (1 << _REST_BITS) - 1
_TOP = _REST_BITS + 1
# Not the hash of rollouts: a variation's units share its beginning, and would fill a part of the registers only.
_SEED = 0x48414C59

_KIND = b"U"
_VERSION = 1
_NAME = "the sketch of units"
_SPARSE, _DENSE = b"\x00", b"\x01"
_ENTRY_BYTES = 3
_RANK_BITS = 6
_RANK = (1 << _RANK_BITS) - 1
_NIBBLE = 15
_PACKED = REGISTERS // 2
_DENSE_HEAD = 2
_MOST_BYTES = _DENSE_HEAD + _PACKED + _ENTRY_BYTES * REGISTERS

# Whole registers are compared as one large integer, a byte each: arithmetic on 32 KiB runs at the speed of memory.
_ONES = int.from_bytes(b"\x01" * REGISTERS, "little")
_HIGHS = _ONES << 7
_LOW_NIBBLES = int.from_bytes(b"\x0f" * _PACKED, "little")


def unit_hash(unit: str) -> int:
    """Return the hash of a unit, the lower half of its MurmurHash3 x64-128, to be counted in any number of sketches."""
    # As bytes: mmh3 5.3.1 crashes the process on a string that holds half of a surrogate pair.
    return mmh3.mmh3_x64_128_utupledigest(unit.encode("utf-8", "surrogatepass"), _SEED)[0]


class UnitSketch:  # noqa: PLW1641 - it changes
    """How many distinct units were seen, within about 0.6 % (one standard error)."""

    __slots__ = ("_dense", "_sparse")

    def __init__(self) -> None:
        self._sparse: dict[int, int] = {}
        self._dense: bytearray | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnitSketch) and self.to_bytes() == other.to_bytes()

    def add(self, unit: str) -> None:
        """Count a unit; again is no more."""
        self.add_hash(unit_hash(unit))

    def add_hash(self, hashed: int) -> None:
        """Count a unit given by its `unit_hash`."""
        index = hashed >> _REST_BITS
        rank = _TOP - (hashed & _REST).bit_length()
        dense = self._dense
        if dense is not None:
            if dense[index] < rank:  # noqa: PLR1730 - most units change nothing, and a call of max costs as much as the rest
                dense[index] = rank
        elif self._sparse.get(index, 0) < rank:
            self._set(index, rank)

    def merge(self, other: "UnitSketch") -> None:
        """Count every unit that the other one has counted."""
        sparse, dense = other._sparse, other._dense  # noqa: SLF001 - its own kind
        if dense is not None and self._dense is not None:
            self._dense = _larger(self._dense, dense)
            return
        if dense is not None:
            sparse, self._sparse, self._dense = self._sparse, {}, bytearray(dense)
        for index, rank in sparse.items():
            known = self._sparse.get(index, 0) if self._dense is None else self._dense[index]
            if known < rank:
                self._set(index, rank)

    def copy(self) -> Self:
        """Return a sketch that changes on its own."""
        copied = type(self)()
        copied.merge(self)
        return copied

    def estimate(self) -> int:
        """Return about how many distinct units were counted: 0 only of none, `MAX_ESTIMATE` if no register has room."""
        counts = self._histogram()
        z = REGISTERS * _tau(1 - counts[_TOP] / REGISTERS)
        for rank in range(_REST_BITS, 0, -1):
            z = (z + counts[rank]) / 2
        z += REGISTERS * _sigma(counts[0] / REGISTERS)
        # With alpha at infinity: 1 / (2 ln 2).
        return round(min(REGISTERS * REGISTERS / (2 * log(2) * z), MAX_ESTIMATE)) if z else MAX_ESTIMATE

    def to_bytes(self) -> bytes:
        """Return the one form of these registers on the wire, with version and checksum."""
        used = len(self._sparse) if self._dense is None else REGISTERS - self._dense.count(0)
        if used > SPARSE_ON_WIRE:
            return seal(_KIND, _VERSION, _DENSE + _pack(self._registers()))
        entries = self._sparse.items() if self._dense is None else ((i, r) for i, r in enumerate(self._dense) if r)
        return seal(_KIND, _VERSION, _SPARSE + _entries(sorted(entries)))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            BadBytes: it is something else; the text says what is wrong.
        """
        body = unseal(_NAME, _KIND, _VERSION, raw, most=_MOST_BYTES)
        sketch = cls()
        sketch._read(body)
        # One form for each sketch: so equal sketches can be told by their bytes, and nothing is carried along unread.
        if sketch.to_bytes() != raw:
            raise BadBytes(f"{_NAME} is not in the form in which it is written")
        return sketch

    def _read(self, body: bytes) -> None:
        if body[:1] == _DENSE and len(body) >= _DENSE_HEAD + _PACKED:
            self._dense = _unpack(body)
        elif body[:1] == _SPARSE:
            for index, rank in _read_entries(body[1:]):
                self._set(index, rank)
        else:
            raise BadBytes(f"{_NAME} has a body that is neither of its forms")

    def _set(self, index: int, rank: int) -> None:
        if self._dense is not None:
            self._dense[index] = rank
            return
        self._sparse[index] = rank
        if len(self._sparse) > SPARSE_IN_MEMORY:
            self._dense, self._sparse = self._registers(), {}

    def _registers(self) -> bytearray:
        if self._dense is not None:
            return self._dense
        registers = bytearray(REGISTERS)
        for index, rank in self._sparse.items():
            registers[index] = rank
        return registers

    def _histogram(self) -> list[int]:
        """Return how many registers hold each rank."""
        counts = [0] * (_TOP + 1)
        if self._dense is not None:
            for rank in set(self._dense):
                counts[rank] = self._dense.count(rank)
            return counts
        for rank in self._sparse.values():
            counts[rank] += 1
        counts[0] = REGISTERS - len(self._sparse)
        return counts


def _larger(one: bytearray, other: bytearray) -> bytearray:
    """Return the larger of each pair of bytes, all below 128."""
    ones, others = int.from_bytes(one, "little"), int.from_bytes(other, "little")
    # The high bit of each byte survives where `one` is not smaller; no byte borrows from the next.
    is_larger = ((((ones | _HIGHS) - others) & _HIGHS) >> 7) * 0xFF
    return bytearray(((ones & is_larger) | (others & ~is_larger)).to_bytes(REGISTERS, "little"))


def _pack(registers: bytearray) -> bytes:
    """Return the least rank, what each register has above it in half a byte, and those for which that is too little."""
    ranks = set(registers)
    base = min(ranks)
    nibbles = registers.translate(bytes(min(max(rank - base, 0), _NIBBLE) for rank in range(256)))
    low, high = int.from_bytes(nibbles[0::2], "little"), int.from_bytes(nibbles[1::2], "little")
    above = [(index, rank) for rank in ranks if rank >= base + _NIBBLE for index in _places(registers, rank)]
    return bytes((base,)) + (low | high << 4).to_bytes(_PACKED, "little") + _entries(sorted(above))


def _places(registers: bytearray, rank: int) -> Iterator[int]:
    place = registers.find(rank)
    while place >= 0:
        yield place
        place = registers.find(rank, place + 1)


def _unpack(body: bytes) -> bytearray:
    base, packed = body[1], int.from_bytes(body[_DENSE_HEAD : _DENSE_HEAD + _PACKED], "little")
    nibbles = bytearray(REGISTERS)
    nibbles[0::2] = (packed & _LOW_NIBBLES).to_bytes(_PACKED, "little")
    nibbles[1::2] = (packed >> 4 & _LOW_NIBBLES).to_bytes(_PACKED, "little")
    registers = nibbles.translate(bytes(min(base + step, _TOP) for step in range(256)))
    for index, rank in _read_entries(body[_DENSE_HEAD + _PACKED :]):
        registers[index] = rank
    return registers


def _entries(registers: list[tuple[int, int]]) -> bytes:
    return b"".join([(index << _RANK_BITS | rank).to_bytes(_ENTRY_BYTES, "big") for index, rank in registers])


def _read_entries(raw: bytes) -> list[tuple[int, int]]:
    if len(raw) % _ENTRY_BYTES:
        raise BadBytes(f"{_NAME} ends inside a register")
    entries = []
    for place in range(0, len(raw), _ENTRY_BYTES):
        index, rank = divmod(int.from_bytes(raw[place : place + _ENTRY_BYTES], "big"), _RANK + 1)
        if index >= REGISTERS or not 0 < rank <= _TOP:
            raise BadBytes(f"{_NAME} has no register {index} that could hold {rank}")
        entries.append((index, rank))
    return entries


def _sigma(share: float) -> float:
    """Return Ertl's sigma (2017, algorithm 6), which corrects for registers that are still empty."""
    if share == 1:
        return float("inf")
    weight, total = 1.0, share
    while True:
        share *= share
        before, total = total, total + share * weight
        weight += weight
        if total == before:
            return total


def _tau(share: float) -> float:
    """Return Ertl's tau (2017, algorithm 6), which corrects for registers that hold all they can."""
    if share in {0, 1}:
        return 0.0
    weight, total = 1.0, 1 - share
    while True:
        share = sqrt(share)
        weight /= 2
        before, total = total, total - (1 - share) ** 2 * weight
        if total == before:
            return total / 3
