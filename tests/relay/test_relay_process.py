"""The assembled relay, in this process, with an upstream that cannot be reached."""

import asyncio
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from relay.clock import SystemClock
from relay.errors import BadSettings
from relay.events.spool import Spool
from relay.heartbeat import Heartbeat
from relay.metrics import RelayMetrics
from relay.process import Relay, hold
from relay.protocol.keys import Kind, mint
from relay.report import process_fault
from relay.settings import Admin, Data, RelayServe, RelaySettings, UpstreamLink
from relay.supervise import Patience, Supervisor
from relay.sync.follow import Refusal
from relay.version import VERSION
from tests.clocks import FakeClock, settle

KEY = mint(Kind.RELAY, bytes(range(32)))
DEADLINE_S = 5.0


def settings(path: Path) -> RelaySettings:
    # Port 9 (discard) answers nobody here; what matters is that the connection is refused at once.
    return RelaySettings(
        upstream=UpstreamLink(url="http://127.0.0.1:9"),
        serve=RelayServe(port=0),
        admin=Admin(port=0),
        data=Data(dir=path),
    )


@asynccontextmanager
async def started(path: Path) -> AsyncIterator[tuple[Relay, str, str]]:
    """Start a relay; yields it with the addresses of both listeners, and stops it as Ctrl-C would."""
    clock, metrics, chosen = SystemClock(), RelayMetrics(), settings(path)
    held = await hold(chosen, clock, metrics)
    admin_port = held.watching.getsockname()[1]
    relay = Relay(chosen, KEY, held, metrics, clock)
    await relay.start()
    try:
        yield relay, f"http://127.0.0.1:{relay.server.port}", f"http://127.0.0.1:{admin_port}"
    finally:
        relay.drain.begin(hurry=True)
        async with asyncio.timeout(DEADLINE_S):
            await relay.stop()


async def test_lives_but_is_not_ready_without_any_configuration(tmp_path: Path) -> None:
    """F11: with neither upstream nor file the relay is alive, says why it is not ready, and answers 503 (not 401)."""
    async with started(tmp_path) as (_, url, admin), aiohttp.ClientSession() as session:
        async with session.get(f"{admin}/livez") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "alive"})
        async with session.get(f"{admin}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["faults"] == {"configuration": "no configuration has arrived yet"}
        headers = {"Authorization": f"Bearer {mint(Kind.SERVER, bytes(32))}"}
        async with session.post(f"{url}/ofrep/v1/evaluate/flags/x", headers=headers, json={"context": {}}) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"


async def test_status_and_metrics_tell_of_the_parts(tmp_path: Path) -> None:
    """Status shows follower, spool and drain; metrics has what is read from its owner; neither shows a key."""
    async with started(tmp_path) as (_, _url, admin), aiohttp.ClientSession() as session:
        async with session.get(f"{admin}/status") as answer:
            status = await answer.json()
        assert status["follower"]["upstream"] == "http://127.0.0.1:9"
        assert status["spool"]["is_full"] is False
        async with session.get(f"{admin}/metrics") as answer:
            text = await answer.text()
        assert "halyard_relay_upstream_connected 0.0" in text
        assert "halyard_relay_spool_bytes 0.0" in text
        assert "halyard_relay_loop_delay_seconds_count" in text
        assert "halyard_relay_ready 0.0" in text
        assert 'halyard_relay_task_failures_total{task="follower"} 0.0' in text
        assert "halyard_relay_spool_writable 1.0" in text
        assert "halyard_relay_connections_limit 20000.0" in text
        assert f'halyard_relay_build_info{{python="{platform.python_version()}",version="{VERSION}"}} 1.0' in text
        assert KEY not in text + str(status)


async def test_keeps_its_id_and_frees_its_directory(tmp_path: Path) -> None:
    """The id is made once; a stopped relay leaves a directory that the next one can take."""
    async with started(tmp_path):
        first = (tmp_path / "relay-id").read_text()
    async with started(tmp_path):
        assert (tmp_path / "relay-id").read_text() == first
    assert len(first) == 32


async def test_draining_is_not_ready_before_the_listener_closes(tmp_path: Path) -> None:
    """After SIGTERM the relay first says that it is not ready, still answering, so that balancers can turn away."""
    async with started(tmp_path) as (relay, url, admin), aiohttp.ClientSession() as session:
        relay.drain.begin()
        async with session.get(f"{admin}/readyz") as answer:
            assert "draining" in (await answer.json())["faults"]
        async with session.get(f"{url}/nowhere") as answer:
            assert answer.status == 404


async def test_a_damaged_file_is_passed_over_with_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F11: a snapshot file that cannot be read costs its content, never the start."""
    (tmp_path / "snapshot").write_bytes(b"not a snapshot")
    async with started(tmp_path) as (relay, _, _):
        assert not relay.store.configurations
    assert any("passed over" in record.message for record in caplog.records)


async def test_a_stuck_loop_and_a_failing_task_are_faults_of_the_process() -> None:
    """F42, F43: what the probe's thread reads tells both, with the reason."""
    clock = FakeClock()
    heartbeat, supervisor = Heartbeat(clock), Supervisor(clock, patience=Patience(failures=1))
    assert process_fault(heartbeat, supervisor) is None

    async def fail() -> None:
        message = "disk on fire"
        raise OSError(message)

    supervisor.start("spool", fail)
    await settle()
    assert process_fault(heartbeat, supervisor) == "spool: OSError: disk on fire"
    await supervisor.stop()
    await clock.advance(11)
    assert process_fault(heartbeat, supervisor) == "the event loop has not turned for 11 s"


async def test_an_outbox_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    """A relay that could not keep a kill must not begin; nothing is left locked or listening."""
    (tmp_path / "outbox").write_text("a file, not a directory")
    chosen = settings(tmp_path)
    with pytest.raises(BadSettings, match=r"relay\.data\.dir: .* cannot be used"):
        await hold(chosen, SystemClock(), RelayMetrics())
    (tmp_path / "outbox").unlink()
    async with started(tmp_path):
        pass


class UnreadableSpool:
    """A spool whose disk cannot be read."""

    def __init__(self, spool: Spool) -> None:
        self.stats = spool.stats

    async def measure(self) -> None:
        raise OSError(5, "Input/output error")


async def test_figures_of_the_spool_survive_a_disk_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The task that copies them goes on and says it once: a status that is incomplete is no reason for a restart."""
    async with started(tmp_path) as (relay, _, _):
        clock = FakeClock()
        # A report of its own: the relay's own task goes on reading the real spool meanwhile.
        report = replace(relay._report, clock=clock, spool=cast("Spool", UnreadableSpool(relay._spool)))
        task = asyncio.create_task(report.copy_spool_figures())
        await clock.advance(5)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})
    assert caplog.text.count("figures are incomplete") == 1


async def test_connections_end_before_the_spool_closes(tmp_path: Path) -> None:
    """Streams may use up all of their time without taking any from the requests that are under way."""
    async with started(tmp_path) as (relay, _, _):
        names = [phase.name for phase in relay._phases()]
    assert names.index("sending streams away") < names.index("ending requests") < names.index("handing over events")


async def test_a_refused_configuration_is_told(tmp_path: Path) -> None:
    """What the follower refuses reaches the readiness probe, with place and reason."""
    async with started(tmp_path) as (relay, _, _):
        refused = relay._report.health().refused
        assert refused() is None
        relay._follower._inbox.refusals["e1"] = Refusal("e1", "flags.a", "is bad", 0, 1)
        relay._follower._inbox.refusals[None] = Refusal(None, "message", "is no JSON", 0, 1)
        assert refused() == "environment e1 at flags.a: is bad (and 1 more)"
