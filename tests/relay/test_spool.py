"""The spool on real files: nothing that was acknowledged is lost, whatever happens to the process or to the disk.

A crash is a copy of the directory at that moment, opened by another spool: exactly what a killed process leaves.
"""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.events.disk import Disk, SpoolClosed, SpoolFailed, SpoolFull, SpoolLocked
from relay.events.reader import Batch
from relay.events.segment_file import Segment
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import Events
from tests.clocks import FakeClock

SEGMENT = 65_536


def settings(**changes: object) -> Events:
    small = {"spool_bytes": 1_048_576, "segment_bytes": SEGMENT, "commit_s": 0}
    return Events.model_validate(small | changes)


@asynccontextmanager
async def opened(
    directory: Path, *, disk: Disk | None = None, metrics: RelayMetrics | None = None, **changes: object
) -> AsyncIterator[Spool]:
    clock = FakeClock()
    spool = await Spool.open(directory, settings(**changes), clock, metrics or RelayMetrics(), disk)
    try:
        yield spool
    finally:
        await spool.close()


async def taken(spool: Spool) -> Batch:
    batch = await spool.peek()
    assert batch is not None
    return batch


async def drained(spool: Spool) -> list[bytes]:
    """Take and acknowledge everything."""
    records: list[bytes] = []
    while batch := await spool.peek():
        records += batch.records
        await spool.acknowledge(batch)
    return records


def crash_image(directory: Path, to: Path) -> Path:
    shutil.copytree(directory, to)
    return to


def only_segment(directory: Path) -> Path:
    (path,) = directory.glob("*.segment")
    return path


async def test_records_come_out_in_order_and_once(tmp_path: Path) -> None:
    """What was appended is given out in order, and after the acknowledgement never again, also after a restart."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1", b"2"])
        await spool.append([b"3"])
        assert (await taken(spool)).records == (b"1", b"2", b"3")
        assert await drained(spool) == [b"1", b"2", b"3"]
        await spool.append([b"4"])
    async with opened(tmp_path / "spool") as spool:
        assert spool.stats().records == 1
        assert await drained(spool) == [b"4"]
        assert await spool.peek() is None


async def test_what_was_acknowledged_to_the_caller_survives_kill(tmp_path: Path) -> None:
    """F04: once `append` has resolved, a crash at that moment leaves the records readable."""
    async with opened(tmp_path / "spool") as spool:
        for number in range(5):
            await spool.append([b"record %d" % number])
            image = crash_image(tmp_path / "spool", tmp_path / f"image{number}")
            async with opened(image) as revived:
                assert await drained(revived) == [b"record %d" % n for n in range(number + 1)]


async def test_every_append_is_synchronised_before_it_resolves(tmp_path: Path) -> None:
    """F07: when `append` resolves, the bytes that are needed to read the record back have been synchronised."""
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        os.fdatasync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    async with opened(tmp_path / "spool", disk=Disk(sync=sync)) as spool:
        for number in range(3):
            await spool.append([b"x" * 100])
            assert synced[-1] == only_segment(tmp_path / "spool").stat().st_size
            assert len(synced) == number + 1


async def test_calls_share_one_synchronisation(tmp_path: Path) -> None:
    """Appends that come while the disk works are committed together."""
    synced: list[int] = []
    async with opened(tmp_path / "spool", disk=Disk(sync=synced.append), commit_s=0.01) as spool:
        await spool.append([b"first"])
        for future in [spool.append([b"%d" % number]) for number in range(200)]:
            await future
        assert len(synced) < 20
        assert spool.stats().records == 201


async def test_a_batch_keeps_its_id_over_a_crash(tmp_path: Path) -> None:
    """F05: the batch that was given out before a crash is given out again with the same id and records."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1", b"2"])
        before = await taken(spool)
        await spool.append([b"3"])
        async with opened(crash_image(tmp_path / "spool", tmp_path / "image")) as revived:
            again = await taken(revived)
            assert (again.id, again.records) == (before.id, (b"1", b"2"))
            await revived.acknowledge(again)
            assert (await taken(revived)).records == (b"3",)


async def test_halves_keep_their_ids_over_a_crash(tmp_path: Path) -> None:
    """Halves of a refused batch are new batches whose ids are the same after a crash."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"%d" % number for number in range(5)])
        whole = await taken(spool)
        await spool.split(whole)
        left = await taken(spool)
        await spool.split(left)
        image = crash_image(tmp_path / "spool", tmp_path / "image")

        async def batches(of: Spool) -> list[tuple[str, tuple[bytes, ...]]]:
            seen = []
            while batch := await of.peek():
                seen.append((batch.id, batch.records))
                await of.acknowledge(batch)
            return seen

        expected = await batches(spool)
        assert [records for _, records in expected] == [(b"0",), (b"1",), (b"2", b"3", b"4")]
        assert len({whole.id, left.id, *(name for name, _ in expected)}) == 5
        async with opened(image) as revived:
            assert await batches(revived) == expected


async def test_acknowledging_an_old_batch_does_nothing(tmp_path: Path) -> None:
    """Acknowledging, splitting or rejecting a batch that is not the one in flight changes nothing."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1", b"2"])
        old = await taken(spool)
        await spool.acknowledge(old)
        await spool.append([b"3"])
        new = await taken(spool)
        await spool.acknowledge(old)
        await spool.split(old)
        await spool.reject(old, "late")
        assert (await taken(spool)) == new


async def test_batches_are_bounded(tmp_path: Path) -> None:
    """A batch has at most so many records and bytes, but always one record, however large it is."""
    async with opened(tmp_path / "spool", forward_batch_events=3, forward_batch_bytes=16_384) as spool:
        await spool.append([b"a", b"b", b"c", b"d"])
        await spool.append([b"x" * 10_000, b"y" * 10_000, b"z" * 50_000])
        sizes = []
        while batch := await spool.peek():
            sizes.append([len(record) for record in batch.records])
            await spool.acknowledge(batch)
        assert sizes == [[1, 1, 1], [1, 10_000], [10_000], [50_000]]


async def test_consumed_segments_are_deleted(tmp_path: Path) -> None:
    """Segments end at their size and go once everything in them is acknowledged."""
    directory = tmp_path / "spool"
    async with opened(directory) as spool:
        for _ in range(10):
            await spool.append([b"x" * 30_000])
        assert len(list(directory.glob("*.segment"))) == 4
        assert len(await drained(spool)) == 10
        assert len(list(directory.glob("*.segment"))) == 1
        assert spool.stats().records == 0
    async with opened(directory) as spool:
        assert await spool.peek() is None
        assert list(directory.glob("*.segment")) == []
    for number in range(3):
        async with opened(directory) as spool:
            await spool.append([b"%d" % number])
            assert await drained(spool) == [b"%d" % number]


async def test_a_segment_that_grows_while_it_is_looked_at_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records committed, and their segment sealed, between the reader's two looks at it are given out all the same."""
    loop, slot = asyncio.get_running_loop(), Segment.__dict__["size"]
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1"])
        assert await spool.peek() is not None
        is_ours = threading.current_thread()
        late = [b"2" * SEGMENT, b"3"]

        async def append(record: bytes) -> None:
            await spool.append([record])

        def read_then_grow(segment: Segment) -> int:
            size: int = slot.__get__(segment)
            is_reader = threading.current_thread() not in {is_ours, spool._writer._thread}
            while is_reader and late and not segment.is_sealed:
                asyncio.run_coroutine_threadsafe(append(late.pop(0)), loop).result()
            return size

        await spool.acknowledge(await taken(spool))
        monkeypatch.setattr(Segment, "size", property(read_then_grow, slot.__set__))
        assert await spool.peek() is None
        assert late == []
        monkeypatch.undo()
        assert await drained(spool) == [b"2" * SEGMENT, b"3"]


async def test_a_quarantine_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    """An operator may move the directory away while the relay runs: records are kept in a new one."""
    quarantine = tmp_path / "spool" / "quarantine"
    async with opened(tmp_path / "spool") as spool:
        quarantine.rmdir()
        assert (await spool.measure()).quarantine_bytes == 0
        await spool.append([b'{"a":1}'])
        await spool.reject(await taken(spool), "422: no")
        assert (await spool.measure()).quarantine_bytes > 0
        shutil.rmtree(quarantine)
        await spool.append([b"first", b"second"])
        path = only_segment(tmp_path / "spool")
        path.write_bytes(path.read_bytes().replace(b"first", b"fir5t"))
        assert await drained(spool) == [b"second"]
    assert [path.name[:7] for path in quarantine.iterdir()] == ["damaged"]


async def test_a_file_that_vanishes_while_the_quarantine_is_measured_counts_nothing(tmp_path: Path) -> None:
    """What is listed need not be there any more a moment later."""
    async with opened(tmp_path / "spool") as spool:
        (tmp_path / "spool" / "quarantine" / "gone").symlink_to("nowhere")
        assert (await spool.measure()).quarantine_bytes == 0


async def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """A second spool on the same directory is refused as long as the first lives."""
    async with opened(tmp_path / "spool"):
        with pytest.raises(SpoolLocked, match="data directory of its own"):
            await Spool.open(tmp_path / "spool", settings(), FakeClock(), RelayMetrics())
    async with opened(tmp_path / "spool"):
        pass


async def append_until_refused(
    spool: Spool, size: int, appended: list[asyncio.Future[None]], *, is_patient: bool = True
) -> None:
    """Append without end, waiting for the disk or not."""
    while True:
        appended.append(spool.append([b"x" * size]))
        if is_patient:
            await appended[-1]


async def test_a_full_spool_refuses_and_recovers(tmp_path: Path) -> None:
    """At its size the spool takes nothing, says so, keeps everything, and takes again once it has been emptied."""
    async with opened(tmp_path / "spool") as spool:
        appended: list[asyncio.Future[None]] = []
        with pytest.raises(SpoolFull):
            await append_until_refused(spool, 30_000, appended)
        assert len(appended) > 30
        assert spool.stats().is_full
        assert not spool.stats().is_writable
        assert len(await drained(spool)) == len(appended)
        assert spool.stats().is_writable
        await spool.append([b"again"])


async def test_more_than_may_wait_in_memory_is_refused(tmp_path: Path) -> None:
    """When the disk cannot keep up, what waits for it is bounded, and only the excess is refused."""
    async with opened(tmp_path / "spool", pending_bytes=262_144) as spool:
        futures: list[asyncio.Future[None]] = []
        with pytest.raises(SpoolFull, match="slower"):
            await append_until_refused(spool, 100_000, futures, is_patient=False)
        assert futures
        for future in futures:
            await future


async def test_no_space_on_the_disk_is_survived(tmp_path: Path) -> None:
    """F08: a write that finds no room is undone, even half done, refused, and works again when there is room."""
    full = False

    def write(descriptor: int, data: bytes | memoryview) -> int:
        if full and len(data) > 10:
            return os.write(descriptor, data[:10])
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data)

    async with opened(tmp_path / "spool", disk=Disk(write=write)) as spool:
        await spool.append([b"before"])
        full = True
        with pytest.raises(SpoolFull):
            await spool.append([b"while full" * 2])
        assert spool.stats().is_full
        assert await drained(spool) == [b"before"]
        full = False
        await spool.append([b"after"])
        assert spool.stats().is_writable
        async with opened(crash_image(tmp_path / "spool", tmp_path / "image")) as revived:
            assert await drained(revived) == [b"after"]


async def test_a_failed_synchronisation_ends_the_intake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F10: after EIO from fdatasync nothing is acknowledged or synchronised again; what was kept can be taken out."""
    failing = False
    calls = 0

    def sync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if failing and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".segment":
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)

    async with opened(tmp_path / "spool", disk=Disk(sync=sync)) as spool:
        await spool.append([b"kept"])
        failing = True
        with pytest.raises(SpoolFailed):
            await spool.append([b"lost"])
        failing, calls = False, 0
        with pytest.raises(SpoolFailed):
            await spool.append([b"refused"])
        assert calls == 0
        assert "Input/output error" in (spool.stats().failure or "")
        assert "suspect" in caplog.text
        assert await drained(spool) == [b"kept"]
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"new"])
        assert (await drained(spool))[-1] == b"new"


async def test_calls_behind_a_failure_are_refused_too(tmp_path: Path) -> None:
    """Appends that waited while the disk failed are told so; none hangs."""

    def sync(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path / "spool", commit_bytes=1_024) as spool:
        spool._writer._disk = Disk(sync=sync)
        futures = [spool.append([b"x" * 2_000]) for _ in range(5)]
        for future in futures:
            with pytest.raises(SpoolFailed):
                await future


async def test_a_write_that_fails_otherwise_ends_the_intake_too(tmp_path: Path) -> None:
    """F10: EIO from a write is a failed disk, not a full one."""

    def write(_descriptor: int, _data: bytes | memoryview) -> int:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path / "spool", disk=Disk(write=write)) as spool:
        with pytest.raises(SpoolFailed):
            await spool.append([b"lost"])
        assert not spool.stats().is_full
        assert not spool.stats().is_writable


async def test_a_caller_that_goes_away_does_not_disturb_the_commit(tmp_path: Path) -> None:
    """Records whose caller was cancelled are written all the same, and the other callers are answered."""
    async with opened(tmp_path / "spool") as spool:
        gone, other = spool.append([b"gone"]), spool.append([b"other"])
        gone.cancel()
        await other
        assert await drained(spool) == [b"gone", b"other"]


async def test_a_new_segment_whose_name_cannot_be_kept_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F07: when the directory cannot be synchronised a power loss could take the file away, so nothing is taken."""

    def broken(_path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path / "spool") as spool:
        monkeypatch.setattr("relay.events.segments.sync_directory", broken)
        with pytest.raises(SpoolFailed):
            await spool.append([b"lost"])


async def test_a_start_that_fails_lets_go_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that could not be opened does not keep the next attempt out."""

    def broken(_path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("relay.events.cursor.sync_directory", broken)
    with pytest.raises(OSError, match="Input/output"):
        await Spool.open(tmp_path / "spool", settings(), FakeClock(), RelayMetrics())
    monkeypatch.undo()
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1"])


async def test_a_segment_that_was_consumed_before_a_crash_is_not_read_again(tmp_path: Path) -> None:
    """A crash between moving on and deleting leaves a consumed file behind; the next start deletes it."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"x" * 70_000])
        first = only_segment(tmp_path / "spool")
        kept = first.read_bytes()
        await spool.append([b"2"])
        await drained(spool)
    first.write_bytes(kept)
    async with opened(tmp_path / "spool") as spool:
        assert await spool.peek() is None
        assert not first.exists()


async def test_a_segment_that_cannot_be_created_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for a new file is as good as no room in a file; other errors are failures."""
    number = errno.ENOSPC

    def create(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    async with opened(tmp_path / "spool") as spool:
        monkeypatch.setattr(spool._segments, "create", create)
        with pytest.raises(SpoolFull):
            await spool.append([b"1"])
        number = errno.EACCES
        with pytest.raises(SpoolFailed):
            await spool.append([b"1"])


async def test_a_cut_at_every_byte_keeps_whole_records(tmp_path: Path) -> None:
    """F06: whatever the length at which a segment was cut, the whole records are given out and the rest is cut away."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"first", b"second", b"third"])
    data = only_segment(tmp_path / "spool").read_bytes()
    encoded = len(data) - len(b"firstsecondthird")
    ends = [encoded // 3 + 5, 2 * encoded // 3 + 11, len(data)]
    for cut in range(0, len(data), 3):
        image = crash_image(tmp_path / "spool", tmp_path / f"cut{cut}")
        os.truncate(only_segment(image), cut)
        async with opened(image) as spool:
            expected = [b"first", b"second", b"third"][: sum(end <= cut for end in ends)]
            assert spool.stats().records == len(expected)
            assert await drained(spool) == expected
            assert list((image / "quarantine").iterdir()) == []


async def test_damage_is_set_aside_and_counted_once(tmp_path: Path) -> None:
    """F06: a damaged record goes into the quarantine, the others are given out, also when it is found again."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"first", b"second", b"third"])
    path = only_segment(tmp_path / "spool")
    data = bytearray(path.read_bytes())
    data[data.index(b"second")] ^= 1
    path.write_bytes(data)
    metrics = RelayMetrics()
    async with opened(tmp_path / "spool", metrics=metrics) as spool:
        assert spool.stats().records == 2
        assert spool.stats().quarantine_bytes > 0
    async with opened(tmp_path / "spool", metrics=metrics) as spool:
        assert await drained(spool) == [b"first", b"third"]
    assert metrics.events_quarantined.value("damaged") == 1
    (kept,) = (tmp_path / "spool" / "quarantine").iterdir()
    assert b"recond" in kept.read_bytes()


async def test_damage_while_running_is_stepped_over(tmp_path: Path) -> None:
    """Bytes that go bad after the start, even a whole segment and a batch in flight, are set aside like others."""
    metrics = RelayMetrics()
    async with opened(tmp_path / "spool", metrics=metrics, forward_batch_events=1) as spool:
        await spool.append([b"first", b"second"])
        await taken(spool)
        path = only_segment(tmp_path / "spool")
        path.write_bytes(b"\0" * path.stat().st_size)
        await spool.append([b"third"])
        assert await drained(spool) == [b"third"]
    assert metrics.events_quarantined.value("damaged") >= 1


async def test_large_damage_is_stepped_over(tmp_path: Path) -> None:
    """Damage longer than one piece of reading does not hide the records behind it."""
    async with opened(tmp_path / "spool", forward_batch_bytes=16_384) as spool:
        await spool.append([b"x" * 60_000, b"behind"])
        path = only_segment(tmp_path / "spool")
        data = bytearray(path.read_bytes())
        data[:50_000] = bytes(50_000)
        path.write_bytes(data)
        assert await drained(spool) == [b"behind"]


async def test_damage_with_no_room_to_keep_it_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a full disk has no room for damaged bytes, forwarding goes on, or the disk could never be emptied."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"first", b"second"])
        path = only_segment(tmp_path / "spool")
        path.write_bytes(b"\0" + path.read_bytes()[1:])

        def no_room(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("relay.events.quarantine.write_synced", no_room)
        assert await drained(spool) == [b"second"]


async def test_an_unreadable_segment_does_not_keep_the_relay_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment whose bytes the disk does not give back is set aside and counted; no later start deletes it."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"first"])
    path = only_segment(tmp_path / "spool")
    bytes_before = path.read_bytes()

    def unreadable(_path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    metrics = RelayMetrics()
    async with opened(tmp_path / "spool", metrics=metrics) as spool:
        await spool.append([b"second"])
        assert await drained(spool) == [b"second"]
    assert metrics.events_quarantined.value("damaged") == 1
    monkeypatch.undo()
    async with opened(tmp_path / "spool", metrics=metrics) as spool:
        assert await spool.peek() is None
        assert spool.stats().quarantine_bytes == len(bytes_before)
    assert metrics.events_quarantined.value("damaged") == 1
    assert not path.exists()
    (kept,) = (tmp_path / "spool" / "quarantine").iterdir()
    assert kept.read_bytes() == bytes_before


async def test_a_damaged_cursor_slot_falls_back_to_the_other(tmp_path: Path) -> None:
    """With the newest slot damaged the batch before is given out once more, under its own id."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1"])
        batch = await taken(spool)
        await spool.acknowledge(batch)
        newest = spool._cursor._generation % 2
    path = tmp_path / "spool" / "cursor"
    data = bytearray(path.read_bytes())
    data[newest * len(data) // 2 + 30] ^= 0xFF
    path.write_bytes(data)
    async with opened(tmp_path / "spool") as spool:
        assert (await taken(spool)).id == batch.id


async def test_files_of_a_person_are_left_alone(tmp_path: Path) -> None:
    """A copy that somebody made of a segment neither keeps the relay from starting nor is read or deleted."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"first"])
    shutil.copy(only_segment(tmp_path / "spool"), tmp_path / "spool" / "before.segment")
    async with opened(tmp_path / "spool") as spool:
        assert await drained(spool) == [b"first"]
    assert "before.segment" in {path.name for path in (tmp_path / "spool").iterdir()}


async def test_a_lost_cursor_repeats_rather_than_loses(tmp_path: Path) -> None:
    """With both slots damaged everything that is still there is given out again, and the damage is counted."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1", b"2"])
        await drained(spool)
    (tmp_path / "spool" / "cursor").write_bytes(b"garbage" * 100)
    metrics = RelayMetrics()
    async with opened(tmp_path / "spool", metrics=metrics) as spool:
        assert await drained(spool) == [b"1", b"2"]
    assert metrics.events_quarantined.value("damaged") == 1


async def test_acknowledging_needs_no_room_on_the_disk(tmp_path: Path) -> None:
    """The cursor file is as long from the start as it ever gets, so a full disk can be emptied by forwarding."""
    async with opened(tmp_path / "spool") as spool:
        length = (tmp_path / "spool" / "cursor").stat().st_size
        for _ in range(20):
            await spool.append([b"x" * 5_000])
            await drained(spool)
        assert (tmp_path / "spool" / "cursor").stat().st_size == length


async def test_a_rejected_record_is_kept_with_its_reason(tmp_path: Path) -> None:
    """A record that the authority refuses leaves the queue for a file that holds it and the reason."""
    metrics = RelayMetrics()
    async with opened(tmp_path / "spool", metrics=metrics) as spool:
        await spool.append([b'{"a":1}'])
        await spool.reject(await taken(spool), "422: unit is required")
        await spool.append([b'{"b":1}'])
        await spool.reject(await taken(spool), "422: again")
        assert await spool.peek() is None
    lines = (tmp_path / "spool" / "quarantine" / "rejected.ndjson").read_bytes().splitlines()
    assert b'"reason":"422: unit is required","record":{"a":1}}' in lines[0]
    assert len(lines) == 2
    assert metrics.events_quarantined.value("rejected") == 2


async def test_shedding_gives_up_the_oldest_but_not_what_is_in_flight(tmp_path: Path) -> None:
    """Room is made from the oldest segment that is not being sent; each lost record is counted."""
    metrics = RelayMetrics()
    async with opened(tmp_path / "spool", metrics=metrics, forward_batch_events=1) as spool:
        for number in range(8):
            await spool.append([b"%d" % number + b"x" * 40_000])
        in_flight = await taken(spool)
        assert await spool.shed_oldest()
        assert metrics.events_shed.value("full") == 2
        assert [record[:1] for record in await drained(spool)] == [b"0", b"1", b"4", b"5", b"6", b"7"]
        assert in_flight.records[0].startswith(b"0")
        assert not await spool.shed_oldest()


async def test_a_batch_whose_segment_was_shed_is_forgotten(tmp_path: Path) -> None:
    """A batch in flight whose file is gone is stepped over."""
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"1"])
        await taken(spool)
    only_segment(tmp_path / "spool").unlink()
    async with opened(tmp_path / "spool") as spool:
        await spool.append([b"2"])
        assert await drained(spool) == [b"2"]


async def test_the_age_of_the_oldest_record_is_shown(tmp_path: Path) -> None:
    """The status tells how long the oldest record waits, and nothing when none does."""
    clock = FakeClock()
    spool = await Spool.open(tmp_path / "spool", settings(forward_batch_events=1), clock, RelayMetrics())
    assert spool.stats().oldest_age_s is None
    await spool.append([b"1"])
    await clock.advance(30)
    await spool.append([b"2"])
    await clock.advance(12)
    assert (await spool.measure()).oldest_age_s == 42
    await spool.acknowledge(await taken(spool))
    assert (await spool.measure()).oldest_age_s == 12
    only_segment(tmp_path / "spool").unlink()
    assert (await spool.measure()).oldest_age_s is None
    await spool.close()


async def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    """Closing writes what waits; afterwards an append is refused like any other that cannot be kept."""
    async with opened(tmp_path / "spool") as spool:
        future = spool.append([b"last"])
    assert future.done()
    with pytest.raises(SpoolClosed, match="closed"):
        spool.append([b"late"])
    async with opened(tmp_path / "spool") as spool:
        assert await drained(spool) == [b"last"]
