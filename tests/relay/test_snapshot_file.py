"""The snapshot file: what survives restarts, damage, full disks and other tenants."""

import asyncio
import stat
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.changes import Bookmark, Environments, Snapshot, State, mark_of
from relay.sync.snapshot_file import SnapshotFile, restore
from relay.sync.snapshot_format import BadFile, Content, decode_file, encode_file, tenant_of
from relay.sync.store import Origin, Store
from tests.clocks import FakeClock
from tests.protocol.build import COMMITTED_AT, flag, segment, state
from tests.protocol.invariants import UNUSABLE
from tests.relay.stream_server import until

TENANT = tenant_of("http://upstream:8700", "fingerprint")
STATES = (state(4, segments={"beta": segment()}), state(7, number=2, epoch="e2"))
KEPT = Content(STATES, 1_795_242_600_000, frozenset(held.ref.id for held in STATES))
GOOD = b"".join(encode_file(TENANT, KEPT))


class Desk:
    """A store with a file in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "snapshot"
        self.old = directory / "snapshot.old"
        self.clock = FakeClock()
        self.store = Store(self.clock)
        self.file = self.reopened()

    def reopened(self, tenant: str = TENANT, **limits: int) -> SnapshotFile:
        return SnapshotFile(self.path, tenant, self.store, self.clock, **limits)

    def put(self, revision: int) -> State:
        held = state(revision, flags={"checkout": flag(revision)})
        self.store.apply(Snapshot(held, "start"))
        return held

    def revisions(self, path: Path) -> list[int]:
        return [each.revision for each in decode_file(path.read_bytes(), TENANT).states]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def written(desk: Desk, revision: int) -> State:
    held = desk.put(revision)
    desk.file._dirty.set()
    await desk.file.flush()
    return held


def test_everything_is_read_back() -> None:
    """All environments, byte for byte, when upstream confirmed them last, and which should be there."""
    assert decode_file(GOOD, TENANT) == KEPT
    assert decode_file(b"".join(encode_file(TENANT, Content((), None))), TENANT) == Content((), None)


def test_a_file_that_does_not_say_what_is_covered_is_read() -> None:
    """The first files did not."""
    older = resealed(lambda body: body.replace(b',"covered":null', b"", 1))
    assert decode_file(older, TENANT) == Content(STATES, 5, None)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_flipped_byte_anywhere_makes_the_file_unusable(place: int, flip: int) -> None:
    """No damage is overlooked and none raises anything else."""
    damaged = bytearray(GOOD)
    damaged[place] ^= flip
    with pytest.raises(BadFile):
        decode_file(bytes(damaged), TENANT)


@given(st.integers(0, len(GOOD) - 1))
def test_a_file_cut_anywhere_is_unusable(length: int) -> None:
    """Half a file is none."""
    with pytest.raises(BadFile):
        decode_file(GOOD[:length], TENANT)


def resealed(edit: Callable[[bytes], bytes]) -> bytes:
    """Return a file with an edited body and a checksum that fits it."""
    pieces = encode_file(TENANT, Content(STATES, 5))
    body = edit(b"".join(pieces[1:]))
    return b"halyard-snapshot 1 %d %b\n" % (len(body), blake2b(body, digest_size=32).hexdigest().encode()) + body


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "it is no snapshot file"),
        (b"\x00" * 4096, "it is no snapshot file"),
        (GOOD.replace(b"halyard-snapshot 1", b"halyard-snapshot 2", 1), "its format 2 is not understood"),
        (GOOD + b"\n", "bytes after its first line"),
        (GOOD[:-2] + b"\n ", "its checksum is wrong"),
        (resealed(lambda body: body.replace(b'"revision":4', b'"revision":-4')), "its content is refused: revision"),
        (resealed(lambda body: body.replace(b":5,", b':"5",', 1)), "its content is refused: meta.confirmed_at_ms"),
        (resealed(lambda body: b"[]" + body), "its content is refused: meta"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(raw: bytes, reason: str) -> None:
    """Each kind of damage has its reason."""
    with pytest.raises(BadFile, match=reason):
        decode_file(raw, TENANT)


def test_unknown_events_in_a_file_are_passed_over() -> None:
    """A later version may record more; what is known is read."""
    later = resealed(lambda body: body + b"event: of_tomorrow\ndata: {}\n\n")
    assert decode_file(later, TENANT).states == STATES


@pytest.mark.parametrize("other", [("http://upstream:8700", "another key"), ("http://elsewhere", "fingerprint")])
def test_a_file_of_another_tenant_is_ignored(other: tuple[str, str]) -> None:
    """Neither another key nor another upstream may be served from it."""
    with pytest.raises(BadFile, match="another upstream or another relay key"):
        decode_file(GOOD, tenant_of(*other))
    assert tenant_of("http://upstream:8700/", "fingerprint") == TENANT


def test_the_file_reveals_no_key_and_only_to_its_owner_what_it_holds(desk: Desk) -> None:
    """Its mode is 0600, whatever stood there before, and the fingerprint is not in it."""
    desk.path.with_name("snapshot.tmp").touch(mode=0o644)
    desk.file._replace(Content(STATES, None))
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600
    assert b"fingerprint" not in desk.path.read_bytes()


def test_without_any_file_the_reasons_are_told(desk: Desk) -> None:
    """The first start finds nothing, which is no failure."""
    loaded = desk.file.load()
    assert loaded.content is None
    assert loaded.problems == (f"{desk.path}: there is none", f"{desk.old}: there is none")


async def test_a_restart_serves_what_was_written(desk: Desk) -> None:
    """A new process takes the newest generation, marked with its origin and age."""
    held = await written(desk, 5)
    desk.store.confirm(Bookmark({held.ref.id: mark_of(held)}, COMMITTED_AT))
    await desk.file.flush()
    await desk.clock.advance(30)
    fresh = Store(desk.clock)
    content = desk.reopened().load().content
    assert content is not None
    assert restore(content, fresh) == ()
    assert fresh.configurations[held.ref.id].state == held
    assert (fresh.staleness.origin, fresh.staleness.age_s) == (Origin.FILE, 30.0)


async def test_two_generations_are_kept(desk: Desk) -> None:
    """The one before the newest stays as it was, and serves when the newest is damaged."""
    for revision in (1, 2, 3):
        await written(desk, revision)
    assert (desk.revisions(desk.path), desk.revisions(desk.old)) == ([3], [2])
    desk.path.write_bytes(desk.path.read_bytes()[:-1])
    loaded = desk.reopened().load()
    assert loaded.content is not None
    assert [each.revision for each in loaded.content.states] == [2]
    assert len(loaded.problems) == 1


async def test_a_damaged_newest_never_pushes_the_good_one_out(desk: Desk) -> None:
    """After a start from the older generation, the next write replaces the damaged one."""
    for revision in (1, 2):
        await written(desk, revision)
    desk.path.write_bytes(b"damaged")
    desk.file = desk.reopened()
    desk.file.load()
    await written(desk, 3)
    assert (desk.revisions(desk.path), desk.revisions(desk.old)) == ([3], [1])


async def test_a_crash_between_the_renames_leaves_the_older_one(desk: Desk) -> None:
    """When only the older generation and a temporary file are there, the older one serves."""
    await written(desk, 1)
    desk.path.rename(desk.old)
    desk.path.with_name("snapshot.tmp").write_bytes(b"half")
    loaded = desk.reopened().load()
    assert loaded.content is not None
    desk.file = desk.reopened()
    await written(desk, 2)
    assert (desk.revisions(desk.path), desk.revisions(desk.old)) == ([2], [1])


async def test_a_file_beyond_the_limit_is_not_read(desk: Desk) -> None:
    """A file that grew absurdly is passed over before it is in memory."""
    await written(desk, 1)
    assert "more than the 10 that are read" in desk.reopened(max_bytes=10).load().problems[0]


def test_what_the_engine_refuses_is_left_out_of_a_restore(desk: Desk) -> None:
    """An environment that this version cannot use does not keep the others from being served."""
    content = Content((state(flags={"checkout": UNUSABLE}), STATES[1]), None)
    problems = restore(content, desk.store)
    assert set(desk.store.configurations) == {STATES[1].ref.id}
    assert len(problems) == 1
    assert "flags.checkout" in problems[0]


async def test_an_incomplete_file_is_known_to_be_incomplete(desk: Desk) -> None:
    """Whoever stops between two environments knows at the next start that there should be more."""
    held = desk.put(1)
    desk.store.cover(Environments((held.ref, STATES[1].ref)))
    await desk.file.flush()
    again = Store(desk.clock)
    content = desk.file.load().content
    assert content is not None
    assert restore(content, again) == ()
    assert again.covered == frozenset({held.ref.id, STATES[1].ref.id})
    assert not again.is_complete
    again.apply(Snapshot(STATES[1], "start"))
    assert again.is_complete


async def test_what_is_covered_is_worth_a_write_of_its_own(desk: Desk) -> None:
    """A new environment that cannot be used changes nothing that is held, and must not be forgotten over a restart."""
    held = await written(desk, 1)
    desk.store.cover(Environments((held.ref, STATES[1].ref)))
    await desk.file.flush()
    content = desk.file.load().content
    assert content is not None
    assert content.covered == frozenset({held.ref.id, STATES[1].ref.id})


async def test_writes_at_most_once_a_second_and_the_newest_wins(desk: Desk) -> None:
    """Changes that come faster are written together; a removal is a change, too."""
    task = asyncio.create_task(desk.file.run())
    await asyncio.sleep(0)
    desk.put(1)
    await until(lambda: desk.file.writes == 1 and 1.0 in desk.clock.slept)
    for revision in (2, 3, 4):
        desk.put(revision)
    await desk.clock.advance(0.9)
    assert desk.file.writes == 1
    await desk.clock.advance(0.1)
    await until(lambda: desk.file.writes == 2)
    assert desk.revisions(desk.path) == [4]
    desk.store.cover(Environments(()))
    await desk.clock.advance(1)
    await until(lambda: desk.file.writes == 3)
    assert desk.revisions(desk.path) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    desk.put(9)
    assert not desk.file._dirty.is_set()


async def test_a_crash_forgets_at_most_a_minute_of_confirmations(desk: Desk) -> None:
    """While nothing changes the newest confirmation is written once a minute, and nothing when there is none."""
    held = await written(desk, 1)
    task = asyncio.create_task(desk.file.run())
    await desk.clock.advance(150)
    assert desk.file.writes == 1
    desk.store.confirm(Bookmark({held.ref.id: mark_of(held)}, COMMITTED_AT))
    confirmed_at_ms = desk.store.confirmed_at_ms
    await desk.clock.advance(60)
    await until(lambda: desk.file.writes == 2)
    assert decode_file(desk.path.read_bytes(), TENANT).confirmed_at_ms == confirmed_at_ms
    await desk.clock.advance(150)
    assert desk.file.writes == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_changes_after_the_writing_has_ended_is_flushed(desk: Desk) -> None:
    """The last change may come while everything is being stopped, when nobody takes note any more."""
    await written(desk, 1)
    desk.put(2)
    assert not desk.file._dirty.is_set()
    await desk.file.flush()
    assert desk.revisions(desk.path) == [2]
    before = desk.file.writes
    await desk.file.flush()
    assert desk.file.writes == before


async def test_what_is_not_written_at_exit_is_flushed(desk: Desk) -> None:
    """A write that was cancelled half-way does not meet the last one in the same temporary file."""
    task = asyncio.create_task(desk.file.run())
    await asyncio.sleep(0)
    desk.put(1)
    await asyncio.sleep(0)
    await until(lambda: desk.file._writing is not None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    desk.put(2)
    await desk.file.flush()
    assert desk.revisions(desk.path) == [2]
    before = desk.file.writes
    await desk.file.flush()
    assert desk.file.writes == before


async def test_a_full_disk_costs_freshness_only(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The failure is counted and logged once, the generations on disk stay, and it recovers by itself."""
    await written(desk, 1)
    blocked = desk.path.with_name("snapshot.tmp")
    blocked.mkdir()
    task = asyncio.create_task(desk.file.run())
    await asyncio.sleep(0)
    desk.put(2)
    await until(lambda: desk.file.failures == 1 and 10.0 in desk.clock.slept)
    assert desk.revisions(desk.path) == [1]
    await desk.clock.advance(10)
    await until(lambda: desk.file.failures == 2 and desk.clock.slept.count(10.0) == 2)
    assert caplog.text.count("cannot be written") == 1
    blocked.rmdir()
    await desk.clock.advance(10)
    await until(lambda: desk.file.last_error is None)
    assert desk.revisions(desk.path) == [2]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
