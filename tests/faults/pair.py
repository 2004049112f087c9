"""An upstream and a relay on one data directory, started, killed and started again one by one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.stack import Json, Process, Running, new_session, until

# What is tried or measured here must not wait for the limit of one client.
UNLIMITED = {"HALYARD_UPSTREAM_RATE_LIMITS__WRITES": "0", "HALYARD_UPSTREAM_RATE_LIMITS__READS": "0"}
FAST_FORWARDING = {"HALYARD_RELAY_EVENTS__FLUSH_S": "0.5"}


@dataclass
class Pair(Running):
    """The demo installation with the two services as separate processes."""

    upstream_process: Process | None = None
    relay_process: Process | None = None
    relay_env: dict[str, str] = field(default_factory=lambda: dict(FAST_FORWARDING))

    @classmethod
    @asynccontextmanager
    async def started(cls, data_dir: Path) -> AsyncIterator[Self]:
        """Make the demo data with `halyard up`, stop that, and start the two services on their own."""
        async with new_session() as session:
            pair = cls(data_dir, session=session)
            try:
                pair.main = pair.together()
                await pair.ready()
                pair.main.stop()
                (data_dir / "relay.key").write_text(pair.demo["relay_key"])
                pair.start_upstream()
                pair.start_relay()
                await pair.ready_pair()
                yield pair
            finally:
                await pair.close()

    def start_upstream(self) -> None:
        self.upstream_process = self.start(
            "halyard", "upstream", "serve", "--data-dir", str(self.data_dir), "--port", str(self.upstream_port),
            env=UNLIMITED,
        )  # fmt: skip

    def start_relay(self, upstream_url: str | None = None) -> None:
        self.relay_process = self.start(
            "halyard-relay", "--upstream-url", upstream_url or self.upstream_url,
            "--upstream-key-file", str(self.data_dir / "relay.key"), "--port", str(self.relay_port),
            "--admin-port", str(self.admin_port), "--data-dir", str(self.data_dir / "relay"), env=self.relay_env,
        )  # fmt: skip

    async def upstream_ready(self) -> None:
        async def ready() -> bool:
            return (await self.upstream(None).get("/readyz"))[0] == 200

        await until("upstream ready", ready)

    async def relay_ready(self) -> None:
        async def ready() -> bool:
            return (await self.admin.get("/readyz"))[0] == 200

        await until("relay ready", ready)

    async def relay_connected(self) -> None:
        """Wait until the relay serves what the upstream has confirmed, and not only what it kept from before."""

        async def connected() -> bool:
            status, body = await self.admin.get("/readyz")
            return status == 200 and not body["degraded"]

        await until("relay connected", connected)

    async def ready_pair(self) -> None:
        await self.upstream_ready()
        await self.relay_connected()

    async def kill_upstream(self) -> None:
        assert self.upstream_process is not None
        self.upstream_process.kill()

    async def kill_relay(self) -> None:
        assert self.relay_process is not None
        self.relay_process.kill()

    async def track(self, ids: list[str]) -> None:
        """Send one track event per id; returns once the relay has acknowledged all of them."""
        events = [{"id": key, "type": "track", "name": "purchase", "unit": f"user-{key}", "value": 1} for key in ids]
        status, body = await self.relay().post("/api/v2/track", {"events": events})
        assert status == 202, body

    async def stored_ids(self) -> list[str]:
        """Return the ids of all stored events with the test's name, as often as each is stored."""
        ids: list[str] = []
        while True:
            path = f"{self.project_path}/events?name=purchase&limit=100&offset={len(ids)}"
            status, body = await self.manage.get(path)
            assert status == 200, body
            page: list[dict[str, Any]] = body["data"]
            ids += [row["id"] for row in page]
            if not page or len(ids) >= body["total"]:
                return ids

    async def revision(self) -> int:
        """Return the revision of the demo environment at the upstream."""
        path = f"{self.project_path}/environments/{self.demo['environment']}"
        status, environment = await self.manage.get(path)
        assert status == 200, environment
        revision: int = environment["revision"]
        return revision

    async def counted(self, source: str = "single") -> int:
        """Return how many evaluations of the demo flag the upstream has counted."""
        status, body = await self.manage.get(f"{self.project_path}/metrics?flag={self.demo['flag']}&limit=1000")
        assert status == 200, body
        return sum(row["count"] for row in body["data"] if row["source"] == source)

    async def spool_is_empty(self) -> bool:
        """Tell whether the relay has handed over all that it took in."""
        spool: Json = (await self.admin.get("/status"))[1]["spool"]
        return not spool["records"]

    async def all_stored(self, expected: set[str]) -> list[str]:
        """Wait until every expected event is stored, and return all stored ids."""

        async def complete() -> list[str] | None:
            ids = await self.stored_ids()
            return ids if expected <= set(ids) else None

        return await until("all acknowledged events stored", complete, deadline_s=60)
