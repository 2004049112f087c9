"""The same environment served twice: once with the hot lane, once with the app alone; and what tells them apart.

Both get the same bytes, in memory or through a socket. Their answers are compared as parsed: status, header fields in
their order, body. The values of the date and of the request id are masked, for no two answers share them; a gzipped
body is compared as what it holds.
"""

import asyncio
import contextlib
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import uvicorn
from uvicorn.server import ServerState

from relay.clock import rfc3339
from relay.events.counters import Counters
from relay.protocol.events import CounterRow, parse_record
from relay.protocol.keys import Kind
from relay.serve.hot_lane import HotProtocol
from relay.serve.http_limits import LimitedProtocol
from relay.serve.lane import Lane
from relay.serve.server import HttpServer, listen
from relay.serve.turnstile import Turnstile
from relay.settings import Events, Serve
from relay.settings import Lane as LaneSettings
from tests.clocks import FakeClock, settle
from tests.relay.objects import SPLIT, Json, equals, flag, ramp, rule
from tests.relay.world import World

DATE = [(b"date", b"Sat, 28 Nov 2026 12:00:00 GMT")]
START_MS = 1_790_000_000_000
SENTINEL = b"GET /sentinel HTTP/1.1\r\nhost: a\r\n\r\n"
ROUTES = {
    "single": ("/ofrep/v1/evaluate/flags/beta", {"context": {"targetingKey": "u"}}),
    "bulk": ("/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "u"}}),
    "evaluate": ("/api/v2/evaluate", {"flag": "beta", "context": {"targetingKey": "u"}}),
    "bootstrap": ("/api/v2/bootstrap", {"context": {"targetingKey": "u"}}),
}


def flags() -> dict[str, Json]:
    """Return one flag of every kind that is answered in a way of its own."""
    return {
        "beta": flag(),
        "off": flag(enabled=False),
        "text": flag(on="a", off="b", rules=[rule(equals("country", "NL"))], fallthrough={"variation": "off"}),
        "object": flag(on={"a": [1, 2.5, None]}, off={}),
        "split": flag(fallthrough=SPLIT, metadata={"team": "x", "tier": 2}),
        "private": flag(client_side=False),
        "quiet": flag(analytics=False),
        "no-off": {**flag(enabled=False), "off": None},
        "needs-off": flag(prerequisites=[{"flag": "off", "variations": ["on"]}]),
        "needs-private": flag(prerequisites=[{"flag": "private", "variations": ["off"]}]),
        "stuck": flag(prerequisites=[{"flag": "stuck", "variations": ["on"]}]),
        "ramp": flag(fallthrough=ramp(START_MS + 5_000, every_s=60)),
        "ümlaut/ä": flag(),
    }


class Answer(NamedTuple):
    """One answer with what differs by nature masked."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def answers_in(raw: bytes) -> tuple[list[Answer], bytes]:
    """Return the answers that bytes hold, and what is left over."""
    found = []
    while b"\r\n\r\n" in raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        pairs = [tuple(field.split(": ", 1)) for field in fields]
        length = next((int(value) for name, value in pairs if name == "content-length"), 0)
        if len(rest) < length:
            break
        body, differing = rest[:length], {"date", "x-request-id"}
        if b'"request_id":"' in body:
            differing.add("content-length")  # the ids need not be of one length
            body = orjson.dumps({name: value for name, value in orjson.loads(body).items() if name != "request_id"})
        if ("content-encoding", "gzip") in pairs:
            body = gzip.decompress(body)
            differing.add("content-length")
        masked = tuple((name, "…" if name in differing else value) for name, value in pairs)
        found.append(Answer(int(line.split()[1]), masked, body))
        raw = rest[length:]
    return found, raw


class Transport(asyncio.Transport):
    """A connection's other end, in memory."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__()
        self.peer = peer
        self.written = b""
        self.writes = 0
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.writes += 1
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": (self.peer, 1), "sockname": ("127.0.0.1", 1)}.get(name, default)


class Sink:
    """Where counts are flushed to."""

    def __init__(self) -> None:
        self.rows: list[CounterRow] = []

    async def append(self, records: Sequence[bytes]) -> None:
        for record in records:
            row = parse_record(orjson.loads(record))
            assert isinstance(row, CounterRow)
            self.rows.append(row)


Row = tuple[str, str, str | None, str, str, str | None]


class Way:
    """One of the two: a world, a server's state, and everything that was counted."""

    def __init__(self, world: World, lane: Lane | None, counters: Counters, sink: Sink) -> None:
        self.world = world
        self.lane = lane
        self.counters = counters
        self.sink = sink
        self.peer = "127.0.0.1"
        self.state = ServerState()
        self.state.default_headers = DATE
        self._config = uvicorn.Config(world.app, lifespan="off", log_config=None, access_log=False)
        self._config.load()

    def connection(self) -> "Line":
        settings, refused = self.world.settings, self.world.metrics.refused_connections
        common: Json = {"limits": settings.limits, "refused": refused, "turnstile": Turnstile()}
        loop, config = asyncio.get_running_loop(), self._config
        protocol = (
            LimitedProtocol(config, self.state, {}, loop, **common)
            if self.lane is None
            else HotProtocol(config, self.state, {}, loop, lane=self.lane, **common)
        )
        return Line(protocol, self.peer)

    async def counted(self) -> Counter[Row]:
        """Return what was counted until now, by row without its minute."""
        await self.counters.flush()
        found = Counter[Row]()
        for environment, name, variation, reason, source, n, error in self.world.counts.rows:
            found[environment, name, variation, str(reason), source, error and str(error)] += n
        for row in self.sink.rows:
            key = row.environment_id, row.flag_id, row.variation, row.reason, row.source, row.error_code
            found[key] += row.count
        return found

    def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        return {
            "requests": dict(self.world.metrics.requests._counts),
            "evaluations": dict(self.world.metrics.evaluations._counts),
        }

    @property
    def in_lane(self) -> dict[tuple[str, ...], float]:
        """How many requests the lane has answered, by route and outcome."""
        return dict(self.world.metrics.lane_answers._counts)


class Line:
    """One connection in memory."""

    def __init__(self, protocol: LimitedProtocol, peer: str) -> None:
        self.protocol = protocol
        self.transport = Transport(peer)
        protocol.connection_made(self.transport)

    async def send(self, *segments: bytes) -> None:
        """Deliver segments, each after everything that could happen before it."""
        for segment in segments:
            if segment and not self.transport.closed:
                self.protocol.data_received(segment)
            await settle()

    @property
    def answers(self) -> list[Answer]:
        found, rest = answers_in(self.transport.written)
        assert not rest
        return found

    async def close(self) -> None:
        self.protocol.connection_lost(None)
        await settle()


@dataclass
class TwoWays:
    """Both, and their clock."""

    hot: Way
    plain: Way
    clock: FakeClock

    @property
    def ways(self) -> tuple[Way, Way]:
        return self.hot, self.plain

    def come_from(self, peer: str) -> None:
        """Let all connections to come be from this address."""
        for way in self.ways:
            way.peer = peer

    def key(self, kind: Kind = Kind.SERVER) -> str:
        return self.hot.world.keys[kind]

    def request(
        self,
        path: str = "/ofrep/v1/evaluate/flags/beta",
        body: Any = None,
        *,
        kind: Kind = Kind.SERVER,
        headers: Sequence[tuple[str, str]] = (),
        method: str = "POST",
    ) -> bytes:
        """Return a request in strict form; `body` is JSON unless it is bytes."""
        raw = body if isinstance(body, bytes) else orjson.dumps({"context": {}} if body is None else body)
        fields = [("Host", "a"), ("Authorization", f"Bearer {self.key(kind)}"), *headers, ("Content-Length", len(raw))]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + raw

    async def same(self, *segments: bytes, what: str = "") -> list[Answer]:
        """Send the same segments to both; assert that all that shows is the same; return the answers."""
        shown = []
        for way in self.ways:
            line = way.connection()
            await line.send(*segments)
            found, rest = answers_in(line.transport.written)
            shown.append((found, rest, line.transport.closed, line.transport.reading))
            await line.close()
        assert shown[0] == shown[1], what
        assert self.hot.metrics() == self.plain.metrics(), what
        return shown[0][0]

    async def same_counts(self) -> Counter[Row]:
        """Assert that both have counted the same, and return it."""
        hot, plain = await self.hot.counted(), await self.plain.counted()
        assert hot == plain
        return hot

    def snapshot(self, held: dict[str, Json], **options: Any) -> None:
        for way in self.ways:
            way.world.snapshot(held, **options)

    def commit(self, *parts: Any, **options: Any) -> None:
        for way in self.ways:
            way.world.commit(*parts, **options)


def two_ways(held: dict[str, Json] | None = None, settings: Serve | None = None, **lane_settings: Any) -> TwoWays:
    """Return both ways over the same environment, keys and clock."""
    clock, ways = FakeClock(START_MS), []
    given = flags() if held is None else held
    keys = None
    for is_hot in (True, False):
        world = World(clock, settings or Serve())
        keys = world.keys = keys or world.keys
        world.snapshot(given)
        sink = Sink()
        counters = Counters(sink, Events(), clock)
        lane = Lane(world.services, counters, LaneSettings(**lane_settings)) if is_hot else None
        ways.append(Way(world, lane, counters, sink))
    return TwoWays(ways[0], ways[1], clock)


class Peer:
    """A client on a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def answers(self, number: int | None) -> tuple[list[Answer], bool]:
        """Read so many answers, or all until the end; return them and whether the connection has ended."""
        raw = b""
        async with asyncio.timeout(5):
            while number is None or len(answers_in(raw)[0]) < number:
                try:
                    more = await self._reader.read(1 << 16)
                except ConnectionError:
                    more = b""
                if not more:
                    return answers_in(raw)[0], True
                raw += more
        return answers_in(raw)[0], False


@asynccontextmanager
async def served(way: Way, host: str = "127.0.0.1") -> AsyncIterator[HttpServer]:
    """Serve one way on a real socket."""
    listener = listen(host, 0, 16, "relay.serve.port")
    refused = way.world.metrics.refused_connections
    server = HttpServer(way.world.app, listener, way.world.settings, refused, way.lane)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def peer_of(server: HttpServer) -> AsyncIterator[Peer]:
    """Connect."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def expiring(ms: int) -> Json:
    """Return the member of a credential that ends at a moment."""
    return {"expires_at": rfc3339(ms)}
