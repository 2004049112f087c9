"""One relay of two processes on one port, as a client, an operator and an orchestrator see it; real processes."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.faults.pair import FAST_FORWARDING, Pair
from tests.stack import Client, SseReader, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

WORKERS = 2
FAST = {**FAST_FORWARDING, "HALYARD_RELAY_DRAIN__ACCEPT_S": "0.2", "HALYARD_RELAY_DRAIN__WINDOW_S": "0.5"}
EVALUATIONS = 200


@dataclass
class Crew(Pair):
    """A pair whose relay has two workers."""

    relay_env: dict[str, str] = field(default_factory=lambda: FAST)

    def start_relay(self, upstream_url: str | None = None) -> None:
        self.relay_process = self.start(
            "halyard-relay", "--upstream-url", upstream_url or self.upstream_url, "--workers", str(WORKERS),
            "--upstream-key-file", str(self.data_dir / "relay.key"), "--port", str(self.relay_port),
            "--admin-port", str(self.admin_port), "--data-dir", str(self.data_dir / "relay"), env=self.relay_env,
        )  # fmt: skip

    async def workers(self) -> list[dict[str, Any]]:
        status, body = await self.admin.get("/status")
        assert status == 200, body
        found: list[dict[str, Any]] = body["workers"]
        return found

    async def crew_ready(self) -> list[dict[str, Any]]:
        """Wait until every worker serves; return what is known of each."""
        await self.relay_connected()

        async def running() -> list[dict[str, Any]] | None:
            workers = await self.workers()
            return workers if all(each["state"] == "running" for each in workers) else None

        return await until("all workers running", running)

    @property
    def child_pid(self) -> int:
        """The process of worker 1, as the kernel knows it."""
        assert self.relay_process is not None
        parent = self.relay_process.popen.pid
        (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(child)

    @asynccontextmanager
    async def reaching_each(self) -> AsyncIterator[dict[int, Client]]:
        """Yield a client per worker, each on a connection of its own that stays with it."""
        async with AsyncExitStack() as stack:
            clients: dict[int, Client] = {}
            for _ in range(64):
                session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
                await stack.enter_async_context(session)
                client = Client(session, self.relay_url, self.demo["token"])
                clients.setdefault(await self.answered_by(client), client)
                if len(clients) == WORKERS:
                    break
            assert len(clients) == WORKERS
            yield clients

    async def answered_by(self, client: Client) -> int:
        """Tell which worker a connection has reached, by the ids that it gives to requests."""
        async with client._session.get(self.relay_url + "/nowhere") as answer:
            await answer.read()  # else the connection is closed, and the next request reaches anybody
            process = answer.headers["x-request-id"].partition("-")[0]
        (number,) = [each["number"] for each in await self.workers() if each["request_ids"] == process]
        return int(number)

    async def value_at(self, client: Client) -> Any:
        """Evaluate the demo flag with the server key, on the connection that the client has."""
        path = f"/ofrep/v1/evaluate/flags/{self.demo['flag']}"
        headers = {"Authorization": f"Bearer {self.demo['server_key']}"}
        body = {"context": {"targetingKey": "user-1"}}
        async with client._session.post(self.relay_url + path, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["value"]

    async def total(self, family: str) -> float:
        """Return the sum of a counter over its labels, as a scrape shows it."""
        assert self.session is not None
        async with self.session.get(self.admin_url + "/metrics") as answer:
            text = await answer.text()
        return sum(float(value) for value in re.findall(rf"^{family}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crew(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crew]:
    async with Crew.started(tmp_path_factory.mktemp("crew")) as started:
        await started.crew_ready()
        yield started


async def test_both_accept_and_a_change_reaches_streams_at_both(crew: Crew) -> None:
    """The kernel spreads connections; each worker evaluates, and each tells its own streams of a change."""
    await crew.toggle(enabled=True)
    async with crew.reaching_each() as clients, AsyncExitStack() as stack:
        streams: list[SseReader] = []
        for client in clients.values():
            reader = Client(client._session, crew.relay_url, crew.demo["client_key"])
            streams.append(await stack.enter_async_context(reader.stream("/api/v2/client/stream?context=e30")))
        for stream in streams:
            await stream.next_named("put")
        await until_streams(crew)
        await crew.toggle(enabled=False)
        for stream in streams:
            patch = await stream.next_named("patch")
            assert patch.data["flags"][crew.demo["flag"]]["value"] is False
    await crew.toggle(enabled=True)


async def until_streams(crew: Crew) -> None:
    async def each_has_one() -> bool:
        return [each["streams"].get("client", 0) for each in await crew.workers()] == [1, 1]

    await until("a stream at each worker", each_has_one)
    status, body = await crew.admin.get("/status")
    assert (status, body["streams"]["client"]) == (200, 2)


@pytest.mark.parametrize("through", range(WORKERS))
async def test_a_kill_through_either_is_off_at_both_and_stays_so(crew: Crew, through: int) -> None:
    """At once, after the death of the other worker, and after the death and a new start of the whole relay."""
    await crew.toggle(enabled=True)
    await crew.settled()

    async def on_everywhere() -> bool:
        async with crew.reaching_each() as clients:
            return all([await crew.value_at(client) is True for client in clients.values()])

    await until("on at both", on_everywhere)
    await crew.kill_upstream()
    try:
        async with crew.reaching_each() as clients:
            body = {"environment": crew.demo["environment"], "reason": "fire"}
            status, answer = await clients[through].post(f"{crew.flag_path}:kill", body)
            assert status == 202, answer
            assert await crew.value_at(clients[through]) is False
            other = clients[1 - through]

            async def off_there() -> bool:
                return await crew.value_at(other) is False

            await until("off at the other worker", off_there, deadline_s=1)
        before = crew.child_pid
        os.kill(before, signal.SIGKILL)

        async def replaced() -> bool:
            workers = await crew.workers()
            return workers[1]["pid"] not in {None, before} and workers[1]["state"] == "running"

        await until("worker 1 is there again", replaced)
        async with crew.reaching_each() as clients:
            for client in clients.values():
                assert await crew.value_at(client) is False
        await crew.kill_relay()
        crew.start_relay()
        await crew.relay_ready()

        async def both_run() -> bool:
            return all(each["state"] == "running" for each in await crew.workers())

        await until("both run again", both_run)
        async with crew.reaching_each() as clients:
            for client in clients.values():
                assert await crew.value_at(client) is False
    finally:
        crew.start_upstream()
        await crew.ready_pair()

    async def handed_over() -> bool:
        return not (await crew.admin.get("/status"))[1]["overlays"]

    await until("the kill is upstream", handed_over, deadline_s=60)
    await crew.toggle(enabled=True)
    await crew.settled()
    await until("on at both again", on_everywhere)


async def test_events_through_a_worker_outlive_it_and_arrive_once(crew: Crew) -> None:
    """Acknowledged means on worker 0's disk: the worker that took them is killed at once, sent twice or not."""
    ids = [f"by-child-{number}" for number in range(20)]
    events = [{"id": key, "type": "track", "name": "purchase", "unit": "user-1", "value": 1} for key in ids]
    async with crew.reaching_each() as clients:
        client = Client(clients[1]._session, crew.relay_url, crew.demo["server_key"])
        status, body = await client.post("/api/v2/track", {"events": events})
        assert (status, body) == (202, {"accepted": 20, "duplicates": 0})
        status, body = await client.post("/api/v2/track", {"events": events})
        assert (status, body) == (202, {"accepted": 0, "duplicates": 20})
        status, body = await client.post("/api/v2/track", {"events": [{"id": "x"}]})
        assert (status, body["code"]) == (422, "invalid_events")
        os.kill(crew.child_pid, signal.SIGKILL)
    assert sorted(await crew.all_stored(set(ids))) == sorted(ids)
    await crew.crew_ready()


async def test_metrics_are_sums_that_never_go_down(crew: Crew) -> None:
    """Requests of both are in one counter; when a worker dies, what it counted stays, and a scrape never waits."""
    async with crew.reaching_each() as clients:
        before = await crew.total("halyard_relay_requests_total")
        for client in clients.values():
            for _ in range(50):
                await crew.value_at(client)

        async def counted() -> bool:
            return await crew.total("halyard_relay_requests_total") >= before + 100

        await until("both workers' requests are counted", counted)
        highest = await crew.total("halyard_relay_requests_total")
        os.kill(crew.child_pid, signal.SIGKILL)
    seen = []
    starts = (await crew.workers())[1]["starts"]

    async def again() -> bool:
        seen.append(await crew.total("halyard_relay_requests_total"))
        worker = (await crew.workers())[1]
        return bool(worker["starts"] > starts and worker["state"] == "running")

    await until("worker 1 is there again", again)
    assert [highest, *seen] == sorted([highest, *seen])
    status, ready = await crew.admin.get("/readyz")
    assert status == 200, ready


async def test_a_stuck_worker_is_named_and_replaced(crew: Crew) -> None:
    """It is no reason for a scrape to hang; `/readyz` names it, and it is killed and started again."""
    stuck = crew.child_pid
    os.kill(stuck, signal.SIGSTOP)

    async def told() -> Any:
        status, body = await crew.admin.get("/readyz")
        return body if status == 503 else None

    body = await until("not ready", told)
    assert body["faults"]["workers"].startswith(f"worker 1 (process {stuck}) has not answered for")
    assert await crew.total("halyard_relay_workers") == WORKERS
    started = time.monotonic()
    await crew.total("halyard_relay_requests_total")
    assert time.monotonic() - started < 1
    await until("worker 1 is another one", lambda: _is_another(crew, stuck), deadline_s=30)
    await crew.crew_ready()


async def _is_another(crew: Crew, pid: int) -> bool:
    worker = (await crew.workers())[1]
    return worker["pid"] not in {None, pid} and worker["state"] == "running"


async def test_counts_are_exact_over_an_orderly_end(crew: Crew) -> None:
    """What both workers evaluated is upstream, no more and no less; both say goodbye to their streams."""
    counted_before = await settled_counts(crew)
    async with crew.reaching_each() as clients, AsyncExitStack() as stack:
        for client in clients.values():
            for _ in range(EVALUATIONS):
                await crew.value_at(client)
        streams = []
        for client in clients.values():
            reader = Client(client._session, crew.relay_url, crew.demo["client_key"])
            streams.append(await stack.enter_async_context(reader.stream("/api/v2/client/stream?context=e30")))
        assert crew.relay_process is not None
        ended = asyncio.create_task(asyncio.to_thread(crew.relay_process.stop, signal.SIGTERM))
        for stream in streams:
            goodbye = await stream.next_named("goodbye")
            assert goodbye.data["reason"] == "drain"
        assert await ended == 0, crew.relay_process.text()
    crew.start_relay()
    await crew.crew_ready()
    assert await settled_counts(crew) == counted_before + WORKERS * EVALUATIONS


async def settled_counts(crew: Crew) -> int:
    """Return what upstream has counted once nothing is on its way any more."""
    last = -1

    async def unchanged() -> bool:
        nonlocal last
        before, last = last, await crew.counted()
        if before == last and await crew.spool_is_empty():
            return True
        await asyncio.sleep(1)
        return False

    await until("counts have settled", unchanged)
    return last


def is_there(pid: int) -> bool:
    """Tell whether a process exists."""
    return Path(f"/proc/{pid}").exists()


async def test_nothing_is_left_of_a_killed_relay_and_its_port_is_free(crew: Crew) -> None:
    """The other worker goes with worker 0, kill -9 or not; two relays are never on one port by mistake."""
    child = crew.child_pid
    second = crew.start(
        "halyard-relay", "--upstream-url", crew.upstream_url, "--workers", "2",
        "--upstream-key-file", str(crew.data_dir / "relay.key"), "--port", str(crew.relay_port),
        "--admin-port", "0", "--data-dir", str(crew.data_dir / "another"),
    )  # fmt: skip
    assert second.popen.wait(20) == 2, second.text()
    assert "relay.serve.port: cannot listen" in second.text()
    await crew.kill_relay()

    async def gone() -> bool:
        return not is_there(child)

    await until("worker 1 has gone", gone, deadline_s=2)
    crew.start_relay()
    await crew.crew_ready()


async def test_ctrl_c_takes_the_waits_out_of_the_drain_of_all(crew: Crew) -> None:
    """However long SIGTERM would have let them wait; no process stays behind."""
    await crew.kill_relay()
    crew.relay_env = {**FAST, "HALYARD_RELAY_DRAIN__ACCEPT_S": "60"}
    crew.start_relay()
    await crew.crew_ready()
    child = crew.child_pid
    assert crew.relay_process is not None
    crew.relay_process.popen.send_signal(signal.SIGTERM)

    async def draining() -> bool:
        return (await crew.admin.get("/readyz"))[0] == 503

    await until("not ready", draining)
    assert is_there(child)
    crew.relay_process.popen.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(crew.relay_process.popen.wait, 10) == 0, crew.relay_process.text()
    assert not is_there(child)
    assert "killed" not in crew.relay_process.text()
