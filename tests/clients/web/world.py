"""One application, in Node or Chromium, behind a proxy to a relay of its own, with what a test needs to watch it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.clients.cases import Case, Type
from tests.clients.web import driver
from tests.clients.web.driver import App
from tests.clients.web.page_server import page_server
from tests.clients.web.programs import Where, chromium, node
from tests.clients.web.proxy import Proxy
from tests.faults.pair import FAST_FORWARDING, Pair
from tests.stack import Process, until

CHANGED: Final = "PROVIDER_CONFIGURATION_CHANGED"
CONTEXT_CHANGED: Final = "PROVIDER_CONTEXT_CHANGED"
TROUBLE: Final = frozenset({"PROVIDER_STALE", "PROVIDER_ERROR"})
CONTEXT: Final = {"targetingKey": "user-1", "country": "FR"}
_NO_DRAIN: Final = {"HALYARD_RELAY_DRAIN__ACCEPT_S": "0", "HALYARD_UPSTREAM_DRAIN__ACCEPT_S": "0"}
TOTAL: Final = "HALYARD_RELAY_SERVE__STREAMS__TOTAL"
TOKEN_S: Final = "HALYARD_RELAY_SERVE__STREAMS__OFREP_TOKEN_S"


class WebPair(Pair):
    """Upstream and relay that end at once when asked to, and whose relay can be started again with other settings."""

    def start(self, *command: str, env: dict[str, str] | None = None) -> Process:
        return super().start(*command, env={**_NO_DRAIN, **(env or {})})

    def start_relay_with(self, **environment: str) -> None:
        self.relay_process = self.start(
            "halyard-relay", "--upstream-url", self.upstream_url,
            "--upstream-key-file", str(self.data_dir / "relay.key"), "--port", str(self.relay_port),
            "--admin-port", str(self.admin_port), "--data-dir", str(self.data_dir / "relay"),
            env={**FAST_FORWARDING, **environment},
        )  # fmt: skip


@dataclass
class World:
    """What one behaviour test works with."""

    where: Where
    pair: WebPair
    proxy: Proxy
    app: App
    client_key: str
    origin: str

    @property
    def flag(self) -> str:
        flag: str = self.pair.demo["flag"]
        return flag

    async def start_as_documented(self) -> None:
        """Start the application as docs/web-provider.md has it, and wait until its stream is open."""
        await self._start(60_000, recovers=True)
        await self._streaming()

    async def start_bare(self) -> None:
        """Start the application with the provider alone, polling off, and wait until its stream is open."""
        await self._start(0, recovers=False)
        await self._streaming()

    async def start_polling(self, poll_ms: int) -> None:
        """Start the application where it may find no stream."""
        await self._start(poll_ms, recovers=True)

    async def _start(self, poll_ms: int, *, recovers: bool) -> None:
        complaint = await driver.start(
            self.app, self.proxy.origin, self.client_key, CONTEXT, poll_ms=poll_ms, recovers=recovers
        )
        assert complaint is None, complaint

    async def _streaming(self) -> None:
        # A fresh stream makes the client ask once more.
        await self.asked(2)
        await self.streams(1)
        self.report("to start")
        self.proxy.forget()

    async def value(self) -> Any:
        """Return what the web SDK gives for the demo flag."""
        return (await driver.resolve(self.app, Case("demo", self.flag, Type.BOOLEAN, default=False))).value

    async def status(self) -> str:
        """Return the provider's status as the SDK tells it."""
        status: str = await self.app.call("status")
        return status

    async def heard(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the events of one name, without the first `after` of all."""
        events: list[dict[str, Any]] = await self.app.call("heard")
        return [event for event in events[after:] if event["name"] == name]

    async def mark(self) -> int:
        """Return how many events there were so far."""
        return len(await self.app.call("heard"))

    async def changes(self, *, to: bool) -> None:
        """Wait until the SDK gives a value."""

        async def given() -> bool:
            return await self.value() is to

        await until(f"the value {to}", given)

    async def is_told(self, after: int, deadline_s: float = 20) -> dict[str, Any]:
        """Wait until the application has heard, later than a mark, that the demo flag changed."""

        async def told() -> dict[str, Any] | None:
            events = await self.heard(CHANGED, after)
            return next((event for event in events if self.flag in (event["flags"] or ())), None)

        return await until("PROVIDER_CONFIGURATION_CHANGED with the flag", told, deadline_s)

    async def is_calm(self, deadline_s: float = 30) -> None:
        """Wait until the status is READY, and stays so: no trouble was told that the application has yet to act on."""

        async def calm() -> bool:
            names = [event["name"] for event in await self.app.call("heard")]
            since = names[max((at for at, name in enumerate(names) if name == "PROVIDER_RECONCILING"), default=0) :]
            return await self.status() == "READY" and TROUBLE.isdisjoint(since)

        await until("the status READY for good", calm, deadline_s)

    async def was_told_of_the_new_values(self) -> bool:
        """Tell whether, after the last attempt that failed, any event made the application look again."""
        events = await self.app.call("heard")
        failed = max(at for at, event in enumerate(events) if event["name"] == "PROVIDER_ERROR")
        since = events[failed + 1 :]
        # The attempt that failed ends with an event of its own.
        own = next((at for at, event in enumerate(since) if event["name"] == CONTEXT_CHANGED), -1)
        return any(event["name"] in {CHANGED, CONTEXT_CHANGED} for event in since[:own] + since[own + 1 :])

    async def asked(self, bulks: int) -> None:
        """Wait until there were so many bulk requests."""

        async def enough() -> bool:
            return self.proxy.count("bulk") >= bulks

        await until(f"{bulks} bulk requests", enough)

    async def answered(self, bulks: int) -> None:
        """Wait until so many bulk requests had an answer that is not an error."""

        async def enough() -> bool:
            counts = self.proxy.counts()
            return counts["bulk 200"] + counts["bulk 304"] >= bulks

        await until(f"{bulks} answered bulk requests", enough)

    async def streams(self, opened: int, deadline_s: float = 20) -> None:
        """Wait until so many streams were opened."""

        async def enough() -> bool:
            return self.proxy.counts()["stream 200"] >= opened

        await until(f"{opened} streams", enough, deadline_s)

    async def hears(self, name: str, after: int = 0) -> None:
        """Wait until the application has heard an event."""

        async def event() -> bool:
            return bool(await self.heard(name, after))

        await until(name, event)

    async def set(self, *, enabled: bool) -> None:
        """Switch the demo flag."""
        await self.pair.toggle(enabled=enabled)

    async def set_and_told(self, *, enabled: bool) -> float:
        """Switch the demo flag, wait until the application has heard of it, return how many seconds that took."""
        mark = await self.mark()
        started_s = time.monotonic()
        await self.set(enabled=enabled)
        await self.is_told(mark)
        took_s = time.monotonic() - started_s
        assert await self.value() is enabled
        return took_s

    async def still_hears(self, *, enabled: bool) -> None:
        """Make one more change: it must reach the application through the stream with one request, as ever."""
        self.proxy.forget()
        assert await self.set_and_told(enabled=enabled) <= 1
        assert self.proxy.count("bulk") == 1
        assert self.proxy.count("stream") == 0

    async def is_ready_with_the_applications_help(self) -> None:
        """Show that the provider is STALE for good by itself, and READY after one question with `keepReady`."""
        assert await self.status() == "STALE"
        self.proxy.forget()
        await self.app.call("keepReady")
        await self.is_calm()
        self.report("until READY")
        assert self.proxy.count("bulk") == 1
        assert self.proxy.count("stream") == 0

    def report(self, what: str) -> None:
        """Print the requests so far."""
        self.note(f"{what}: {dict(sorted(self.proxy.counts().items()))}")

    def note(self, what: str) -> None:
        """Print a measured figure."""
        print(f"{self.where}: {what}")  # noqa: T201 - figures for whoever runs the tests


@asynccontextmanager
async def world(where: Where, data_dir: Path) -> AsyncIterator[World]:
    """Start everything; the application is there but has no provider yet."""
    node()
    if where is Where.CHROMIUM:
        chromium()
    async with WebPair.started(data_dir) as pair, page_server() as origin, Proxy.to(pair.relay_url) as proxy:
        key = await driver.new_client_key(pair, origin)
        async with driver.app_in(where, origin) as app:
            yield World(where, pair, proxy, app, key, origin)
