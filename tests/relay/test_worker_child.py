"""A worker in this process, behind a real desk: what it serves, what it says of itself, and how it goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.clock import SystemClock
from relay.protocol.keys import Kind
from relay.serve.server import listen, share
from relay.settings import Data, Drain, RelayServe, RelaySettings
from relay.workers.child import Child
from relay.workers.figures import figures_of
from relay.workers.link import Start
from tests.relay.live import until
from tests.relay.office import SECRET, Office, opened


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(tmp_path) as made:
        yield made


@asynccontextmanager
async def child_of(office: Office) -> AsyncIterator[tuple[Child, str]]:
    """Run a worker that shares a port on which nobody accepts; yields it with its address."""
    first = listen("127.0.0.1", 0, 16, "relay.serve.port")
    share(first)
    port = first.getsockname()[1]
    settings = RelaySettings(
        serve=RelayServe(port=port, workers=2), data=Data(dir=office.path.parent), drain=Drain(accept_s=0, window_s=0)
    )
    child = Child(Start(1, "instance", str(office.path), SECRET, settings), SystemClock())
    await child.start()
    first.close()  # so that every connection reaches the worker
    try:
        yield child, f"http://127.0.0.1:{port}"
    finally:
        child.drain.begin(hurry=True)
        async with asyncio.timeout(10):
            await child.stop()


async def evaluate(office: Office, url: str) -> Any:
    headers = {"Authorization": f"Bearer {office.world.keys[Kind.SERVER]}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/ofrep/v1/evaluate/flags/beta", json={"context": {}}, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return (await answer.json())["value"]


async def test_it_serves_reports_and_hands_its_counts_over(office: Office) -> None:
    """It accepts only with a configuration; its last report has every request, and its counts are on the disk."""
    async with child_of(office) as (_, url):
        assert office.reports[-1]["accepting"] is True
        assert office.reports[-1]["revisions"] == {office.world.ref.id: 1}
        assert await evaluate(office, url) is True
        assert await evaluate(office, url) is True
    last = office.reports[-1]
    requests = figures_of(last["figures"]).of("halyard_relay_requests")
    assert (last["accepting"], last["requests"], sum(requests.values())) == (False, 2, 2)
    assert sum(record["count"] for record in await office.records()) == 2


async def test_what_worker_0_lets_go_of_is_gone_here(office: Office) -> None:
    """Also the last environment, of which no stream tells any more."""
    async with child_of(office) as (child, _):
        office.world.store.remove(office.world.ref.id)
        await until(lambda: not child._store.configurations)


async def test_it_goes_when_told_before_it_has_anything(office: Office) -> None:
    """Without a configuration it opens no port, and still ends in order."""
    office.world.store.remove(office.world.ref.id)
    settings = RelaySettings(serve=RelayServe(port=1, workers=2), drain=Drain(accept_s=0, window_s=0))
    child = Child(Start(1, "instance", str(office.path), SECRET, settings), SystemClock())
    starting = asyncio.create_task(child.start())
    await until(lambda: office.reports)
    assert not starting.done()
    child.drain.begin(hurry=True)
    async with asyncio.timeout(10):
        await starting
        await child.stop()
    assert office.reports[-1]["accepting"] is False
