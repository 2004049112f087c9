"""Large configurations in a real relay: memory, time from start to ready, and how long evaluations wait meanwhile.

An upstream gets a project of so many flags through its import: half of them with three rules, and a fourth on one
segment. Memory is the resident set of the relay's process, some seconds after it was ready and with nobody asking it
anything. `ready` counts from the start of the program to `/readyz` with 200, once with everything from the upstream
and once from the snapshot file with no upstream there. Waits come from `tests.bench.prober`.
"""

import argparse
import asyncio
import base64
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.bench.engine import KINDS
from tests.bench.measure import Figures, rss_mib
from tests.bench.prober import Prober
from tests.faults.pair import Pair
from tests.stack import until

SIZES: Final = (100, 10_000)
IDLE_S: Final = 5.0
SINGLE_CHANGES: Final = 50
SEGMENT_CHANGES: Final = 20
PAUSE_S: Final = 0.05
SLOW_S: Final = 120.0
PROJECT: Final = "large"
ENVIRONMENT: Final = "production"
SEGMENT: Final = "beta"
_WRITTEN_S: Final = 2.0
EVERYBODY: Final = {"attribute": "country", "op": "in", "values": ["NL", "BE"]}


def flag_part(number: int, note: str) -> dict[str, Any]:
    """Return a flag as a project document has it: every second one is heavy and asks for the segment."""
    kind = "heavy" if number % 2 else "simple"
    made = KINDS[kind](number)
    rules = [dict(rule) for rule in made.get("rules", ())]
    if rules:
        rules.append({"id": "r4", "when": {"segment": SEGMENT}, "serve": {"variation": "on"}})
    config = {
        "enabled": True, "off": "off", "fallthrough": made["fallthrough"], "rules": rules, "salt": f"salt-{number}",
    }  # fmt: skip
    return {
        "key": f"flag-{number}",
        "name": f"Flag {number}",
        "type": "boolean",
        "metadata": {"note": note},
        "variations": [{"key": "on", "value": True}, {"key": "off", "value": False}],
        "configs": {ENVIRONMENT: config},
    }


def document(flags: int, note: str = "first") -> dict[str, Any]:
    """Return a project of so many flags."""
    return {
        "format": "halyard.project",
        "format_version": 1,
        "project": {"key": PROJECT, "name": "Large"},
        "environments": [{"key": ENVIRONMENT, "name": "Production"}],
        "segments": [{"key": SEGMENT, "name": "Beta", "when": EVERYBODY}],
        "flags": [flag_part(number, note) for number in range(flags)],
    }


class Large:
    """A running pair, its upstream with a large project."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.server_key = ""
        self.figures: Figures = {}

    async def manage(self, method: str, path: str, body: object) -> Any:
        """Send one request to the management API; the large ones take their time."""
        session = self.pair.session
        assert session is not None
        headers = {"Authorization": f"Bearer {self.pair.demo['token']}"}
        url = f"{self.pair.upstream_url}/api/v2{path}"
        async with asyncio.timeout(SLOW_S), session.request(
            method, url, json=body, headers=headers, timeout=None
        ) as reply:  # fmt: skip
            answer = await reply.json()
            assert reply.status < 300, answer
            return answer

    async def settled(self) -> None:
        """Wait until the relay holds what is committed."""
        status, page = await self.pair.manage.get(f"/api/v2/projects/{PROJECT}/environments")
        assert status == 200, page
        wanted = {each["id"]: each["revision"] for each in page["data"]}

        async def there() -> bool:
            held = (await self.pair.admin.get("/status"))[1]["environments"]
            found = {each["id"]: each["revision"] for each in held}
            return all(found.get(each, -1) >= revision for each, revision in wanted.items())

        await until("the relay holds what is committed", there, SLOW_S)

    async def waits(self, what: Callable[[], Awaitable[object]], flag: str, key: str) -> Figures:
        """Measure evaluations while something is done and until the relay has it."""
        with Prober(self.pair.relay_port, key, flag) as prober:
            await what()
            await self.settled()
            await asyncio.sleep(1)
        return prober.figures()

    async def fill(self, flags: int) -> None:
        """Import the project with nobody looking."""
        await self.manage("POST", "/projects:import", document(flags))

    async def import_new(self, flags: int) -> None:
        """Import the project; the relay gets a whole new environment, while it serves another one."""
        body = document(flags)

        async def imported() -> None:
            start = time.perf_counter()
            await self.manage("POST", "/projects:import", body)
            self.figures["import_s"] = round(time.perf_counter() - start, 2)

        waits = await self.waits(imported, self.pair.demo["flag"], self.pair.demo["server_key"])
        self.figures["new_environment"] = waits
        named = {"kind": "server", "name": "bench", "project": PROJECT, "environment": ENVIRONMENT}
        self.server_key = (await self.manage("POST", "/keys", named))["key"]

    async def start_to_ready(self) -> float:
        """Start the relay; return the seconds until it says that it is ready."""
        start = time.perf_counter()
        self.pair.start_relay()
        await self.pair.relay_ready()
        return round(time.perf_counter() - start, 3)

    async def start_from_upstream(self) -> None:
        """Start a relay that holds nothing."""
        await self.pair.kill_relay()
        shutil.rmtree(self.pair.data_dir / "relay")
        self.figures["ready_from_upstream_s"] = await self.start_to_ready()
        await self.pair.relay_connected()
        self.figures["rss_mib"] = await self._idle_rss()

    async def start_from_file(self) -> None:
        """Start a relay that has its snapshot file and no upstream; then once more while it is asked."""
        await self._kept()
        await self.pair.kill_upstream()
        await self.pair.kill_relay()
        self.figures["ready_from_file_s"] = await self.start_to_ready()
        self.figures["rss_from_file_mib"] = await self._idle_rss()
        await self.pair.kill_relay()
        with Prober(self.pair.relay_port, self.pair.demo["server_key"], self.pair.demo["flag"]) as prober:
            await self.start_to_ready()
            await asyncio.sleep(1)
        self.figures["start_from_file"] = prober.figures()
        self.pair.start_upstream()
        await self.pair.ready_pair()

    async def change_one_flag(self) -> None:
        """Switch one flag off and on again, many times."""

        async def toggles() -> None:
            for number in range(SINGLE_CHANGES):
                body = {"environment": ENVIRONMENT, "enabled": number % 2 == 1}
                await self.manage("POST", f"/projects/{PROJECT}/flags/flag-1:toggle", body)
                await asyncio.sleep(PAUSE_S)

        self.figures["one_flag_changes"] = await self.waits(toggles, "flag-3", self.server_key)

    async def change_the_segment(self) -> None:
        """Change what half of the flags depend on, with a client's stream open, many times."""

        async def changes() -> None:
            for number in range(SEGMENT_CHANGES):
                body = {"when": {**EVERYBODY, "values": ["NL", f"country-{number}"]}}
                await self.manage("PATCH", f"/projects/{PROJECT}/segments/{SEGMENT}", body)
                await asyncio.sleep(PAUSE_S)

        async with self._client():
            self.figures["segment_changes"] = await self.waits(changes, "flag-3", self.server_key)

    async def change_every_flag(self, flags: int) -> None:
        """Import the document again with another text in every flag: one revision that touches everything.

        Also with a client's stream open.
        """
        body = document(flags, "second")

        async def imported() -> None:
            await self.manage("POST", f"/projects/{PROJECT}/import", body)

        async with self._client():
            self.figures["every_flag_changes"] = await self.waits(imported, "flag-3", self.server_key)
        self.figures["rss_after_changes_mib"] = await self._idle_rss()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[None]:
        """Hold one client stream at the relay for the length of the block, and read it as fast as it comes."""
        session = self.pair.session
        assert session is not None
        context = base64.urlsafe_b64encode(b'{"targetingKey":"user-1","country":"NL"}').decode()
        url = f"{self.pair.relay_url}/api/v2/client/stream?context={context}"
        headers = {"Authorization": f"Bearer {self.server_key}"}
        async with session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as reply:
            assert reply.status == 200, await reply.text()

            async def read() -> None:
                async for _ in reply.content.iter_any():
                    pass

            reading = asyncio.create_task(read())
            yield
            reading.cancel()

    async def _kept(self) -> None:
        """Wait until the newest configuration is in the snapshot file."""
        path = self.pair.data_dir / "relay" / "snapshot"

        async def quiet() -> bool:
            return path.exists() and time.time() - path.stat().st_mtime > _WRITTEN_S

        await until("the snapshot file is written", quiet, SLOW_S)

    async def _idle_rss(self) -> float:
        await asyncio.sleep(IDLE_S)
        assert self.pair.relay_process is not None
        return rss_mib(self.pair.relay_process.popen.pid)


async def bench_config(flags: int) -> Figures:
    """Measure one size."""
    with tempfile.TemporaryDirectory() as directory:
        async with Pair.started(Path(directory)) as pair:
            large = Large(pair)
            await large.import_new(flags)
            await large.start_from_upstream()
            await large.change_one_flag()
            await large.change_the_segment()
            await large.change_every_flag(flags)
            await large.start_from_file()
            return large.figures


async def main() -> None:
    """Measure the sizes that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.config", description=__doc__)
    parser.add_argument("--flags", type=int, action="append", help="size of the environment (repeatable)")
    for flags in parser.parse_args().flags or SIZES:
        sys.stdout.write(f"{flags} flags: {json.dumps(await bench_config(flags), indent=2)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
