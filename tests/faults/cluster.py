"""Two upstreams on one PostgreSQL, each with a relay that follows it, and a Redis; any of them can be killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.postgresql import LASTING, Server
from tests.redis_server import RedisServer
from tests.stack import Client, Process, Stack, free_port, new_session, until

SIGNING_KEY = "one signing key for both upstreams"
PROJECT = "/api/v2/projects/shop"
FLAG = f"{PROJECT}/flags/checkout"


@dataclass
class Site:
    """One upstream and the relay behind it."""

    stack: Stack
    environ: dict[str, str]
    upstream: Process | None = None
    relay: Process | None = None

    def start_upstream(self) -> None:
        self.upstream = self.stack.start(
            "halyard", "upstream", "serve", "--data-dir", str(self.stack.data_dir),
            "--port", str(self.stack.upstream_port), env=self.environ,
        )  # fmt: skip

    def start_relay(self, key_file: Path) -> None:
        self.relay = self.stack.start(
            "halyard-relay", "--upstream-url", self.stack.upstream_url, "--upstream-key-file", str(key_file),
            "--port", str(self.stack.relay_port), "--admin-port", str(self.stack.admin_port),
            "--data-dir", str(self.stack.data_dir / "relay"),
        )  # fmt: skip


@dataclass
class Cluster:
    """A project `shop` with the flag `checkout`, managed through either upstream with one sign-in."""

    server: Server
    sites: list[Site]
    session: aiohttp.ClientSession
    redis: RedisServer | None
    token: str = ""
    environments: dict[str, str] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def started(
        cls, folder: Path, *, with_redis: bool = False, through: Path | None = None
    ) -> AsyncIterator[Self]:
        """Start everything on a new server, which is reached `through` a link where that is given."""
        server = Server.made(LASTING)
        if through is not None:
            through.symlink_to(server.directory)  # noqa: ASYNC240 - takes no time
        redis = RedisServer(folder, free_port()) if with_redis else None
        try:
            server.execute("CREATE DATABASE halyard")
            environ = {
                "HALYARD_UPSTREAM_DATABASE__URL": Server(through or server.directory).url("halyard"),
                "HALYARD_UPSTREAM_AUTH__SIGNING_KEY": SIGNING_KEY,
                **({} if redis is None else {"HALYARD_UPSTREAM_REDIS__URL": redis.url}),
            }
            if redis is not None:
                redis.start()
            async with new_session() as session:
                cluster = cls(server, [Site(Stack(folder / name), environ) for name in "ab"], session, redis)
                try:
                    await cluster._found()
                    yield cluster
                finally:
                    for site in cluster.sites:
                        for process in site.stack.processes:
                            process.kill()
        finally:
            if redis is not None:
                redis.kill()
            server.close()

    def manage(self, site: int = 0) -> Client:
        """The management API of one of the upstreams."""
        return Client(self.session, self.sites[site].stack.upstream_url, self.token)

    async def _found(self) -> None:
        first = self.sites[0].stack
        # Both at once, as two pods of a new installation would.
        commands = [
            site.stack.start(
                "halyard", "upstream", "init", "--data-dir", str(site.stack.data_dir),
                "--sign-in-file", str(site.stack.data_dir / "sign-in"), env=site.environ,
            )
            for site in self.sites
        ]  # fmt: skip
        for command in commands:
            assert await asyncio.to_thread(command.popen.wait, 30) == 0, command.text()
        # One of them has made the owner and the key; the other has found them.
        (sign_in,), (key_file,) = self._made("sign-in"), self._made("relay.key")
        email, password = sign_in.read_text().split()[2:4]
        for site in self.sites:
            site.start_upstream()
        for site in self.sites:
            await self.upstream_ready(site)
        body = {"email": email, "password": password}
        status, session = await Client(self.session, first.upstream_url, None).post("/api/v2/auth/login", body)
        assert status == 200, session
        self.token = session["access_token"]
        await self._fill()
        for site in self.sites:
            site.start_relay(key_file)
        await self.converged()

    def _made(self, name: str) -> list[Path]:
        return [each for site in self.sites if (each := site.stack.data_dir / name).exists()]

    async def _fill(self) -> None:
        for path, body in (
            ("/api/v2/projects", {"key": "shop", "name": "Shop"}),
            (f"{PROJECT}/flags", {"key": "checkout", "name": "Checkout", "type": "boolean"}),
        ):
            status, made = await self.manage().post(path, body)
            assert status == 201, made
        status, page = await self.manage(1).get(f"{PROJECT}/environments")
        assert status == 200, page
        self.environments = {each["key"]: each["id"] for each in page["data"]}

    async def upstream_ready(self, site: Site) -> None:
        async def ready() -> bool:
            assert site.upstream is not None
            assert site.upstream.popen.poll() is None, site.upstream.text()
            return (await Client(self.session, site.stack.upstream_url, None).get("/readyz"))[0] == 200

        await until("upstream ready", ready)

    async def committed(self) -> dict[str, int]:
        """Return the revision of each environment that the database holds."""
        status, page = await self.manage().get(f"{PROJECT}/environments")
        assert status == 200, page
        return {each["id"]: each["revision"] for each in page["data"]}

    async def held(self, site: int) -> dict[str, tuple[int, str]]:
        """Return revision and hash of each environment, as a relay holds them."""
        status, body = await Client(self.session, self.sites[site].stack.admin_url, None).get("/status")
        assert status == 200, body
        return {each["id"]: (each["revision"], each["hash"]) for each in body["environments"]}

    async def converged(self, deadline_s: float = 20.0) -> dict[str, tuple[int, str]]:
        """Wait until both relays hold what is committed; returns that."""

        async def equal() -> dict[str, tuple[int, str]] | None:
            wanted = await self.committed()
            held = [await self.held(site) for site in range(2)]
            reached = {each: revision for each, (revision, _) in held[0].items()}
            return held[0] if held[0] == held[1] and reached == wanted else None

        return await until("both relays hold what is committed", equal, deadline_s)

    async def toggle(self, site: int, *, enabled: bool) -> tuple[int, Any]:
        body = {"environment": "production", "enabled": enabled}
        return await self.manage(site).post(f"{FLAG}:toggle", body)
