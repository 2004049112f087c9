"""Memory of large configurations: keeps the garbage collector away while one is built, gives back what it used.

Building one allocates hundreds of thousands of objects that stay; a full collection in the midst of it walks all of
them, finds nothing and stalls the event loop by more than 100 ms. Afterwards they are frozen, so that later
collections need not walk them either; they are still freed when the last reference goes.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

from relay.protocol.changes import ChangeSet, Snapshot

_MANY_OBJECTS = 1_000
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other libraries have none and need none


def size_of(message: Snapshot | ChangeSet) -> int:
    """Return how many flags and segments a message brings."""
    if isinstance(message, Snapshot):
        return len(message.state.flags) + len(message.state.segments)
    return len(message.upsert_flags) + len(message.upsert_segments)


@contextmanager
def collector_paused(objects: int) -> Iterator[None]:
    """Switch the collector off for the length of the context if `objects` flags and segments are many."""
    if objects < _MANY_OBJECTS or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def give_back() -> None:
    """Return to the system what building left unused: a megabyte or two. Takes less than a millisecond."""
    if _TRIM is not None:
        _TRIM(0)
