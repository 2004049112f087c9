"""The outbox: what is on disk when `add` returns, what survives, and what damage costs."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from relay.changes import outbox as outbox_module
from relay.changes.outbox import Outbox, OutboxFull, Record
from relay.changes.overlay import Overlay
from relay.protocol.edge import EdgeChange, Kill, encode


def record(name: str, at_ms: int = 5) -> Record:
    overlay = Overlay(
        id=name,
        project="shop",
        environment="production",
        environment_id="env",
        flag="beta",
        credential_id="c",
        at_ms=at_ms,
        expires_at_ms=at_ms + 1,
    )
    kill = Kill(project="p", environment="env", flag="f", reason="é ü")
    change = EdgeChange(idempotency_key=name, ops=(kill,), relay="r", at="2026-11-21T06:30:00.000Z", credential="c")
    return Record(overlay, encode(change, "00"))


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Overlay and body, the body byte for byte, oldest first whatever the files are called."""
    outbox = Outbox.open(tmp_path / "outbox", 10)
    newer, older = record("a", at_ms=9), record("b", at_ms=3)
    await outbox.add(newer)
    await outbox.add(older)
    again = Outbox.open(tmp_path / "outbox", 10)
    assert list(again.records.values()) == [older, newer]


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """Whatever the umask is; and no token is in it, only what a token proved."""
    outbox = Outbox.open(tmp_path / "outbox", 10)
    await outbox.add(record("a"))
    (file,) = (tmp_path / "outbox").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert b"hal_token" not in file.read_bytes()


async def test_it_is_durable_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File synced, then renamed, then the directory synced; removing syncs the directory as well."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    outbox = Outbox.open(tmp_path / "outbox", 10)
    await outbox.add(record("a"))
    assert steps == ["file", "rename", "directory"]
    await outbox.remove("a")
    assert steps[3:] == ["directory"]
    assert not outbox.records
    assert not Outbox.open(tmp_path / "outbox", 10).records


async def test_there_is_a_maximum(tmp_path: Path) -> None:
    """What is beyond it is refused and leaves nothing."""
    outbox = Outbox.open(tmp_path / "outbox", 1)
    await outbox.add(record("a"))
    with pytest.raises(OutboxFull, match="1 kills wait"):
        await outbox.add(record("b"))
    assert [file.name for file in (tmp_path / "outbox").iterdir()] == ["a.json"]


async def test_what_is_replaced_does_not_count(tmp_path: Path) -> None:
    """A full outbox still takes a record that is to stand for another one."""
    outbox = Outbox.open(tmp_path / "outbox", 1)
    await outbox.add(record("a"))
    await outbox.add(record("b"), replaces="a")
    with pytest.raises(OutboxFull):
        await outbox.add(record("c"), replaces="a")
    await outbox.remove("a")
    assert list(outbox.records) == ["b"]


@pytest.mark.parametrize("refuses", [stat.S_ISREG, stat.S_ISDIR])
async def test_a_disk_that_refuses_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[int], bool]
) -> None:
    """Be it the file or its name that is not synced: the error reaches the caller, and no start finds a record."""
    outbox = Outbox.open(tmp_path / "outbox", 10)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if refuses(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, "no space")
        fsync(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            await outbox.add(record("a"))
    assert not outbox.records
    assert not list((tmp_path / "outbox").iterdir())


async def test_a_disk_that_refuses_everything_is_told_by_its_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clearing away is tried, and does not hide why the record was not kept."""
    outbox = Outbox.open(tmp_path / "outbox", 10)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    def read_only(_path: Path, *, missing_ok: bool) -> None:
        assert missing_ok
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OSError, match="no space"):
        await outbox.add(record("a"))
    assert not outbox.records


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format":2}', b'{"format":1,"overlay":{"id":"x"}}'])
async def test_a_damaged_record_is_set_aside_with_an_alarm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """It costs itself and not the others; it stays to be looked at and is not read again."""
    outbox = Outbox.open(tmp_path / "outbox", 10)
    await outbox.add(record("good"))
    (tmp_path / "outbox" / "bad.json").write_bytes(damage)
    assert list(Outbox.open(tmp_path / "outbox", 10).records) == ["good"]
    assert [each.levelname for each in caplog.records] == ["CRITICAL"]
    assert list(Outbox.open(tmp_path / "outbox", 10).records) == ["good"]
    assert len(caplog.records) == 1
    assert (tmp_path / "outbox" / "bad.damaged").read_bytes() == damage


async def test_what_a_newer_version_adds_is_no_damage(tmp_path: Path) -> None:
    """Unknown members are passed over."""
    outbox = Outbox.open(tmp_path / "outbox", 10)
    await outbox.add(record("a"))
    file = tmp_path / "outbox" / "a.json"
    stored = orjson.loads(file.read_bytes())
    stored["overlay"]["new"] = stored["more"] = 1
    file.write_bytes(orjson.dumps(stored))
    assert list(Outbox.open(tmp_path / "outbox", 10).records.values()) == [record("a")]


def test_every_member_of_an_overlay_is_stored() -> None:
    """All but how far the kill has come, which the authority is asked again."""
    assert {*outbox_module._MEMBERS, "committed"} == set(Overlay.__slots__)
