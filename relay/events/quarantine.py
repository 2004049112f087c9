"""Bytes and records that cannot be forwarded, kept for a person to look at.

`damaged-…` files hold bytes of a segment that are no record any more, named by where they lay, so that finding them
again after a restart changes nothing. `unreadable-…` are whole segments whose bytes the disk did not give back.
`rejected.ndjson` holds records that the authority refused, each with the reason. Nothing is deleted here: what lies
here counts against the size of the spool until an operator takes it away, with the directory itself if they like.
"""

import logging
import secrets
from pathlib import Path

import orjson

from relay.clock import rfc3339
from relay.durable_file import sync_directory, write_synced
from relay.events.disk import NO_SPACE
from relay.events.segment_file import Segment, read_range

logger = logging.getLogger(__name__)

MAX_REASON = 1_000
REJECTED = "rejected.ndjson"


class Quarantine:
    """The directory, and how much lies in it. Methods block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._make()
        self._rejected = directory / REJECTED

    def size(self) -> int:
        """Return the size of everything kept."""
        try:
            return sum(map(_size, list(self._directory.iterdir())))
        except FileNotFoundError:
            return 0

    def unreadable(self, segment: Segment) -> None:
        """Keep a whole segment that could not be read, out of the way of everything that deletes segments."""
        self._make()
        # A number is used anew when nothing was written behind it; what is kept must not be overwritten then.
        segment.path.rename(self._directory / f"unreadable-{segment.number:012d}-{secrets.token_hex(4)}.segment")
        sync_directory(self._directory)
        sync_directory(segment.path.parent)

    def damaged(self, segment: Segment, start: int, end: int) -> bool:
        """Keep damaged bytes of a segment; False: they were kept before."""
        path = self._directory / f"damaged-{segment.number:012d}-{start:010d}.bin"
        if path.exists():
            return False
        logger.error("spool is damaged", extra={"path": str(segment.path), "start": start, "end": end})
        partial = path.with_suffix(".partial")
        try:
            self._make()
            write_synced(partial, (read_range(segment.path, start, end - start),))
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
        self._make()
        is_new = not self._rejected.exists()
        write_synced(self._rejected, lines, "ab")
        if is_new:
            sync_directory(self._directory)

    def _make(self) -> None:
        """Make the directory where there is none, also when an operator took it away while the relay runs."""
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._directory.parent)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # Taken away, or renamed, since it was listed.
        return 0
