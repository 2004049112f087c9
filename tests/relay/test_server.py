"""One listener: its start, its stop, and what it lets a connection do before a request reaches the app."""

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from relay.errors import BadSettings
from relay.metrics import Tally
from relay.serve.outlet import Connection, connection_of
from relay.serve.server import HttpServer, Message, listen
from relay.settings import Limits, Serve

DEADLINE_S = 5.0
SMALL = Limits(header_count=8, header_bytes=1_024, path_bytes=256, query_bytes=256, header_s=0.05)


class App:
    """Answers `ok` with the length of the body; `/slow` waits until it is told to go on; `/refuse` reads no body."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["path"] == "/refuse":
            headers = [(b"content-length", b"7"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": b"refused"})
            return
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        self.entered.set()
        if scope["path"] == "/slow":
            await self.go_on.wait()
        body = f"ok {size}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


class Peer:
    """A client that sends exactly the bytes it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next answer."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


class Running:
    """A started server with its app, and a door to it."""

    def __init__(self, server: HttpServer, app: App, refused: Tally) -> None:
        self.server = server
        self.app = app
        self.refused = refused

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        try:
            yield Peer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def running(limits: Limits = SMALL, **settings: Any) -> AsyncIterator[Running]:
    serve = Serve(port=0, limits=limits, **settings)
    app, refused = App(), Tally("refused", "", ("limit",))
    server = HttpServer(app, listen(serve.host, serve.port, serve.backlog, "relay.serve.port"), serve, refused)
    await server.start()
    try:
        yield Running(server, app, refused)
    finally:
        await server.stop(0)


async def test_answers_on_the_port_that_it_took() -> None:
    """Port 0 takes a free one, which is known before anything is served; connections are kept alive."""
    async with running() as up, up.peer() as peer:
        assert up.server.port > 0
        for _ in range(2):
            await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")
            status, headers, body = await peer.answer()
            assert (status, body) == (200, b"ok 3")
            assert "date" in headers
            assert "server" not in headers


async def test_port_in_use() -> None:
    """A port that is taken is a problem of the setting that names it."""
    with listen("127.0.0.1", 0, 16, "relay.serve.port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings) as caught:
            listen("127.0.0.1", port, 16, "relay.serve.port")
    assert caught.value.problems == (f"relay.serve.port: cannot listen on 127.0.0.1:{port}: Address already in use",)


async def test_unknown_host() -> None:
    """An address that is none is a problem of the setting too."""
    with pytest.raises(BadSettings, match=r"relay\.serve: cannot listen on 300\.0\.0\.1:80"):
        listen("300.0.0.1", 80, 16, "relay.serve")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9 + b"\r\n", 431, "too_many_headers"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 1_100 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"x" * 600 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, "uri_too_long"),
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nhost: a", 408, "header_timeout"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 9_000, 431, "headers_too_large"),
        (b"\r\n", 408, "header_timeout"),
    ],
)
async def test_broken_heads_get_a_problem_and_are_cut(request_bytes: bytes, status: int, code: str) -> None:
    """Too many, too large, too slow or no HTTP: one JSON problem, counted, then the connection ends (F38)."""
    async with running() as up, up.peer() as peer:
        await peer.send(request_bytes)
        found, headers, body = await peer.answer()
        assert (found, headers["content-type"]) == (status, "application/problem+json")
        problem = json.loads(body)
        assert (problem["status"], problem["code"]) == (status, code)
        assert len(problem["request_id"]) == 32
        assert await peer.is_closed()
        assert up.refused.value(code) == 1


async def test_what_follows_a_refusal_is_not_read() -> None:
    """A connection that is being ended takes no further bytes."""
    async with running() as up, up.peer() as peer:
        await peer.send(b"nonsense\r\n\r\n")
        await peer.send(b"GET / HTTP/1.1\r\n\r\n")
        status, _, _ = await peer.answer()
        assert status == 400
        assert not up.app.entered.is_set()


async def test_a_slow_body_is_the_apps_business() -> None:
    """The head's deadline does not run while a body comes in pieces, and runs again for the next request."""
    async with running() as up, up.peer() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nhost")
        await peer.send(b": a\r\ncontent-length: 4\r\n\r\nab")
        loop = asyncio.get_running_loop()
        later = asyncio.Event()
        loop.call_later(SMALL.header_s * 2, later.set)
        await later.wait()
        await peer.send(b"cd")
        assert (await peer.answer())[2] == b"ok 4"
        await peer.send(b"GET /half HTTP/1.1\r\n")
        assert (await peer.answer())[0] == 408
        assert up.refused.value("header_timeout") == 1


async def test_a_refusal_can_be_read_by_a_client_that_is_still_sending() -> None:
    """A body that is refused unread does not reset the connection before the client has read why."""
    size = 8 << 20
    async with running() as it, it.peer() as peer:
        await peer.send(b"POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        status, _, body = await peer.answer()
        assert (status, body) == (413, b"refused")
        assert await peer.is_closed()


async def test_a_bad_head_behind_a_running_request_does_not_break_its_answer() -> None:
    """Bytes of a refusal are never written into another answer; the connection just ends."""
    async with running() as up, up.peer() as peer:
        await peer.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(up.app.entered.wait(), DEADLINE_S)
        await peer.send(b"nonsense\r\n\r\n")
        assert await peer.is_closed()
        assert up.refused.value("bad_request") == 1


async def test_a_wish_to_upgrade_is_ignored() -> None:
    """Clients that offer HTTP/2 by upgrade, as Java's does on its first request, are answered in HTTP/1.1."""
    head = (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: A\r\n\r\n"
    )
    async with running() as up, up.peer() as peer:
        await peer.send(head)
        assert (await peer.answer())[0] == 200
        await peer.send(head + b"GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
        assert [(await peer.answer())[0], (await peer.answer())[0]] == [200, 200]


async def test_too_many_connections() -> None:
    """Over the limit a connection's request is answered 503 with Retry-After; within it nothing changes."""
    limits = Limits(connections=16)
    async with running(limits) as up, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(up.peer()) for _ in range(16)]
        for peer in peers:
            await peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await peer.answer())[0] == 200
        async with up.peer() as late:
            await late.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            status, headers, _ = await late.answer()
            assert (status, headers["retry-after"]) == (503, "1")
        await peers[0].send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await peers[0].answer())[0] == 200


async def test_silent_connections_are_closed() -> None:
    """A connection that never says anything is closed after the keep-alive time."""
    async with running(keep_alive_s=1) as up, up.peer() as peer:
        up.server._server.config.timeout_keep_alive = 0  # else the test would wait for a second
        async with up.peer() as impatient:
            assert await impatient.is_closed()
        assert not peer.reader.at_eof()


async def test_a_stream_may_bound_and_abort_its_connection() -> None:
    """The scope lends the connection, so that a stream can keep the kernel's buffer small and cut a stuck client."""
    lent: list[Connection] = []

    async def stream(scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        lent.append(connection_of(scope))
        lent[0].limit_send_buffer(16_384)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with running() as up:
        up.server._server.config.loaded_app = stream
        async with up.peer() as peer:
            await peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"200 OK" in await asyncio.wait_for(peer.reader.readuntil(b"begin\r\n"), DEADLINE_S)
            lent[0].abort()
            assert await peer.is_closed()


async def test_stop_accepting_lets_running_requests_end() -> None:
    """After the listener closed, a request under way is answered, then its connection ends; idle ones at once."""
    async with running() as up, up.peer() as busy, up.peer() as idle:
        await idle.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await idle.answer())[0] == 200
        up.app.entered.clear()
        await busy.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(up.app.entered.wait(), DEADLINE_S)
        await up.server.stop_accepting()
        assert not up.server.is_accepting
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(up.server.host, up.server.port)
        assert await idle.is_closed()
        up.app.go_on.set()
        assert (await busy.answer())[0] == 200
        assert await busy.is_closed()


async def test_stop_cuts_what_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    """A request that outlives the limit is cancelled and its connection cut, with a log line."""
    caplog.set_level(logging.WARNING, "relay")
    async with running() as up, up.peer() as peer:
        await peer.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(up.app.entered.wait(), DEADLINE_S)
        await up.server.stop(0.01)
        assert await peer.is_closed()
        assert up.server.connections == 0
    assert "cutting connections" in caplog.text


def test_the_internals_of_uvicorn_that_are_used() -> None:
    """What is overridden or called exists as it is expected; a new version of uvicorn that changes it fails here."""
    assert uvicorn.__version__.startswith("0.54.")
    for name in ("connection_made", "connection_lost", "data_received", "on_message_begin", "on_url", "on_header",
                 "on_headers_complete", "on_response_complete", "shutdown", "timeout_keep_alive_handler",
                 "_unset_keepalive_if_required"):  # fmt: skip
        assert callable(getattr(HttpToolsProtocol, name)), name
    assert list(inspect.signature(HttpToolsProtocol).parameters) == ["config", "server_state", "app_state", "_loop"]
    assert {"startup", "main_loop", "on_tick"} <= set(dir(uvicorn.Server))
    server = uvicorn.Server(uvicorn.Config(App(), lifespan="off", log_config=None))
    assert {"connections", "tasks", "default_headers"} <= set(vars(server.server_state))
