"""Streams whose connection is held without a request behind it, over real sockets: how they begin, go on and end."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any, cast

import orjson
import pytest

from relay.protocol.keys import Kind
from relay.protocol.sse import SseEvent, SseParser
from relay.serve.blocked import Blocked
from relay.serve.holding import HoldingProtocol
from relay.serve.turnstile import PER_TURN, Turnstile
from relay.settings import Serve, Streams
from tests.clocks import FakeClock, settle
from tests.relay.live import Live, context_parameter, data, serving, until
from tests.relay.objects import flag
from tests.relay.world import World

PATH = f"/api/v2/client/stream?context={context_parameter()}"
DEADLINE_S = 5.0


def unchunked(raw: bytes) -> tuple[bytes, bool]:
    """Return what stands in the whole chunks of an answer, and whether the last one has come."""
    body = b""
    while (end := raw.find(b"\r\n")) > 0:
        size = int(raw[:end], 16)
        chunk, raw = raw[end + 2 : end + 2 + size], raw[end + 2 + size :]
        if not raw.startswith(b"\r\n"):
            break
        if size == 0:
            assert raw == b"\r\n"
            return body, True
        body, raw = body + chunk, raw[2:]
    return body, False


class Raw:
    """A client that speaks bytes and reads only when told to. `raw` is what came behind the head."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.raw = b""

    @property
    def body(self) -> bytes:
        """What the stream itself has said."""
        return unchunked(self.raw)[0] if b"chunked" in self.head else self.raw

    async def begin(self) -> None:
        """Read the answer's head."""
        async with asyncio.timeout(DEADLINE_S):
            self.head = await self.reader.readuntil(b"\r\n\r\n")

    async def until(self, count: int) -> list[SseEvent]:
        """Read until so many events have come."""
        async with asyncio.timeout(DEADLINE_S):
            while len(events := SseParser().feed(self.body)) < count:
                part = await self.reader.read(65_536)
                assert part, "the stream ended"
                self.raw += part
        return events

    async def end(self) -> list[SseEvent]:
        """Read to the end, be it orderly or not."""
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                while part := await self.reader.read(65_536):
                    self.raw += part
        return SseParser().feed(self.body)


def request(world: World, method: str = "GET", more: bytes = b"", path: str = PATH) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.keys[Kind.CLIENT]}\r\n"
    return head.encode() + more + b"\r\n"


@asynccontextmanager
async def raw(live: Live, sent: bytes) -> AsyncIterator[Raw]:
    """Connect with a small receive buffer and say something."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connected.setblocking(False)  # noqa: FBT003 - the standard library's signature
    await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", live.port))
    reader, writer = await asyncio.open_connection(sock=connected, limit=2_048)
    client = Raw(reader, writer)
    try:
        writer.write(sent)
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def on_fake_time(**streams: float) -> AsyncIterator[Live]:
    """Serve one large flag on a clock that the test turns."""
    world = World(FakeClock(), Serve(streams=Streams(**streams)))  # type: ignore[arg-type]
    world.snapshot({"big": large(0)})
    async with serving(world) as live:
        yield live


def large(number: int) -> dict[str, object]:
    return flag(on=str(number) + "x" * 200_000, off="")


async def stuck(live: Live) -> None:
    """Wait until the server has noticed that one client takes nothing."""
    await until(lambda: live.world.services.streams.blocked == 1, "the client's buffers to be full")


async def forgotten(live: Live) -> None:
    await until(lambda: not live.world.services.streams.counts(), "the stream's end")


# --- beginning --------------------------------------------------------------------------------------------------------


async def test_an_open_stream_costs_no_task_and_no_request(live: Live) -> None:
    """What made the request possible is freed as soon as the stream is open, without a collection."""
    before = len(asyncio.all_tasks())
    made: list[weakref.ref[HoldingProtocol]] = []
    begin = HoldingProtocol.on_message_begin

    def noted(self: HoldingProtocol) -> None:
        made.append(weakref.ref(self))
        begin(self)

    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HoldingProtocol, "on_message_begin", noted)
            async with raw(live, request(live.world)) as client:
                await client.begin()
                assert [event.event for event in await client.until(1)] == ["put"]
                await until(lambda: len(asyncio.all_tasks()) == before, "the request's task to end")
                assert [each() for each in made] == [None]
    finally:
        gc.enable()
    await forgotten(live)


async def test_the_answer_comes_in_chunks_and_ends_with_its_connection(live: Live) -> None:
    """Readers that know neither chunks nor a length wait until a buffer of theirs is full."""
    async with raw(live, request(live.world)) as client:
        await client.begin()
        head = client.head.lower()
        assert head.startswith(b"http/1.1 200 ok\r\n")
        assert b"\r\nconnection: close\r\n" in head
        assert b"\r\ntransfer-encoding: chunked\r\n" in head
        assert b"content-length" not in head
        await client.until(1)
        await live.world.services.streams.goodbye_all("drain", 0)
        assert [event.event for event in await client.end()] == ["put", "goodbye"]
        assert unchunked(client.raw)[1], "the last chunk"
        assert client.body.startswith(b"retry: ")


async def test_who_speaks_http_1_0_gets_no_chunks(live: Live) -> None:
    """Its answers end with the connection, and it is told of changes as all others are."""
    async with raw(live, request(live.world).replace(b"HTTP/1.1", b"HTTP/1.0")) as client:
        await client.begin()
        assert b"transfer-encoding" not in client.head.lower()
        await client.until(1)
        live.world.commit({"beta": flag(enabled=False)})
        assert [event.event for event in await client.until(2)] == ["put", "patch"]
        assert client.raw.startswith(b"retry: ")


async def test_a_posted_stream_is_held_too(live: Live) -> None:
    """The context came in the body; the answer is the same."""
    body = orjson.dumps({"context": {"plan": "pro"}})
    sent = request(live.world, "POST", b"Content-Length: %d\r\n" % len(body), "/api/v2/client/stream") + body
    async with raw(live, sent) as client:
        await client.begin()
        assert [event.event for event in await client.until(1)] == ["put"]


async def test_head_is_refused_and_the_connection_goes_on(live: Live) -> None:
    """A stream has no HEAD; the next request on the connection is answered."""
    async with raw(live, request(live.world, "HEAD") + request(live.world)) as client:
        await client.begin()
        assert client.head.startswith(b"HTTP/1.1 405 ")
        await client.begin()
        assert client.head.startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_left_while_its_stream_was_opened_is_forgotten(live: Live) -> None:
    """It may go at any moment before the answer begins."""
    for _ in range(20):
        async with raw(live, request(live.world)) as client:
            client.writer.transport.abort()
    await until(lambda: live.world.metrics.streams_opened.value("client") or not live.world.services.streams.counts())
    await forgotten(live)


# --- what a client says afterwards ------------------------------------------------------------------------------------


async def test_what_is_said_behind_the_request_is_dropped(live: Live) -> None:
    """A pipelined request is not answered: the answer before it ends with the connection."""
    async with raw(live, request(live.world) + request(live.world)) as client:
        await client.begin()
        await client.until(1)
        client.writer.write(b"anything\r\n\r\n" * 10)
        live.world.commit({"beta": flag(enabled=False)})
        events = await client.until(2)
        assert [event.event for event in events] == ["put", "patch"]
        assert b"HTTP/1.1" not in client.body
    assert live.world.metrics.streams_opened.value("client") == 1


async def test_a_client_that_goes_on_talking_is_cut(live: Live) -> None:
    """What is dropped has a maximum."""
    async with raw(live, request(live.world)) as client:
        await client.begin()
        await client.until(1)
        client.writer.write(b"x" * 100_000)
        await forgotten(live)
        await client.end()


async def test_a_client_that_shuts_its_side_is_gone(live: Live) -> None:
    """A proxy passes on that its client has left by shutting its side."""
    async with raw(live, request(live.world)) as client:
        await client.begin()
        await client.until(1)
        client.writer.write_eof()
        await forgotten(live)
        assert live.world.services.streams.blocked == 0


# --- clients that do not take what is written -------------------------------------------------------------------------


async def test_a_frame_larger_than_all_buffers_arrives_whole(live: Live) -> None:
    """What the kernel does not take is sent as the client reads, and what came up meanwhile behind it."""
    live.world.commit({"big": large(1)})
    async with raw(live, request(live.world)) as client:
        await client.begin()
        await stuck(live)
        live.world.commit({"big": large(2)})
        live.world.commit({"big": large(3)})
        put, patch = await client.until(2)
        assert len(put.data) > 200_000
        assert data(patch)["flags"]["big"]["value"] == "3" + "x" * 200_000
        assert live.world.services.streams.blocked == 0


async def test_a_client_that_takes_nothing_is_cut_by_its_deadline() -> None:
    """The connection is aborted, whatever is left over for it, and counted as slow."""
    async with on_fake_time(send_deadline_s=10) as live, raw(live, request(live.world)):
        await stuck(live)
        await live.world.fake.advance(9.8)
        assert live.world.services.streams.counts() == {"client": 1}
        await live.world.fake.advance(0.4)
        await forgotten(live)
        assert live.world.metrics.goodbyes.value("client", "slow") == 1


async def test_a_client_that_goes_amid_a_frame_is_forgotten_with_what_it_was_owed() -> None:
    """Nothing is left of it but the counts."""
    async with on_fake_time() as live, raw(live, request(live.world)) as client:
        await stuck(live)
        client.writer.transport.abort()
        await forgotten(live)
        assert live.world.services.streams.blocked == 0
        assert live.world.metrics.goodbyes.total() == 0


async def test_goodbye_comes_behind_what_a_busy_client_is_owed() -> None:
    """It is told as soon as the client has taken the rest."""
    async with on_fake_time() as live, raw(live, request(live.world)) as client:
        await client.begin()
        await stuck(live)
        leaving = asyncio.create_task(live.world.services.streams.goodbye_all("drain", 0))
        assert [event.event for event in await client.end()] == ["put", "goodbye"]
        await live.world.fake.advance(2)
        await leaving


async def test_a_drain_ends_without_those_who_take_nothing() -> None:
    """After the last goodbye they are cut."""
    async with on_fake_time() as live, raw(live, request(live.world)):
        await stuck(live)
        leaving = asyncio.create_task(live.world.services.streams.goodbye_all("drain", 0))
        await live.world.fake.advance(2)
        await leaving
        await forgotten(live)


async def test_the_server_stops_although_a_stream_takes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has said goodbye: the connection is cut after the limit, and the registry hears of it."""
    world = World(FakeClock())
    world.snapshot({"big": large(0)})
    async with serving(world) as live, raw(live, request(world)):
        await stuck(live)
        assert live.server.connections == 1
        await live.server.stop(0.01)
        await forgotten(live)
        assert live.server.connections == 0
    assert "cutting connections" in caplog.text


async def test_a_stopping_server_leaves_streams_their_goodbye(live: Live) -> None:
    """The listener closes first; the streams go on until they are sent away."""
    async with raw(live, request(live.world)) as client:
        await client.begin()
        await client.until(1)
        await live.server.stop_accepting()
        await settle()
        live.world.commit({"beta": flag(enabled=False)})
        assert [event.event for event in await client.until(2)] == ["put", "patch"]


# --- what may wait for all of them ------------------------------------------------------------------------------------


async def test_while_too_much_waits_for_others_no_stream_begins(live: Live) -> None:
    """A storm of clients that do not take their first frames costs bounded memory; who is there already goes on."""
    streams = live.world.services.streams
    async with raw(live, request(live.world)) as present:
        await present.begin()
        await present.until(1)
        live.world.commit({"big": large(0)})
        await until(lambda: streams.blocked == 1)
        await present.until(2)
        streams._settings = streams._settings.model_copy(update={"waiting_bytes": 100_000})
        async with raw(live, request(live.world)) as greedy:
            await until(lambda: streams.blocked == 1)
            refused = [await live.refused(PATH) for _ in range(8)]
            assert {(each.status, each.json["code"]) for each in refused} == {(503, "opening_too_many_streams")}
            waits = {int(each.headers["retry-after"]) for each in refused}
            assert len(waits) > 1
            assert min(waits) >= 1
            live.world.commit({"beta": flag(enabled=False)})
            assert [event.event for event in await present.until(3)][2] == "patch"
            await greedy.begin()
            await greedy.until(1)
        assert live.world.metrics.streams_postponed.total() == 8
        async with raw(live, request(live.world)) as later:
            await later.begin()
            assert b" 200 " in later.head


class Waiting:
    """A stream of which somebody else says how much waits for its client."""

    def __init__(self) -> None:
        self.waiting_bytes = 0


def test_who_comes_on_gets_another_deadline_and_who_creeps_does_not() -> None:
    """A long frame on a thin line goes on; a byte a second is as good as nothing. The sum follows."""
    blocked = Blocked(10)
    thin, creeping = cast("Any", Waiting()), cast("Any", Waiting())
    blocked.add(thin, 0, 100_000)
    blocked.add(creeping, 0, 100_000)
    assert blocked.overdue(9.9) == []
    thin.waiting_bytes, creeping.waiting_bytes = 80_000, 99_990
    assert blocked.overdue(10) == [creeping]
    assert (len(blocked), blocked.waiting_bytes) == (1, 80_000)
    assert blocked.overdue(19.9) == []
    assert blocked.overdue(20) == [thin]
    assert (len(blocked), blocked.waiting_bytes) == (0, 0)


# --- a storm ----------------------------------------------------------------------------------------------------------


async def test_streams_that_arrive_together_begin_a_few_in_each_turn() -> None:
    """In their order, however many there are; one that fails takes nobody's turn."""
    turnstile, begun = Turnstile(), list[int]()

    def begin(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise RuntimeError

    loop, heard = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, what: heard.append(what["exception"]))
    for number in range(20):
        turnstile.enter(partial(begin, number))
    counts = []
    while len(turnstile):
        await asyncio.sleep(0)
        counts.append(len(begun))
    assert begun == list(range(20))
    assert max(after - before for before, after in pairwise([0, *counts])) == PER_TURN
    assert len(heard) == 1


async def test_a_request_that_ended_before_its_turn_is_not_begun(live: Live) -> None:
    """Nothing is evaluated for who has left while waiting."""
    held: list[Callable[[], None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Turnstile, "enter", lambda _, begin: held.append(begin))
        async with raw(live, request(live.world)) as client:
            await until(lambda: held)
            client.writer.transport.abort()
            await until(lambda: live.server.connections == 0)
    held[0]()
    await settle()
    assert live.world.metrics.streams_opened.value("client") == 0


class Woken:
    """A connection that stands aside; its other end is `client`."""

    def __init__(self, woken: list["Woken"]) -> None:
        self.client, self._server = socket.socketpair()
        self.descriptor = self._server.fileno()
        self._woken = woken

    def wake(self) -> None:
        self._woken.append(self)

    def close(self) -> None:
        self.client.close()
        self._server.close()


async def test_streams_that_end_together_are_heard_of_a_few_in_each_turn() -> None:
    """Each of them once, and none that was forgotten before."""
    turnstile, woken = Turnstile(), list[Woken]()
    connections = [Woken(woken) for _ in range(3 * PER_TURN)]
    for each in connections:
        turnstile.stand_aside(each)
    turnstile.forget(connections[0])
    for each in connections:
        each.client.close()
    counts = [0]
    while len(woken) < len(connections) - 1:
        await asyncio.sleep(0)
        counts.append(len(woken))
    await asyncio.sleep(0)
    assert set(woken) == set(connections[1:])
    assert len(woken) == len(connections) - 1
    assert max(after - before for before, after in pairwise(counts)) <= PER_TURN
    turnstile.close()
    for each in connections:
        each.close()
