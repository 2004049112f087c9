"""Tells a part of all streams of a change, in a turn of the loop that is never long.

First what each client is told is found out, then all of it is written, so that the processor's caches, which every
system call empties, are filled once for many clients and not once for each. A stream that fails is handed to `fail`,
and the others go on.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

from relay.serve.held import Offer, write_each
from relay.serve.stream import Stream
from relay.serve.update import Update
from relay.sync.slices import in_slices

_TURN_S: Final = 0.005
"""How long requests may have to wait; what is evaluated for one client may be a thousand flags."""
_LOOKED_AT: Final = 4
"""Streams between two looks at the clock."""


async def tell(
    streams: Sequence[Stream],
    update: Update,
    now_s: float,
    postponed: list[Stream],
    fail: Callable[[Stream, Exception], None],
) -> int:
    """Tell streams of an update, and let the loop turn at least once; return how many clients were concerned.

    Those whose clients will answer with a request are added to `postponed`.
    """
    told = 0
    offers: list[Offer] = []
    started_s = perf_counter()
    for number, stream in enumerate(streams):
        try:
            if stream.is_over:
                continue
            if (steps := stream.prepare(update)) is not None:
                write_each(offers)
                offers = []
                await in_slices(steps)
                started_s = perf_counter()
            if stream.is_over or not stream.take(update):
                continue
            told += 1
            if stream.makes_client_ask:
                postponed.append(stream)
            elif (offer := stream.offer(now_s)) is not None:
                offers.append(offer)
        except Exception as error:  # noqa: BLE001 - one stream's failure is not the failure of all others
            fail(stream, error)
        if not number % _LOOKED_AT and perf_counter() - started_s > _TURN_S:
            write_each(offers)
            offers = []
            await asyncio.sleep(0)
            started_s = perf_counter()
    write_each(offers)
    await asyncio.sleep(0)
    return told
