"""The assembled upstream, in this process, and a relay that follows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from argon2 import PasswordHasher

from relay.clock import SystemClock
from relay.metrics import RelayMetrics
from relay.process import Relay, hold
from relay.serve.server import listen
from relay.settings import Admin, RelayServe, RelaySettings, UpstreamLink
from relay.settings import Data as RelayData
from upstream import data_dir
from upstream.api.passwords import Passwords
from upstream.authority import Authority, SystemEntropy
from upstream.demo import Demo, Seed, Urls
from upstream.domain.access_commands import (
    CreateOrganisation,
    CreateToken,
)
from upstream.domain.commands import (
    CreateProject,
)
from upstream.domain.entities import Organisation
from upstream.domain.permissions import system_actor
from upstream.notifier import Notifier
from upstream.process import Upstream
from upstream.settings import Data, Metrics, UpstreamServe, UpstreamSettings
from upstream.storage.database import Database, Unavailable

DEADLINE_S = 10.0


class World:
    """A started upstream with the demo project, and a client."""

    def __init__(self, upstream: Upstream, demo: Demo, session: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.demo = demo
        self.session = session
        self.url = f"http://127.0.0.1:{upstream.server.port}"

    async def call(self, method: str, url: str, key: str = "", body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.session.request(method, url, headers=headers, json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    @property
    def authority(self) -> Authority:
        """The upstream's own, whose changes it hears of at once."""
        return self.upstream._authority

    async def me(self) -> Any:
        return (await self.call("GET", f"{self.url}/api/v2/auth/me", self.demo.token))[1]

    async def toggle(self, *, enabled: bool) -> None:
        url = f"{self.url}/api/v2/projects/demo/flags/{self.demo.flag}:toggle"
        status, body = await self.call(
            "POST", url, self.demo.token, {"environment": self.demo.environment, "enabled": enabled}
        )
        assert status == 200, body

    async def evaluate(self, url: str) -> Any:
        path = f"/ofrep/v1/evaluate/flags/{self.demo.flag}"
        status, body = await self.call("POST", url + path, self.demo.server_key, {"context": {"targetingKey": "u"}})
        return body.get("value") if status == 200 else status


@asynccontextmanager
async def world(path: Path, metrics: Metrics | None = None, serve: UpstreamServe | None = None) -> AsyncIterator[World]:
    """Start an upstream with the demo project; stops it as Ctrl-C would."""
    chosen = UpstreamSettings(
        serve=serve or UpstreamServe(port=0), data=Data(dir=path / "upstream"), metrics=metrics or Metrics()
    )
    clock = SystemClock()
    with data_dir.taken(chosen.data.dir), closing(data_dir.open_stored(chosen, clock)) as database:
        authority = Authority(database, clock, SystemEntropy(), Notifier())
        passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        demo = await Seed(database, authority, passwords).plant(chosen.data.dir, Urls("", "", ""))
        listener = listen("127.0.0.1", 0, 16, "upstream.serve.port")
        upstream = Upstream(chosen, database=database, passwords=passwords, listener=listener, clock=clock)
        await upstream.start()
        async with aiohttp.ClientSession() as session:
            try:
                yield World(upstream, demo, session)
            finally:
                upstream.drain.begin(hurry=True)
                async with asyncio.timeout(DEADLINE_S):
                    await upstream.stop()
                passwords.close()


@asynccontextmanager
async def relay_of(found: World, path: Path) -> AsyncIterator[str]:
    """Start a relay that follows the upstream; yields its address."""
    settings = RelaySettings(
        upstream=UpstreamLink(url=found.url),
        serve=RelayServe(port=0),
        admin=Admin(port=0),
        data=RelayData(dir=path / "relay"),
    )
    clock, metrics = SystemClock(), RelayMetrics()
    relay = Relay(settings, found.demo.relay_key, await hold(settings, clock, metrics), metrics, clock)
    await relay.start()
    try:
        yield f"http://127.0.0.1:{relay.server.port}"
    finally:
        relay.drain.begin(hurry=True)
        async with asyncio.timeout(DEADLINE_S):
            await relay.stop()


async def answers(found: World, url: str, *, value: bool) -> None:
    """Ask a service until it answers the value."""
    async with asyncio.timeout(DEADLINE_S):
        while await found.evaluate(url) is not value:
            pass


async def test_probes_metrics_and_methods(tmp_path: Path) -> None:
    """Ready as soon as it answers; metrics on the same port; a known path with another method is 405, not 404."""
    async with world(tmp_path) as found:
        for probe in ("livez", "readyz", "startupz"):
            status, body = await found.call("GET", f"{found.url}/{probe}")
            assert status == 200, body
        status, body = await found.call("GET", f"{found.url}/status")
        assert (status, body["origin"], body["ready"], body["totals"]["environments"]) == (200, "authority", True, 3)
        async with found.session.get(f"{found.url}/metrics") as answer:
            text = await answer.text()
        assert 'halyard_upstream_config_revision{environment="demo/production"}' in text
        for method, path in (("GET", "/api/v2/evaluate"), ("POST", "/livez"), ("POST", "/api/v2/stream")):
            status, body = await found.call(method, found.url + path)
            assert (status, body["code"]) == (405, "method_not_allowed")
        assert (await found.call("GET", f"{found.url}/nowhere"))[0] == 404


async def test_evaluations_of_all_flags_are_gzipped_as_its_settings_say(tmp_path: Path) -> None:
    """The upstream's own plane is the relay's; answers about management stay as they are."""
    serve = UpstreamServe(port=0, compress_from_bytes=1, compress_loopback=True)
    async with world(tmp_path, serve=serve) as found:
        for path in ("/ofrep/v1/evaluate/flags", "/api/v2/bootstrap"):
            headers = {"Authorization": f"Bearer {found.demo.server_key}"}
            async with found.session.post(found.url + path, headers=headers, json={"context": {}}) as answer:
                assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
                assert found.demo.flag in await answer.text()
        headers = {"Authorization": f"Bearer {found.demo.token}"}
        async with found.session.get(f"{found.url}/api/v2/auth/me", headers=headers) as answer:
            assert answer.status == 200
            assert "Content-Encoding" not in answer.headers


async def test_status_names_no_environment_to_strangers(tmp_path: Path) -> None:
    """Without a key that may read, it tells readiness, version and totals, and why there is no more."""
    async with world(tmp_path) as found:
        acting = system_actor((await found.me())["organisation"]["id"])
        clerk = await found.authority.execute(CreateToken(name="clerk", scopes=["keys:write"]), acting)
        for key in ("", "nonsense", found.demo.server_key, clerk.secret or ""):
            status, body = await found.call("GET", f"{found.url}/status", key)
            assert (status, body["ready"], body["totals"]["environments"]) == (200, True, 3)
            assert body["version"]
            assert body["environments_hidden"]
            assert "environments" not in body
            assert "production" not in str(body)


async def test_status_answers_while_the_database_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks cannot be known then, so that they are told the totals."""

    async def refuse(*_: object) -> None:
        raise Unavailable("no disk")

    async with world(tmp_path) as found:
        monkeypatch.setattr(Database, "read", refuse)
        status, body = await found.call("GET", f"{found.url}/status", found.demo.token)
        assert (status, body["totals"]["environments"]) == (200, 3)
        assert "database" in body["environments_hidden"]
        monkeypatch.undo()


async def test_status_names_the_environments_that_the_caller_may_read(tmp_path: Path) -> None:
    """A token or member sees those of its organisation and projects, and nothing of anybody else."""
    async with world(tmp_path) as found:
        rival = await found.authority.execute(CreateOrganisation(name="Rival"), system_actor())
        assert isinstance(rival.entity, Organisation)
        acting = system_actor(rival.entity.id)
        tokens = {}
        for project in ("lab", "annex"):
            await found.authority.execute(CreateProject(key=project), acting)
            limited = CreateToken(name=project, scopes=["flags:read"], projects=[project])
            tokens[project] = (await found.authority.execute(limited, acting)).secret or ""

        async def projects(key: str) -> list[str]:
            body = (await found.call("GET", f"{found.url}/status", key))[1]
            return [each["project"] for each in body["environments"]]

        async with asyncio.timeout(DEADLINE_S):
            while await projects(tokens["lab"]) != ["lab"] * 3:
                pass
        login = {"email": found.demo.email, "password": found.demo.password}
        signed_in = (await found.call("POST", f"{found.url}/api/v2/auth/login", body=login))[1]
        for key in (found.demo.token, signed_in["access_token"]):
            assert await projects(key) == ["demo"] * 3


async def test_a_toggle_reaches_the_upstreams_own_evaluation_and_a_relay(tmp_path: Path) -> None:
    """The authority is its own first relay; another relay follows it; both answer the change."""
    async with world(tmp_path) as found, relay_of(found, tmp_path) as relay_url:
        for url in (found.url, relay_url):
            await answers(found, url, value=True)
        await found.toggle(enabled=False)
        for url in (found.url, relay_url):
            await answers(found, url, value=False)


async def test_a_rotation_reaches_a_relay(tmp_path: Path) -> None:
    """With an overlap both keys evaluate at the relay; without one the old key is unknown there as soon as it hears."""
    async with world(tmp_path) as found, relay_of(found, tmp_path) as relay_url:
        await answers(found, relay_url, value=True)
        keys = (await found.call("GET", f"{found.url}/api/v2/keys?kind=server", found.demo.token))[1]["data"]

        async def rotated(key_id: str, overlap_s: int) -> Any:
            url = f"{found.url}/api/v2/keys/{key_id}:rotate"
            status, body = await found.call("POST", url, found.demo.token, {"overlap_s": overlap_s})
            assert status == 201, body
            return body

        async def evaluated(key: str) -> Any:
            return await replace_key(found, key).evaluate(relay_url)

        second = await rotated(keys[0]["id"], 3_600)
        async with asyncio.timeout(DEADLINE_S):
            while await evaluated(second["key"]) is not True:
                pass
        assert await evaluated(found.demo.server_key) is True
        third = await rotated(second["id"], 0)
        async with asyncio.timeout(DEADLINE_S):
            while await evaluated(second["key"]) != 401:
                pass
        assert await evaluated(third["key"]) is True


def replace_key(found: World, key: str) -> World:
    """Return the world as whoever has another server key sees it."""
    return World(found.upstream, replace(found.demo, server_key=key), found.session)


async def test_a_relay_starts_from_its_file_and_flushes_at_the_end(tmp_path: Path) -> None:
    """A stopped relay has written its configuration and handed over its counts; the next one serves without upstream.

    (With `upstream.metrics.enabled` off, where the port is public, there is no `/metrics`.)
    """
    async with world(tmp_path, Metrics(enabled=False)) as found:
        status, body = await found.call("GET", f"{found.url}/metrics")
        assert (status, body["code"]) == (404, "not_found")
        async with relay_of(found, tmp_path) as relay_url:
            await answers(found, relay_url, value=True)
        metrics_url = f"{found.url}/api/v2/projects/demo/metrics?flag={found.demo.flag}"
        status, body = await found.call("GET", metrics_url, found.demo.token)
        assert status == 200, body
        assert sum(row["count"] for row in body["data"]) >= 1
        await found.upstream.server.stop_accepting()
        async with relay_of(found, tmp_path) as relay_url:
            assert await found.evaluate(relay_url) is True
