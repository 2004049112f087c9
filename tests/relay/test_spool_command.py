"""`halyard-relay spool`: looking into, checking and emptying what a relay keeps on disk."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from relay.__main__ import main
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.protocol.keys import Kind, mint
from relay.settings import Events
from tests.clocks import FakeClock

WRITTEN = "2026-09-21T14:13:20.000Z"
SETTINGS = Events.model_validate({"commit_s": 0, "segment_bytes": 65_536, "forward_batch_events": 2})
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this machine's settings out; waits are short."""
    for name in os.environ:
        if name.startswith("HALYARD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HALYARD_RELAY_EVENTS__SEGMENT_BYTES", "65536")
    monkeypatch.setenv("HALYARD_RELAY_EVENTS__FORWARD_BATCH_EVENTS", "2")
    monkeypatch.setenv("HALYARD_RELAY_UPSTREAM__KEY", mint(Kind.RELAY, bytes(range(32))))
    monkeypatch.setenv("HALYARD_RELAY_UPSTREAM__BACKOFF_MIN_S", "0.001")
    monkeypatch.setenv("HALYARD_RELAY_UPSTREAM__BACKOFF_MAX_S", "0.001")


@asynccontextmanager
async def opened(data_dir: Path) -> AsyncIterator[Spool]:
    spool = await Spool.open(data_dir / "spool", SETTINGS, FakeClock(), RelayMetrics())
    try:
        yield spool
    finally:
        await spool.close()


async def filled(data_dir: Path, *records: bytes) -> None:
    async with opened(data_dir) as spool:
        await spool.append(records)


def segment(data_dir: Path, number: int = 0) -> Path:
    return sorted((data_dir / "spool").glob("*.segment"))[number]


def flip(path: Path, text: bytes) -> int:
    """Damage the file where the text stands; return where that is."""
    data = bytearray(path.read_bytes())
    place = data.index(text)
    data[place] ^= 1
    path.write_bytes(data)
    return place


def printed(capsys: Capsys, data_dir: Path, *command: str, status: int = 0) -> str:
    """Run `halyard-relay spool`, which must end with this status, and return what it said."""
    assert main(["spool", *command, "--data-dir", str(data_dir)]) == status
    said = capsys.readouterr()
    return said.err if status == 2 else said.out


async def test_inspect_tells_what_waits(tmp_path: Path, capsys: Capsys) -> None:
    """Records, sizes and times of each segment, the batch in flight, and the quarantine with its reasons."""
    async with opened(tmp_path) as spool:
        await spool.append([b'{"a":1}', b'{"b":2}', b'{"c":3}'])
        batch = await spool.peek()
        assert batch is not None
        await spool.reject(batch, "422: bad unit")
        batch = await spool.peek()
        assert batch is not None
    name, size = segment(tmp_path).name, segment(tmp_path).stat().st_size
    quarantine = (tmp_path / "spool" / "quarantine" / "rejected.ndjson").stat().st_size
    assert printed(capsys, tmp_path, "inspect").splitlines() == [
        f"{tmp_path}/spool: 1 record waiting, written from {WRITTEN} to {WRITTEN}; 0.0 MiB on disk",
        f"  {name}: {size} bytes, 1 of 3 records waiting",
        f"  batch {batch.id} was being sent: {name}, bytes {size * 2 // 3} to {size}",
        f"  quarantine/rejected.ndjson: {quarantine} bytes",
        "    2 records refused: 422: bad unit",
    ]
    assert orjson.loads(printed(capsys, tmp_path, "inspect", "--json")) == {
        "directory": f"{tmp_path}/spool",
        "waiting": 1,
        "bytes": size + quarantine,
        "segments": [
            {
                "name": name,
                "bytes": size,
                "records": 3,
                "waiting": 1,
                "oldest": WRITTEN,
                "newest": WRITTEN,
                "damage": [],
            }
        ],
        "in_flight": [{"id": batch.id, "segment": name, "start": size * 2 // 3, "end": size}],
        "quarantine": [{"name": "rejected.ndjson", "bytes": quarantine, "reasons": {"422: bad unit": 2}}],
    }


async def test_looking_changes_nothing_and_needs_no_turn(tmp_path: Path, capsys: Capsys) -> None:
    """`inspect` and `verify` work beside the process that has the directory, and leave every file as it was."""
    async with opened(tmp_path) as spool:
        await spool.append([b"first"])

        def files() -> dict[str, tuple[bytes, int]]:
            paths = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
            return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

        before = files()
        assert "1 record waiting" in printed(capsys, tmp_path, "inspect")
        assert "nothing is in the quarantine" in printed(capsys, tmp_path, "inspect")
        assert "1 record in 1 segment are whole" in printed(capsys, tmp_path, "verify")
        assert files() == before


async def test_verify_names_every_damaged_place(tmp_path: Path, capsys: Capsys) -> None:
    """Status 1 and the file and bytes of each; what was confirmed before it was damaged is told apart."""
    await filled(tmp_path, b"first", b"second", b"third", b"fourth")
    async with opened(tmp_path) as spool:
        batch = await spool.peek()
        assert batch is not None
        await spool.acknowledge(batch)
    path = segment(tmp_path)
    places = flip(path, b"first") - 24, flip(path, b"third") - 24
    confirmed = "what lay here was confirmed already"
    assert printed(capsys, tmp_path, "verify", status=1).splitlines() == [
        f"{tmp_path}/spool: 2 records in 1 segment are whole; damaged are:",
        f"  {path.name}, bytes {places[0]} to {places[0] + 29}: the checksum does not hold; {confirmed}",
        f"  {path.name}, bytes {places[1]} to {places[1] + 29}: the checksum does not hold",
    ]
    told = orjson.loads(printed(capsys, tmp_path, "verify", "--json", status=1))
    assert (told["records"], told["segments"], len(told["damage"])) == (2, 1, 2)
    assert "2 damaged places" in printed(capsys, tmp_path, "inspect")


async def test_a_torn_end_is_damage_only_where_something_follows(tmp_path: Path, capsys: Capsys) -> None:
    """A crash leaves the newest segment with a record cut off; an older one was whole once."""
    await filled(tmp_path, b"first", b"second")
    os.truncate(segment(tmp_path), 40)
    assert "ends within a record, which was never acknowledged" in printed(capsys, tmp_path, "verify")
    await filled(tmp_path, b"third", b"fourth")
    os.truncate(segment(tmp_path), 20)
    assert "bytes 0 to its end: the record is cut off" in printed(capsys, tmp_path, "verify", status=1)


async def test_what_cannot_be_read_at_all_is_damage(tmp_path: Path, capsys: Capsys) -> None:
    """A segment that gives no bytes, a reading position that is lost, a line of the quarantine that is cut off."""
    await filled(tmp_path, b"first")
    segment(tmp_path).with_name("000000000099.segment").mkdir()
    cursor = tmp_path / "spool" / "cursor"
    cursor.write_bytes(b"\1" * cursor.stat().st_size)
    (tmp_path / "spool" / "quarantine" / "rejected.ndjson").write_bytes(b'{"reason":"4')
    (tmp_path / "spool" / "quarantine" / "damaged-1.bin").symlink_to("nowhere")
    said = printed(capsys, tmp_path, "verify", status=1)
    assert "cursor, bytes 0 to its end: both copies of the reading position are damaged" in said
    assert "000000000099.segment, bytes 0 to its end: cannot be read: Is a directory" in said
    said = printed(capsys, tmp_path, "inspect")
    assert "the reading position is damaged" in said
    assert "1 record refused: (not a whole line)" in said
    assert "damaged-1.bin" not in said


def test_segments_that_are_handed_over_meanwhile_are_left_out(tmp_path: Path, capsys: Capsys) -> None:
    """A file may go between the listing and the reading, as may the cursor at a relay's first start."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "000000000001.segment").symlink_to("nowhere")
    assert "0 records waiting; 0.0 MiB on disk" in printed(capsys, tmp_path, "inspect")


@pytest.mark.parametrize("verb", ["inspect", "verify", "drain"])
def test_a_directory_without_a_spool_is_said(tmp_path: Path, capsys: Capsys, verb: str) -> None:
    """Nothing is made there."""
    assert f"there is no spool in {tmp_path}" in printed(capsys, tmp_path, verb, status=2)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_read_is_said(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, and status 2."""
    (tmp_path / "spool").mkdir()

    def refused(*_: object) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("relay.events.inspection.Path.glob", refused)
    assert "cannot be read: Permission denied" in printed(capsys, tmp_path, "inspect", status=2)


Answer = Callable[[list[bytes]], web.Response]


@asynccontextmanager
async def authority(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> AsyncIterator[list[list[bytes]]]:
    """Listen as an upstream; yields the batches that came."""
    batches: list[list[bytes]] = []

    async def take(request: web.Request) -> web.Response:
        batches.append((await request.read()).splitlines())
        return answer(batches[-1])

    app = web.Application()
    app.router.add_post("/api/v2/ingest", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("HALYARD_RELAY_UPSTREAM__URL", f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield batches
    finally:
        await runner.cleanup()


def accepted(_records: list[bytes]) -> web.Response:
    return web.json_response({"status": "accepted"})


async def drained(data_dir: Path) -> int:
    return await asyncio.to_thread(main, ["spool", "drain", "--data-dir", str(data_dir)])


async def test_drain_sends_what_a_stopped_relay_left(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that waits goes out in the relay's batches, progress is told, and the spool is empty then."""
    monkeypatch.setattr("relay.ask.spool_command.PROGRESS_S", 0)
    await filled(tmp_path, b"1", b"2", b"3")
    async with authority(monkeypatch, accepted) as batches:
        assert await drained(tmp_path) == 0
        assert batches == [[b"1", b"2"], [b"3"]]
        assert await drained(tmp_path) == 0
        assert len(batches) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "3 records sent, 0 refused and put into the quarantine, 0 left",
        "0 records sent, 0 refused and put into the quarantine, 0 left",
    ]
    assert "1 of 3 records waiting" in said.err


async def test_drain_sets_aside_what_is_refused(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad record goes into the quarantine as it would at the relay; the others are sent."""

    def answer(records: list[bytes]) -> web.Response:
        if b"2" not in records:
            return accepted(records)
        return web.Response(status=422, body=b'{"code":"invalid_record"}', content_type="application/problem+json")

    await filled(tmp_path, b"1", b"2", b"3")
    async with authority(monkeypatch, answer):
        assert await drained(tmp_path) == 0
    assert "2 records sent, 1 refused and put into the quarantine, 0 left" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (500, 5)])
async def test_drain_gives_up_and_keeps_the_rest(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, status: int, attempts: int
) -> None:
    """A denial ends it at once, other failures after a few in a row: status 1, the answer is shown, nothing is lost."""
    await filled(tmp_path, b"1", b"2", b"3")
    async with authority(monkeypatch, lambda _: web.Response(status=status, text="no")) as batches:
        assert await drained(tmp_path) == 1
        assert batches == [[b"1", b"2"]] * attempts
    said = capsys.readouterr()
    assert "0 records sent, 0 refused and put into the quarantine, 3 left" in said.out
    assert f"not everything could be sent; the last answer: {status}: no" in said.err
    assert "3 records waiting" in printed(capsys, tmp_path, "inspect")


async def test_drain_keeps_away_from_a_running_relay(tmp_path: Path, capsys: Capsys) -> None:
    """The directory has one owner; its relay sends what is there itself."""
    async with opened(tmp_path):
        assert await drained(tmp_path) == 2
    assert "is used by another relay that is running" in capsys.readouterr().err


async def test_drain_needs_a_key(tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is touched."""
    monkeypatch.delenv("HALYARD_RELAY_UPSTREAM__KEY")
    await filled(tmp_path, b"1")
    assert await drained(tmp_path) == 2
    assert "relay.upstream.key: is required" in capsys.readouterr().err
