"""The garbage collector's one owner: young objects are its business, what stays is walked only when memory grew.

A full collection walks every object: with a large configuration or ten thousand streams it finds nothing and stalls
the event loop by 100 ms. So none runs by itself. Young generations are collected as ever, which is where garbage in
circles is found; what outlives them is frozen every few seconds, that is, walked no more, and still freed when its last
reference goes. Only if the process has grown by much is everything walked once, so that circles which grew old cannot
pile up for ever.
"""

import ctypes
import gc
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.protocol.changes import ChangeSet, Snapshot

YOUNG = (2_000, 4)
"""Thresholds of the two young generations: a walk of all that is young takes a millisecond or two."""
FROZEN_EVERY_S = 5.0
GROWN_BY_MIB = 128
"""Beside doubling: how much larger than at the last walk the process must be for the next one."""
_NEVER = 1 << 30
PAGE_BYTES = resource.getpagesize()
_MANY_OBJECTS = 1_000
# glibc's; other libraries have none and need none.
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
_MALLOPT = getattr(ctypes.CDLL(None), "mallopt", None)
_M_ARENA_MAX = -8


def size_of(message: Snapshot | ChangeSet) -> int:
    """Return how many flags and segments a message brings."""
    if isinstance(message, Snapshot):
        return len(message.state.flags) + len(message.state.segments)
    return len(message.upsert_flags) + len(message.upsert_segments)


def own_collector() -> None:
    """Take over from the interpreter's defaults, and leave out what was loaded until now. Call once, before threads."""
    if _MALLOPT is not None:
        # An arena for each thread is for threads that allocate at once, which Python's do not.
        _MALLOPT(_M_ARENA_MAX, 1)
    gc.set_threshold(*YOUNG, _NEVER)
    gc.collect()
    gc.freeze()


def freeze_young() -> None:
    """Freeze what was just made and stays, such as streams; nothing where the interpreter still owns the collector.

    Nobody would ever walk there what was frozen: the upstream serves streams too, and makes circles in plenty.
    """
    if gc.get_threshold()[2] == _NEVER:
        gc.freeze()


async def keep_collected(sleep: Callable[[float], Awaitable[None]]) -> None:
    """Freeze what has grown old, for ever; walk all of it when there is very much more than at the last walk."""
    walked_at_mib = _resident_mib()
    while True:
        await sleep(FROZEN_EVERY_S)
        gc.collect(1)  # or circles among the youngest would be frozen as well
        gc.freeze()
        # Not the number of frozen objects, as counting them means walking them.
        if _resident_mib() > 2 * walked_at_mib + GROWN_BY_MIB:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            walked_at_mib = _resident_mib()


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0  # not on Linux: the young generations are all that is collected
    return pages * PAGE_BYTES / (1 << 20)


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
