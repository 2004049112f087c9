"""Flag writes through the API, beside bare commits of one row on the same disk."""

import asyncio
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.faults.pair import Pair

ROUNDS = 3
SECONDS = 4.0
CONNECTIONS = 8
Figures = dict[str, Any]


def bare_commits(directory: Path) -> float:
    """Return commits per second of one small row each, SQLite in WAL mode with synchronous=FULL."""
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS / 2:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO rows (text) VALUES (?)", ("x" * 200,))
            database.execute("COMMIT")
            count += 1
        return count / (time.perf_counter() - start)


async def _writes(pair: Pair, connections: int, *, with_key: bool) -> float:
    """Return toggles per second that were answered, over so many keep-alive connections."""
    assert pair.session is not None
    path = f"{pair.upstream_url}{pair.flag_path}:toggle"
    body = {"environment": pair.demo["environment"]}
    start = time.perf_counter()
    counts = [0] * connections

    async def client(name: int) -> None:
        assert pair.session is not None
        while time.perf_counter() - start < SECONDS:
            headers = {"Authorization": f"Bearer {pair.demo['token']}"}
            if with_key:
                headers["Idempotency-Key"] = f"{start}-{name}-{counts[name]}"
            async with pair.session.post(path, json=body, headers=headers) as reply:
                await reply.read()
                assert reply.status == 200, reply.status
            counts[name] += 1

    await asyncio.gather(*(client(name) for name in range(connections)))
    return sum(counts) / (time.perf_counter() - start)


async def bench_writes(pair: Pair) -> Figures:
    """Toggles through the API; the best of a few rounds, as others use the machine too."""
    await pair.kill_relay()
    best = {"bare_commits_per_s": 0.0, "one_connection_per_s": 0.0, "per_s": 0.0, "with_idempotency_key_per_s": 0.0}
    with tempfile.TemporaryDirectory(dir=pair.data_dir) as directory:
        for _ in range(ROUNDS):
            figures = {
                "bare_commits_per_s": await asyncio.to_thread(bare_commits, Path(directory)),
                "one_connection_per_s": await _writes(pair, 1, with_key=False),
                "per_s": await _writes(pair, CONNECTIONS, with_key=False),
                "with_idempotency_key_per_s": await _writes(pair, CONNECTIONS, with_key=True),
            }
            best = {name: max(best[name], figure) for name, figure in figures.items()}
    return {
        **{name: round(figure) for name, figure in best.items()},
        "connections": CONNECTIONS,
        "ratio_to_bare_commits": round(best["per_s"] / best["bare_commits_per_s"], 3),
    }
