"""Events under constant crashes: what 100 clients had acknowledged is stored, each once, whoever was killed meanwhile.

`make faults` sends 50,000 events; `HALYARD_FAULTS_EVENTS=1000000` is the whole test, with 50 kills of the relay and 20
of the upstream. `HALYARD_FAULTS_SEED` repeats the order of kills and losses, and `HALYARD_FAULTS_REPORT=FILE` writes
the report, as Markdown or, by the file's name, as JSON. A run whose traffic was too thin to prove anything fails.
"""

import asyncio
import json
import os
import platform
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.faults.lossy_proxy import LossyProxy
from tests.faults.pair import FAST_FORWARDING, Pair
from tests.stack import until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]

EVENTS = int(os.environ.get("HALYARD_FAULTS_EVENTS", "50000"))
SEED = int(os.environ.get("HALYARD_FAULTS_SEED") or random.randrange(2**32))
REPORT = os.environ.get("HALYARD_FAULTS_REPORT")
CLIENTS = 100
MOST_PER_CALL = 20
RELAY_KILLS = max(5, EVENTS * 50 // 1_000_000)
UPSTREAM_KILLS = max(2, EVENTS * 20 // 1_000_000)
LOST_SHARE = 0.1
# Below, a run proves nothing: the kills would fall into silence.
LEAST_EVENTS_PER_S = 500
NAME = "million"
PAUSE_S = 0.05
# Upstream is away for a second at a time here, not for minutes.
IMPATIENT = {"HALYARD_RELAY_UPSTREAM__BACKOFF_MAX_S": "1"}


@dataclass
class Report:
    """What was done, and what came of it. `pace` is how far the clients may go before the next kill."""

    seed: str = str(SEED)
    machine: str = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    clients: int = CLIENTS
    acknowledged: int = 0
    calls: int = 0
    calls_repeated: int = 0
    relay_kills: int = 0
    upstream_kills: int = 0
    batches_answered: int = 0
    answers_lost: int = 0
    sending_s: float = 0
    whole_s: float = 0
    stored: int = 0
    missing: int = 0
    doubled: int = 0
    never_sent: int = 0
    history: list[str] = field(default_factory=list)
    pace: int = 0

    def text(self) -> str:
        """Return the report as a Markdown table; the history is in the JSON form only."""
        figures = {name: value for name, value in asdict(self).items() if name not in {"history", "pace"}}
        rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in figures.items()]
        command = f"HALYARD_FAULTS_EVENTS={EVENTS} HALYARD_FAULTS_SEED={SEED} make faults"
        return "\n".join(("| what | figure |", "|---|---|", *rows, "", f"Again: `{command}`", ""))

    def write(self) -> None:
        """Print the report, and keep it where that was asked for."""
        sys.stdout.write(f"\n{self.text()}")
        if REPORT:
            path = Path(REPORT)
            path.write_text(json.dumps(asdict(self), indent=2) + "\n" if path.suffix == ".json" else self.text())


def _shown(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


@pytest_asyncio.fixture(loop_scope="session")
async def lossy(tmp_path: Path) -> AsyncIterator[tuple[Pair, LossyProxy]]:
    """Upstream and relay, with a proxy between them that loses a tenth of the upstream's answers."""
    async with (
        Pair.started(tmp_path) as pair,
        LossyProxy.running(pair.upstream_port, share=LOST_SHARE, seed=SEED) as proxy,
    ):
        await pair.kill_relay()
        pair.relay_env = FAST_FORWARDING | IMPATIENT
        pair.start_relay(f"http://127.0.0.1:{proxy.port}")
        await pair.relay_connected()
        yield pair, proxy


async def client(pair: Pair, number: int, report: Report) -> None:
    """Send this client's events, each call again until it is acknowledged; ids make that safe."""
    chance = random.Random(f"{SEED}-{number}")
    sent, end = 0, _share_of(number)

    async def may_go_on() -> bool:
        return report.acknowledged < report.pace

    while sent < end:
        await until("the next kill has been prepared", may_go_on, deadline_s=120)
        size = min(end - sent, chance.randint(1, MOST_PER_CALL))
        ids = [f"{number}-{index}" for index in range(sent, sent + size)]
        while not await _is_acknowledged(pair, ids):
            report.calls_repeated += 1
            await asyncio.sleep(PAUSE_S)
        report.calls += 1
        report.acknowledged += size
        sent += size


def _share_of(number: int) -> int:
    return EVENTS // CLIENTS + (number < EVENTS % CLIENTS)


async def _is_acknowledged(pair: Pair, ids: list[str]) -> bool:
    events = [{"id": key, "type": "track", "name": NAME, "unit": f"user-{key}", "value": 1} for key in ids]
    try:
        status, body = await pair.relay().post("/api/v2/track", {"events": events})
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
    assert status in {202, 503}, body
    return bool(status == 202)


async def killer(pair: Pair, proxy: LossyProxy, report: Report) -> None:
    """Kill one of the two whenever the clients have come so far; spread over the run, in an order by chance."""
    victims = ["relay"] * RELAY_KILLS + ["upstream"] * UPSTREAM_KILLS
    random.Random(SEED).shuffle(victims)
    for number, victim in enumerate(victims, 1):
        # The clients come up to here and wait, so that the traffic is not over before the last kill; each kill comes
        # while they are on their way.
        report.pace = EVENTS * number // len(victims)
        mark = report.pace - EVENTS // (2 * len(victims))

        async def has_come_so_far(mark: int = mark) -> bool:
            return report.acknowledged >= mark

        await until(f"{mark} events acknowledged", has_come_so_far, deadline_s=120)
        assert report.acknowledged < EVENTS, "the traffic was over before the kills"
        report.history.append(f"{report.acknowledged} acknowledged: kill -9 {victim}")
        if victim == "relay":
            await pair.kill_relay()
            pair.start_relay(f"http://127.0.0.1:{proxy.port}")
            await pair.relay_ready()
            report.relay_kills += 1
        else:
            await pair.kill_upstream()
            pair.start_upstream()
            await pair.upstream_ready()
            report.upstream_kills += 1


def stored_ids(data_dir: Path) -> Iterator[str]:
    """Yield the id of every stored row, straight from the database: the API would need ten thousand pages."""
    with closing(sqlite3.connect(f"file:{data_dir / 'halyard.db'}?mode=ro", uri=True)) as database:
        for (key,) in database.execute("SELECT id FROM events WHERE name = ?", (NAME,)):
            yield key


def check(data_dir: Path, report: Report) -> None:
    """Hold what is stored against what was acknowledged: every call was, in the end."""
    seen = [bytearray(_share_of(number)) for number in range(CLIENTS)]
    for key in stored_ids(data_dir):
        number, index = map(int, key.split("-"))
        report.stored += 1
        if number >= CLIENTS or index >= len(seen[number]):
            report.never_sent += 1
        elif seen[number][index]:
            report.doubled += 1
        else:
            seen[number][index] = 1
    report.missing = report.acknowledged - sum(map(sum, seen))


async def test_every_acknowledged_event_is_stored_once_whatever_is_killed(lossy: tuple[Pair, LossyProxy]) -> None:
    """F01, F04, F05: kill -9 of both again and again, a tenth of the answers lost: none missing, none doubled."""
    pair, proxy = lossy
    report = Report()
    start = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(killer(pair, proxy, report))
        clients = [tasks.create_task(client(pair, number, report)) for number in range(CLIENTS)]
        await asyncio.wait(clients)
        report.sending_s = time.monotonic() - start
    await until("everything handed over", pair.spool_is_empty, deadline_s=60 + EVENTS / LEAST_EVENTS_PER_S)
    report.whole_s = time.monotonic() - start
    report.answers_lost, report.batches_answered = proxy.lost, proxy.lost + proxy.passed
    await asyncio.to_thread(check, pair.data_dir, report)
    report.write()
    assert (report.missing, report.doubled, report.never_sent) == (0, 0, 0), report.text()
    assert report.acknowledged == report.stored == EVENTS
    assert (report.relay_kills, report.upstream_kills) == (RELAY_KILLS, UPSTREAM_KILLS)
    assert report.calls_repeated > 0, "no call ever met a dead relay"
    assert report.answers_lost >= max(1, report.batches_answered * LOST_SHARE / 2), report.text()
    assert EVENTS / report.whole_s >= LEAST_EVENTS_PER_S, report.text()
