"""Bytes and records that cannot be forwarded, kept for a person to look at.

`damaged-…` files hold bytes of a segment that are no record any more, named by where they lay, so that finding them
again after a restart changes nothing. `rejected.ndjson` holds records that the authority refused, each with the reason.
Nothing is deleted here: what lies here counts against the size of the spool until an operator takes it away.
"""

import logging
import os
from pathlib import Path
from typing import Literal

import orjson

from relay.clock import rfc3339
from relay.events.disk import NO_SPACE, sync_directory
from relay.events.segment_file import Segment, read_range

logger = logging.getLogger(__name__)

MAX_REASON = 1_000


class Quarantine:
    """The directory, and how much lies in it. Methods block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self._rejected = directory / "rejected.ndjson"

    def size(self) -> int:
        """Return the size of everything kept."""
        return sum(path.stat().st_size for path in self._directory.iterdir())

    def damaged(self, segment: Segment, start: int, end: int) -> bool:
        """Keep damaged bytes of a segment; False: they were kept before."""
        path = self._directory / f"damaged-{segment.number:012d}-{start:010d}.bin"
        if path.exists():
            return False
        logger.error("spool is damaged", extra={"path": str(segment.path), "start": start, "end": end})
        partial = path.with_suffix(".partial")
        try:
            _write_durably(partial, "wb", read_range(segment.path, start, end - start))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # Garbage is not worth a standstill: were it waited for, a full disk could not be emptied by forwarding.
            partial.unlink(missing_ok=True)
            logger.exception("no room to keep damaged bytes")
            return True
        partial.rename(path)
        sync_directory(self._directory)
        return True

    def rejected(self, records: tuple[bytes, ...], batch_id: str, reason: str, at_ms: int) -> None:
        """Keep records that the authority refused."""
        about = {"at": rfc3339(at_ms), "batch": batch_id, "reason": reason[:MAX_REASON]}
        lines = [orjson.dumps(about | {"record": orjson.Fragment(record)}) + b"\n" for record in records]
        is_new = not self._rejected.exists()
        _write_durably(self._rejected, "ab", b"".join(lines))
        if is_new:
            sync_directory(self._directory)


def _write_durably(path: Path, mode: Literal["wb", "ab"], data: bytes) -> None:
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
