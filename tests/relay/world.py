"""A relay's serving part without the rest of a relay: a store that a test fills, and the app over it, in process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from relay.clock import Clock, rfc3339
from relay.errors import Problem
from relay.events.intake import Accepted
from relay.metrics import RelayMetrics
from relay.protocol.changes import Applied, ChangeSet, Snapshot
from relay.protocol.events import Event
from relay.protocol.hashing import canonical
from relay.protocol.keys import Kind
from relay.protocol.sse import SseEvent, SseParser
from relay.protocol.state import EnvironmentRef, State, build_state, change_between
from relay.serve.app import build_app
from relay.serve.guard import AsgiApp
from relay.serve.outlet import EXTENSION
from relay.serve.services import History, Services, serve_with
from relay.settings import Serve
from relay.sync.configuration import Configuration
from relay.sync.store import Origin, Store
from tests.clocks import FakeClock, settle
from tests.relay.objects import EPOCH, Json, credential, new_key, reference


class Counts:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str | None, str, str, int, str | None]] = []

    def count(  # noqa: PLR0917 - as the seam has it
        self,
        environment_id: str,
        flag_id: str,
        variation: str | None,
        reason: str,
        source: str,
        n: int = 1,
        error_code: str | None = None,
    ) -> None:
        self.rows.append((environment_id, flag_id, variation, reason, source, n, error_code))


@dataclass
class Shelf:
    """An intake that keeps events in a list, or refuses with a problem."""

    events: list[tuple[str, Event]] = field(default_factory=list)
    refusal: Problem | None = None

    async def accept(self, environment_id: str, events: Sequence[Event]) -> Accepted:
        if self.refusal is not None:
            raise self.refusal
        known = {event.id for _, event in self.events}
        fresh = [event for event in events if event.id not in known]
        self.events += [(environment_id, event) for event in fresh]
        return Accepted(len(fresh), len(events) - len(fresh))


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def scope_of(method: str, target: str, headers: dict[str, str]) -> Json:
    """Return the ASGI scope of a request."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


class Connection:
    """An open stream held by a client in process, which may stop taking bytes; also what the server lends of it."""

    def __init__(self, app: AsgiApp, target: str, headers: dict[str, str]) -> None:
        self.started: Json = {}
        self.raw = b""
        self.is_complete = False
        self.aborts = 0
        self.send_buffer_bytes: int | None = None
        self.stops_after_bytes: int | None = None
        self._takes = asyncio.Event()
        self._takes.set()
        self._gone = asyncio.Event()
        self._asked = False
        self.scope = scope_of("GET", target, headers) | {"extensions": {EXTENSION: self}}
        self.task = asyncio.create_task(self._run(app))

    async def _run(self, app: AsgiApp) -> None:
        await app(self.scope, self._receive, self._send)

    async def _receive(self) -> Json:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self._takes.wait()
        if message["type"] == "http.response.start":
            self.started = dict(message)
            return
        self.raw += message.get("body", b"")
        if self.stops_after_bytes is not None and len(self.raw) >= self.stops_after_bytes:
            self.stops_after_bytes = None
            self.stop_taking()
        if not message.get("more_body"):
            self.is_complete = True
            self._gone.set()

    def abort(self) -> None:
        self.aborts += 1
        self._gone.set()

    def limit_send_buffer(self, send_buffer_bytes: int) -> None:
        self.send_buffer_bytes = send_buffer_bytes

    def stop_taking(self) -> None:
        self._takes.clear()

    def take_again(self) -> None:
        self._takes.set()

    async def leave(self) -> None:
        """Disconnect, and wait until the app has noticed."""
        self._gone.set()
        self._takes.set()
        await self.task

    @property
    def events(self) -> list[SseEvent]:
        """Everything received so far."""
        return SseParser().feed(self.raw)


@dataclass
class World:
    """The store, the services and the app, with one environment and one key of each kind to begin with."""

    clock: Clock
    settings: Serve = field(default_factory=Serve)
    history: History | None = None

    def __post_init__(self) -> None:
        self.store = Store(self.clock, window_changes=5)
        self.counts = Counts()
        self.shelf = Shelf()
        self.metrics = RelayMetrics()
        self.services: Services = serve_with(
            store=self.store,
            intake=self.shelf,
            counters=self.counts,
            settings=self.settings,
            clock=self.clock,
            metrics=self.metrics,
            history=self.history,
        )
        self.app: AsgiApp = build_app(self.services)
        self.keys = {kind: new_key(kind) for kind in Kind}
        self.ref = reference(1, "production")

    @property
    def fake(self) -> FakeClock:
        assert isinstance(self.clock, FakeClock)
        return self.clock

    # --- configuration ----------------------------------------------------------------------------------------------

    def credentials(self, **members: Any) -> dict[str, bytes]:
        """Return the credential objects of the keys; `members` are added to all of them."""
        objects = [credential(raw, kind, **members) for kind, raw in self.keys.items()]
        return {each["id"]: canonical(each) for each in objects}

    def snapshot(
        self,
        flags: dict[str, Json] | None = None,
        *,
        ref: EnvironmentRef | None = None,
        revision: int = 1,
        epoch: str = EPOCH,
        segments: dict[str, Json] | None = None,
        credentials: dict[str, bytes] | None = None,
        reason: str = "start",
        origin: Origin = Origin.UPSTREAM,
    ) -> State:
        """Put a whole environment into the store."""
        state = build_state(
            ref or self.ref,
            epoch,
            revision,
            flags={key: canonical(each) for key, each in (flags or {}).items()},
            segments={key: canonical(each) for key, each in (segments or {}).items()},
            credentials=self.credentials() if credentials is None else credentials,
            limits=b"{}",
            secrets=canonical({"stream_secret": "stream-secret", "secure_mode_secret": "s"}),
        )
        assert isinstance(self.store.apply(Snapshot(state, reason), origin), Applied)
        return state

    def commit(
        self,
        flags: dict[str, Json | None] | None = None,
        *,
        ref: EnvironmentRef | None = None,
        segments: dict[str, Json | None] | None = None,
        credentials: dict[str, bytes] | None = None,
    ) -> ChangeSet:
        """Make the next revision: None removes an object; `credentials` replaces all of them."""
        before = self.configuration(ref).state
        after = build_state(
            before.ref,
            before.epoch,
            before.revision + 1,
            flags=_amended(before.flags, flags or {}),
            segments=_amended(before.segments, segments or {}),
            credentials=before.credentials if credentials is None else credentials,
            limits=before.limits,
            secrets=before.secrets,
        )
        change = change_between(before, after, rfc3339(self.clock.wall_ms()))
        assert isinstance(self.store.apply(change), Applied)
        return change

    def configuration(self, ref: EnvironmentRef | None = None) -> Configuration:
        found = self.store.get((ref or self.ref).id)
        assert found is not None
        return found

    # --- requests ---------------------------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        key: Kind | str | None = Kind.SERVER,
        headers: dict[str, str] | None = None,
        app: AsgiApp | None = None,
    ) -> Answer:
        """Send one request to the app in process; `body` is JSON unless it is bytes."""
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {self.keys[key] if isinstance(key, Kind) else key}"
        raw = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        return await call_asgi(app or self.app, method, target, raw, sent)

    def connect(self, target: str, *, key: Kind | str | None = Kind.CLIENT, **headers: str) -> Connection:
        """Open a stream in process; header names are given with underscores for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {self.keys[key] if isinstance(key, Kind) else key}"
        return Connection(self.app, target, sent)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the registry's two loops running."""
        streams = self.services.streams
        loops = [asyncio.create_task(streams.run_publisher()), asyncio.create_task(streams.run_timers())]
        await settle()
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            streams.close()

    async def evaluate(self, flag_key: str, context: Json | None = None, **options: Any) -> Answer:
        """Ask for one flag through OFREP."""
        return await self.call("POST", f"/ofrep/v1/evaluate/flags/{flag_key}", {"context": context or {}}, **options)


def _amended(before: Any, changes: dict[str, Json | None]) -> dict[str, bytes]:
    kept = {key: raw for key, raw in before.items() if key not in changes}
    return kept | {key: canonical(each) for key, each in changes.items() if each is not None}


async def call_asgi(app: AsgiApp, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Run an app for one request, the way a server does."""
    incoming: list[Json] = [{"type": "http.request", "body": body, "more_body": False}]
    started: Json = {}
    parts: list[bytes] = []

    async def receive() -> Json:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
        else:
            parts.append(message.get("body", b""))

    await app(scope_of(method, target, headers), receive, send)
    shown = {name.decode(): value.decode("latin-1") for name, value in started["headers"]}
    return Answer(started["status"], shown, b"".join(parts))
