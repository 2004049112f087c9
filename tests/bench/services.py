"""Upstream and relay as one system: how fast a change shows."""

import asyncio
import base64
import time

from tests.bench.measure import Figures, spread
from tests.faults.pair import Pair

TOGGLES = 200


async def bench_change(pair: Pair) -> Figures:
    """How long a toggle takes to show at the relay and in a client's stream, measured from sending the write."""
    context = base64.urlsafe_b64encode(b'{"targetingKey":"user-1"}').decode()
    answered, patched, written = [], [], []

    async def until_answer(value: object, start: float) -> None:
        while (await pair.evaluate())["value"] != value:
            pass
        answered.append((time.perf_counter() - start) * 1000)

    async with pair.relay("client_key").stream(f"/api/v2/client/stream?context={context}") as stream:
        await stream.next_named("put")

        async def until_patch(start: float) -> None:
            await stream.next_named("patch")
            patched.append((time.perf_counter() - start) * 1000)

        for number in range(TOGGLES):
            enabled = number % 2 == 1
            start = time.perf_counter()

            async def write(start: float = start, *, enabled: bool = enabled) -> None:
                await pair.toggle(enabled=enabled)
                written.append((time.perf_counter() - start) * 1000)

            await asyncio.gather(write(), until_answer(enabled, start), until_patch(start))
    return {"write_answered": spread(written), "relay_answers": spread(answered), "client_patched": spread(patched)}
