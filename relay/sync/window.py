"""The last change sets of one environment, kept in memory so that followers of this relay can resume from it.

Bounded by number and by bytes; what falls out of it is served as a snapshot instead. Always dense: it holds every
revision from its floor to its head, or it starts anew.
"""

from collections import deque
from itertools import islice

from relay.protocol.state import ChangeSet

_OVERHEAD_BYTES = 512


class Window:
    """Change sets after revision `floor`, up to the head."""

    def __init__(self, floor: int, *, max_changes: int, max_bytes: int) -> None:
        self._floor = floor
        self._max_changes = max_changes
        self._max_bytes = max_bytes
        self._bytes = 0
        self._changes: deque[ChangeSet] = deque()

    def append(self, change: ChangeSet) -> None:
        """Take the next revision, and let go of the oldest ones beyond the bounds."""
        self._changes.append(change)
        self._bytes += _size(change)
        while len(self._changes) > self._max_changes or self._bytes > self._max_bytes:
            oldest = self._changes.popleft()
            self._bytes -= _size(oldest)
            self._floor = oldest.revision

    def after(self, revision: int) -> tuple[ChangeSet, ...] | None:
        """Return the change sets after a revision; None when the window does not reach back, or not up, to it."""
        skip = revision - self._floor
        if not 0 <= skip <= len(self._changes):
            return None
        return tuple(islice(self._changes, skip, None))


def _size(change: ChangeSet) -> int:
    upserts = (change.upsert_flags, change.upsert_segments, change.upsert_credentials)
    return _OVERHEAD_BYTES + sum(len(raw) for objects in upserts for raw in objects.values())
