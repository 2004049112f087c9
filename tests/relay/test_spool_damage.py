"""F06: a segment cut at every byte and with every bit flipped costs what was hit, and nothing else.

Two levels. Every cut and every bit go through the function that finds records again, in memory: whether it has lost its
way shows in the records around the damage, since an offset is all that it carries along; `make prove` scans the whole
file each time. Samples of them, drawn by hypothesis, go through a spool on real files, as it starts and while it runs.
"""

import asyncio
import os
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events.disk import Disk
from relay.events.record import HEADER_BYTES, Bad, Good, Torn, encode, scan
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import Events
from tests.clocks import FakeClock

SEGMENT = 128 * 1_024
FLIPPED = 16 * 1_024
SEGMENTS = 2
AT_MS = 1_790_000_000_000
# Records before and behind the damage that are scanned with it.
REACH = SEGMENT if os.environ.get("HYPOTHESIS_PROFILE") == "prove" else 1
SETTINGS = Events.model_validate(
    {"segment_bytes": SEGMENT, "spool_bytes": 2**22, "commit_s": 0, "forward_batch_bytes": 16_384}
)
# What these tests look at does not depend on the synchronisation.
DISK = Disk(sync=lambda _descriptor: None)


def bodies_of(size: int) -> list[bytes]:
    """Return bodies of many lengths that fill a segment of this size to the byte."""
    bodies: list[bytes] = []
    while size:
        number = len(bodies)
        length = 40 + number * 97 % 400
        if size < 2 * (HEADER_BYTES + 440):
            length = size - HEADER_BYTES
        body = b'{"kind":"event","id":"%06d","unit":"' % number
        bodies.append(body.ljust(length - 2, b"u") + b'"}')
        size -= HEADER_BYTES + length
    return bodies


@dataclass(frozen=True)
class File:
    """Records one behind the other."""

    bodies: Sequence[bytes]
    data: bytes
    ends: Sequence[int]

    @classmethod
    def of(cls, bodies: Sequence[bytes]) -> "File":
        encoded = [encode(body, AT_MS) for body in bodies]
        return cls(bodies, b"".join(encoded), tuple(accumulate(map(len, encoded))))

    def start(self, number: int) -> int:
        return self.ends[number - 1] if number else 0

    def good(self, first: int, end: int) -> list[Good | Bad | Torn]:
        """Return these records as a scan shows them that begins with the first."""
        base = self.start(first) if first < len(self.bodies) else 0
        return [Good(self.start(n) - base, self.ends[n] - base, AT_MS, self.bodies[n]) for n in range(first, end)]


def test_every_cut_keeps_every_whole_record() -> None:
    """All 131,073 ends of a segment: the records before the cut are whole, the rest of the one that was cut is torn."""
    file = File.of(bodies_of(SEGMENT))
    assert len(file.data) == SEGMENT
    view = file.data
    for whole in range(len(file.bodies)):
        first = max(0, whole - REACH)
        base, end = file.start(first), file.ends[whole]
        before = file.good(first, whole)
        assert list(scan(view[base : file.start(whole)])) == before
        torn = [*before, Torn(file.start(whole) - base)]
        for cut in range(file.start(whole) + 1, end):
            assert list(scan(view[base:cut])) == torn
    assert [item.body for item in scan(file.data) if isinstance(item, Good)] == file.bodies


def test_every_flipped_bit_costs_its_record_to_the_byte() -> None:
    """All 131,072 bits of 16 KiB: the record that was hit is told to be damaged, from its first byte to its last."""
    file = File.of(bodies_of(FLIPPED))
    assert len(file.data) == FLIPPED
    for hit in range(len(file.bodies)):
        first, behind = max(0, hit - REACH), min(len(file.bodies), hit + 1 + REACH)
        base = file.start(first)
        window = bytearray(file.data[base : file.ends[behind - 1]])
        expected = file.good(first, behind)
        expected[hit - first] = Bad(file.start(hit) - base, file.ends[hit] - base)
        for place in range(file.start(hit) - base, file.ends[hit] - base):
            for bit in range(8):
                window[place] ^= 1 << bit
                assert list(scan(window)) == expected  # type: ignore[arg-type]
                window[place] ^= 1 << bit


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a spool that was closed with two full segments in it."""
    directory = tmp_path_factory.mktemp("filled") / "spool"

    async def fill() -> None:
        spool = await opened(directory)
        for number in range(SEGMENTS):
            for body in bodies_of(SEGMENT):
                await spool.append([b"%d%s" % (number, body[1:])])
        await spool.close()

    asyncio.run(fill())
    assert [path.stat().st_size for path in segments(directory)] == [SEGMENT] * SEGMENTS
    return directory


async def opened(directory: Path, metrics: RelayMetrics | None = None) -> Spool:
    return await Spool.open(directory, SETTINGS, FakeClock(), metrics or RelayMetrics(), DISK)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


@dataclass(frozen=True)
class Outcome:
    """What a damaged spool gave out, what it set aside, and how often it counted damage over three starts."""

    records: Sequence[bytes]
    quarantine: Sequence[bytes]
    counted: float


async def outcome(directory: Path, damage: Callable[[Path], None], *, is_running: bool) -> Outcome:
    """Damage a copy of the spool before it starts or behind its back, start it twice, and take everything out."""
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(shutil.copytree(directory, Path(temporary) / "spool"))
        metrics, records = RelayMetrics(), list[bytes]()
        if not is_running:
            damage(image)
        await (await opened(image, metrics)).close()
        spool = await opened(image, metrics)
        if is_running:
            damage(image)
        while batch := await spool.peek():
            records += batch.records
            await spool.acknowledge(batch)
        assert spool.stats().records == 0 or is_running
        await spool.close()
        quarantine = [path.read_bytes() for path in sorted((image / "quarantine").iterdir())]
        return Outcome(records, quarantine, metrics.events_quarantined.value("damaged"))


@cache
def whole_file() -> File:
    """Return what each of the segments held before the damage, but for the first byte of each body."""
    return File.of(bodies_of(SEGMENT))


@cache
def all_records() -> list[bytes]:
    return [b"%d%s" % (number, body[1:]) for number in range(SEGMENTS) for body in bodies_of(SEGMENT)]


@given(number=st.integers(0, SEGMENTS - 1), cut=st.integers(0, SEGMENT))
def test_a_spool_with_a_cut_segment_gives_out_every_whole_record(filled: Path, number: int, cut: int) -> None:
    """A torn end of the newest segment was never acknowledged and goes; of an older one it is damage, and is kept."""
    file = whole_file()
    whole = bisect_right(file.ends, cut)
    torn = file.data[file.start(whole) : cut] if whole < len(file.bodies) else b""

    def damage(image: Path) -> None:
        os.truncate(segments(image)[number], cut)

    found = asyncio.run(outcome(filled, damage, is_running=False))
    each = len(file.bodies)
    records = all_records()
    assert found.records == records[: number * each + whole] + records[(number + 1) * each :]
    is_damage = bool(torn) and number < SEGMENTS - 1
    assert found.counted == is_damage
    assert [len(kept) for kept in found.quarantine] == [len(torn)] * is_damage


@given(
    number=st.integers(0, SEGMENTS - 1),
    start=st.integers(0, SEGMENT - 1),
    length=st.sampled_from([1, 1, 24, 512, 4_096]),
    flip=st.integers(1, 255),
    is_running=st.booleans(),
)
def test_a_damaged_spool_gives_out_exactly_what_was_not_hit(
    filled: Path, *, number: int, start: int, length: int, flip: int, is_running: bool
) -> None:
    """Flipped bits, at the start or behind the relay's back: the quarantine has what was hit, the rest comes out."""
    file = whole_file()
    end = min(SEGMENT, start + length)
    first, last = bisect_right(file.ends, start), bisect_right(file.ends, end - 1)
    damaged: list[bytes] = []

    def damage(image: Path) -> None:
        path = segments(image)[number]
        data = bytearray(path.read_bytes())
        data[start:end] = bytes(byte ^ flip for byte in data[start:end])
        path.write_bytes(data)
        damaged.append(bytes(data[file.start(first) : file.ends[last]]))

    found = asyncio.run(outcome(filled, damage, is_running=is_running))
    each = len(file.bodies)
    records = all_records()
    assert found.records == records[: number * each + first] + records[number * each + last + 1 :]
    assert b"".join(found.quarantine) == damaged[0]
    assert found.counted == len(found.quarantine)
