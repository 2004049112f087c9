"""Either service dies without warning (F02, F04, F11): what was promised to clients holds."""

import asyncio
from collections import Counter

import aiohttp
import pytest

from tests.faults.lossy_proxy import LossyProxy
from tests.faults.pair import Pair
from tests.stack import DEADLINE_S, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]


async def test_relay_serves_and_restarts_without_upstream_and_delivers_events_once(pair: Pair) -> None:
    """F04, F11: upstream is killed; the relay answers, restarts from its file, and later delivers each event once."""
    await pair.track(["before-1", "before-2"])
    await pair.kill_upstream()
    assert (await pair.evaluate())["value"] is True
    await pair.track([f"away-{n}" for n in range(50)])

    await pair.kill_relay()
    pair.start_relay()
    await pair.relay_ready()
    assert (await pair.evaluate())["value"] is True
    status, body = await pair.admin.get("/readyz")
    assert (status, body["degraded"]) == (200, True), body
    await pair.track([f"restarted-{n}" for n in range(50)])

    pair.start_upstream()
    await pair.upstream_ready()
    expected = {"before-1", "before-2", *(f"away-{n}" for n in range(50)), *(f"restarted-{n}" for n in range(50))}
    assert Counter(await pair.all_stored(expected)) == Counter(expected)


async def test_no_acknowledged_event_is_lost_when_the_relay_is_killed_under_load(pair: Pair) -> None:
    """F04: the relay is killed while clients send events; whatever it had acknowledged is stored exactly once."""
    acknowledged: set[str] = set()
    sent: set[str] = set()
    enough = asyncio.Event()

    async def client(name: str) -> None:
        for n in range(10_000):
            key = f"{name}-{n}"
            sent.add(key)
            try:
                await pair.track([key])
            except (OSError, aiohttp.ClientError):
                return
            acknowledged.add(key)
            if len(acknowledged) >= 200:
                enough.set()

    clients = [asyncio.create_task(client(f"client{number}")) for number in range(8)]
    async with asyncio.timeout(DEADLINE_S):
        await enough.wait()
    await pair.kill_relay()
    await asyncio.gather(*clients)
    assert len(acknowledged) >= 200

    pair.start_relay()
    stored = Counter(await pair.all_stored(acknowledged))
    assert max(stored.values()) == 1
    assert set(stored) <= sent


async def test_a_change_that_upstream_answered_survives_its_crash(pair: Pair) -> None:
    """F02: upstream is killed right after it answered a write that nobody else has seen; afterwards it is there."""
    await pair.kill_relay()
    before = await pair.revision()
    await pair.toggle(enabled=False)
    await pair.kill_upstream()
    pair.start_upstream()
    await pair.upstream_ready()
    status, config = await pair.manage.get(f"{pair.flag_path}/environments/{pair.demo['environment']}")
    assert (status, config["enabled"]) == (200, False)
    assert await pair.revision() == before + 1
    pair.start_relay()
    await pair.relay_ready()

    async def off() -> bool:
        return (await pair.evaluate())["value"] is False

    await until("the relay has the change", off)


async def test_what_is_sent_twice_is_stored_and_counted_once(pair: Pair) -> None:
    """F05: upstream's answers are lost after it committed; the relay sends the same batches again; nothing doubles."""
    await pair.kill_relay()
    async with LossyProxy.running(pair.upstream_port, losses=3) as proxy:
        pair.start_relay(f"http://127.0.0.1:{proxy.port}")
        await pair.relay_ready()
        before = await pair.counted()
        expected = {f"twice-{number}" for number in range(20)}
        await pair.track(sorted(expected))
        for number in range(25):
            await pair.evaluate(unit=f"counted-{number}")
        assert Counter(await pair.all_stored(expected)) == Counter(expected)

        async def handed_over() -> bool:
            return proxy.lost == 3 and await pair.counted() >= before + 25 and await pair.spool_is_empty()

        await until("everything handed over after three lost answers", handed_over, deadline_s=60)
        assert await pair.counted() == before + 25


async def test_sigterm_ends_the_relay_in_order_and_loses_no_count(pair: Pair) -> None:
    """SIGTERM: the relay says goodbye to its streams, forwards its counts, and exits with status 0."""
    assert pair.relay_process is not None
    before = await pair.counted()
    async with pair.relay("client_key").stream("/api/v2/client/stream?context=e30") as stream:
        await stream.next_named("put")
        for number in range(25):
            await pair.evaluate(unit=f"counted-{number}")
        stopping = asyncio.create_task(asyncio.to_thread(pair.relay_process.stop))
        goodbye = await stream.next_named("goodbye")
        assert goodbye.data["reason"] == "drain"
    assert await stopping == 0, pair.relay_process.text()
    assert await pair.counted() == before + 25
