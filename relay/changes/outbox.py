"""Kills on disk, until the authority has answered for them: one small file each, in one directory.

A record is written whole, synced, renamed, and its directory synced before `add` returns; `remove` is as durable. There
is a maximum. Only the owner may read them; no token is ever in one. A file that cannot be read is set aside, not lost,
and never keeps the relay from starting. One process works in the directory (`relay.data_dir` sees to that).
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from relay.changes.overlay import Overlay
from relay.durable_file import remove_durably, replace_durably
from relay.errors import HalyardError
from relay.protocol.hashing import canonical

logger = logging.getLogger(__name__)

FORMAT = 1
_SUFFIX = ".json"
_MAX_RECORD_BYTES = 64 * 1_024
_MEMBERS = (
    "id", "project", "environment", "environment_id", "flag", "credential_id", "at_ms", "expires_at_ms",
)  # fmt: skip


class OutboxFull(HalyardError):
    """As many kills wait for the authority as may; one of them has to be settled first."""


@dataclass(frozen=True, slots=True)
class Record:
    """A kill: what it does here, and the very body that tells the authority of it."""

    overlay: Overlay
    body: bytes


class Outbox:
    """The records of one directory. Made by `open`."""

    def __init__(self, path: Path, max_records: int, records: dict[str, Record]) -> None:
        self._path = path
        self._max_records = max_records
        self._records = records

    @classmethod
    def open(cls, path: Path, max_records: int) -> "Outbox":
        """Read what an earlier process left, oldest first. Blocks.

        Raises:
            OSError: the directory cannot be used.
        """
        path.mkdir(mode=0o700, exist_ok=True)
        found = [record for file in sorted(path.iterdir()) if (record := _read(file)) is not None]
        found.sort(key=lambda record: (record.overlay.at_ms, record.overlay.id))
        return cls(path, max_records, {record.overlay.id: record for record in found})

    @property
    def records(self) -> Mapping[str, Record]:
        """The records by id, oldest first."""
        return MappingProxyType(self._records)

    async def add(self, record: Record, *, replaces: str | None = None) -> None:
        """Make a record durable; one that is about to be removed for it does not count against the maximum.

        Raises:
            OutboxFull: there are as many as may be.
            OSError: the disk did not keep it.
        """
        if len(self._records.keys() - {replaces}) >= self._max_records:
            raise OutboxFull(f"{self._max_records} kills wait for the authority already")
        await asyncio.to_thread(_write, self._file(record.overlay.id), _encode(record))
        self._records[record.overlay.id] = record

    async def remove(self, record_id: str) -> None:
        """Forget a record, durably.

        Raises:
            OSError: the disk refused; the record stays.
        """
        await asyncio.to_thread(remove_durably, self._file(record_id))
        self._records.pop(record_id, None)

    def _file(self, record_id: str) -> Path:
        return self._path / f"{record_id}{_SUFFIX}"


def _write(file: Path, content: bytes) -> None:
    try:
        replace_durably(file, (content,))
    except OSError:
        # Nobody is told that it was taken, so the next start must not find it. A disk that refuses this as well has
        # been reported by then.
        for left in (file, file.with_suffix(".tmp")):
            with suppress(OSError):
                left.unlink(missing_ok=True)
        raise


def _encode(record: Record) -> bytes:
    overlay = {name: getattr(record.overlay, name) for name in _MEMBERS}
    return orjson.dumps({"format": FORMAT, "overlay": overlay, "change": orjson.loads(record.body)})


def _decode(raw: bytes) -> Record:
    stored: Any = orjson.loads(raw)
    if stored["format"] != FORMAT:
        raise ValueError(f"is of format {stored['format']!r}")
    members = {name: stored["overlay"][name] for name in _MEMBERS}
    # Canonical, so that the body is the same bytes as before.
    return Record(Overlay(**members), canonical(stored["change"]))


def _read(file: Path) -> Record | None:
    if file.suffix == ".tmp":
        # Its write was cut off, so it was never acknowledged.
        file.unlink()
        return None
    if file.suffix != _SUFFIX:
        return None
    try:
        with file.open("rb") as opened:
            return _decode(opened.read(_MAX_RECORD_BYTES))
    except (ValueError, KeyError, TypeError) as error:
        aside = file.with_suffix(".damaged")
        file.replace(aside)
        logger.critical("a kill's record cannot be read; the flag may be on again", extra={"file": str(aside), "reason": str(error)})  # fmt: skip  # noqa: E501
        return None
