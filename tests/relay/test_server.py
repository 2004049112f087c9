"""One listener: its start, its stop, and what it lets a connection do before a request reaches the app."""

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.errors import BadSettings, Problem
from relay.metrics import Tally
from relay.serve.http_limits import ANSWERED_BYTES, LimitedProtocol
from relay.serve.outlet import Connection, connection_of
from relay.serve.problems import render
from relay.serve.server import HttpServer, Message, listen
from relay.settings import Limits, Serve
from tests.relay.live import until

DEADLINE_S = 5.0
SMALL = Limits(header_count=8, header_bytes=1_024, path_bytes=256, query_bytes=256, header_s=0.05)

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
WISH = b"host: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: A\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


class App:
    """Answers `ok` with the length of the body; `/slow` waits until it is told to go on.

    `/refuse` and `/early` read no body: the one closes the connection, the other keeps it.
    """

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["path"] == "/refuse":
            headers = [(b"content-length", b"7"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": b"refused"})
            return
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        else:
            return
        self.entered.set()
        if scope["path"] == "/slow":
            await self.go_on.wait()
        body = f"ok {size}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def passed(seconds: float) -> None:
    """Return when so much time has passed, for timers that must not have fired by then."""
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, later.set)
    await later.wait()


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

    @property
    def connection(self) -> LimitedProtocol:
        """The server's side of the only connection that there is."""
        (connection,) = self.server._server.server_state.connections
        return cast("LimitedProtocol", connection)

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
        (b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_request"),
        (CHUNKED + b"zz\r\n", 400, "bad_request"),
        (CHUNKED + b"0\r\na: " + b"x" * 1_100 + b"\r\n\r\n", 431, "headers_too_large"),
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
        await passed(SMALL.header_s * 2)
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


@pytest.mark.parametrize("behind", [b"\x01garbage\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HT", CHUNKED + b"zz\r\n"])
async def test_what_is_broken_behind_a_request_costs_it_nothing(
    behind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is answered in full, also in one segment with the broken bytes; then comes the end, and no error."""
    async with running() as up, up.peer() as peer:
        await peer.send(SLOW + behind)
        await until(lambda: up.refused.total() == 1 and up.app.entered.is_set())
        up.app.go_on.set()
        assert (await peer.answer())[::2] == (200, b"ok 0")
        if behind.startswith(b"POST"):  # its own head was whole, so it has an answer of its own
            assert (await peer.answer())[0] == 400
        assert await peer.is_closed()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_request_behind_the_last_one_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """What is pipelined behind a request that closes the connection is not answered, and nothing is logged."""
    async with running() as up, up.peer() as peer:
        await peer.send(b"GET /refuse HTTP/1.1\r\n\r\nPOST /early HTTP/1.1\r\ncontent-length: 4\r\n\r\nab")
        assert (await peer.answer())[0] == 413
        await peer.send(b"cd")
        assert await peer.is_closed()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("cut", ["nowhere", "before the body", "everywhere"])
async def test_a_wish_to_upgrade_is_ignored(framing: str, cut: str) -> None:
    """Who offers HTTP/2 by upgrade, as Java's client and `curl --http2` do, is answered in HTTP/1.1, with the body."""
    field, body = {
        "length": (b"content-length: 5", b"abcde"),
        "chunked": (b"transfer-encoding: chunked", b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"),
    }[framing]
    head = b"POST / HTTP/1.1\r\n" + WISH + field + b"\r\n\r\n"
    whole = head + body
    segments = {
        "nowhere": [whole],
        "before the body": [head, body],
        "everywhere": [whole[place : place + 1] for place in range(len(whole))],
    }[cut]
    async with running() as up, up.peer() as peer:
        for _ in range(2):
            await peer.send(GET)
            assert (await peer.answer())[::2] == (200, b"ok 0")
            for segment in segments:  # straight to the protocol, because a socket may join what is sent apart
                up.connection.data_received(segment)
                await asyncio.sleep(0)  # the app takes its turn between any two
            assert (await peer.answer())[::2] == (200, b"ok 5")


async def test_pipelined_wishes_to_upgrade() -> None:
    """However many stand in one segment, each is answered, and what follows the last one too."""
    count = 1_100  # more than Python's frames
    async with running() as up, up.peer() as peer:
        await peer.send(GET)
        await peer.answer()
        up.connection.data_received((b"GET / HTTP/1.1\r\n" + WISH + b"\r\n") * count + CHUNKED + b"0\r\n\r\n")
        assert {(await peer.answer())[::2] for _ in range(count + 1)} == {(200, b"ok 0")}


async def test_the_app_sees_a_wish_without_its_field() -> None:
    """All other fields, the method, the target and the version arrive as they were sent."""
    seen: list[Message] = []

    async def app(scope: Message, _receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with running() as up:
        up.server._server.config.loaded_app = app
        async with up.peer() as peer:
            await peer.send(
                b"PUT /a%20b?c=%FF HTTP/1.0\r\n" + WISH + b"X-Twice: 1\r\nX-Twice: \xe9\r\nx-empty:\r\n\r\n"
            )
            assert (await peer.answer())[1]["connection"] == "close"
    (scope,) = seen
    assert (scope["method"], scope["raw_path"], scope["query_string"]) == ("PUT", b"/a%20b", b"c=%FF")
    assert scope["http_version"] == "1.0"
    assert scope["headers"] == [
        (b"host", b"a"),
        (b"connection", b"Upgrade, HTTP2-Settings"),
        (b"http2-settings", b"A"),
        (b"x-twice", b"1"),
        (b"x-twice", b"\xe9"),
        (b"x-empty", b""),
    ]


async def test_the_rest_of_an_answered_request_is_read_away() -> None:
    """A body that comes after its answer has neither the head's size nor its deadline, and the next request works."""
    size = 40_000
    async with running() as up, up.peer() as peer:
        for _ in range(2):
            await peer.send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
            assert (await peer.answer())[0] == 401
            await peer.send(b"x" * (size - 1))
            await passed(SMALL.header_s * 2)
            await peer.send(b"x" + GET)
            assert (await peer.answer())[::2] == (200, b"ok 0")
        assert up.refused.total() == 0


@pytest.mark.parametrize("rest", [b"x" * (ANSWERED_BYTES + 1), b"zz\r\n"])
async def test_the_rest_of_an_answered_request_gets_no_second_answer(rest: bytes) -> None:
    """What is too long or no body ends the connection without a word but the answer's own `connection: close`."""
    framing = b"transfer-encoding: chunked" if rest.startswith(b"z") else b"content-length: 9999999"
    async with running() as up, up.peer() as peer:
        await peer.send(b"POST /early HTTP/1.1\r\nhost: a\r\n" + framing + b"\r\n\r\n")
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (401, "close")
        await peer.send(rest)
        assert await peer.is_closed()


@pytest.mark.parametrize("framing", ["content-length: 2000000", "transfer-encoding: chunked"])
async def test_a_long_body_that_is_read_keeps_the_connection(framing: str) -> None:
    """Only an answer that comes before the end of such a body ends the connection, not the length as such."""
    body = b"x" * 2_000_000 if "length" in framing else b"1\r\nx\r\n0\r\n\r\n"
    async with running() as up, up.peer() as peer:
        await peer.send(f"POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n".encode())
        await peer.send(body)
        status, headers, _ = await peer.answer()
        assert (status, "connection" in headers) == (200, False)
        await peer.send(GET)
        assert (await peer.answer())[0] == 200


async def test_the_rest_of_an_answered_request_has_the_keep_alive_time() -> None:
    """Bytes of the rest do not make that time longer; then the connection ends without a word."""
    async with running() as up, up.peer() as peer:
        await peer.send(GET)
        await peer.answer()
        up.connection.timeout_keep_alive = cast("int", SMALL.header_s)
        await peer.send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n")
        assert (await peer.answer())[0] == 401
        await peer.send(b"x")
        assert await peer.is_closed()


async def test_blank_lines_are_no_request() -> None:
    """They are passed over before a request, do not make the keep-alive time longer, and never get an answer."""
    async with running() as up, up.peer() as peer:
        await peer.send(b"\r\n")
        await passed(SMALL.header_s * 2)
        await peer.send(b"\r\n" + GET)
        assert (await peer.answer())[0] == 200
        assert up.refused.total() == 0
        alarm = up.connection.timeout_keep_alive_task
        up.connection.data_received(b"\r\n")
        assert alarm is not None
        assert up.connection.timeout_keep_alive_task is alarm
        await peer.send(b"\r\n" * ANSWERED_BYTES)
        assert await peer.is_closed()


async def test_a_head_that_begins_behind_a_long_body_is_not_charged_with_it() -> None:
    """A segment may hold the end of one request and the beginning of the next."""
    async with running() as up, up.peer() as peer:
        await peer.send(GET)
        await peer.answer()
        post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n" + b"x" * 9_000
        up.connection.data_received(post + GET[:9])
        up.connection.data_received(GET[9:])
        assert [(await peer.answer())[2] for _ in range(2)] == [b"ok 9000", b"ok 0"]


async def test_an_ofrep_refusal_names_the_key_as_it_was_routed() -> None:
    """The path is unquoted once, by the server."""

    async def refusing(scope: Message, _receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        headers, body = render(Problem(404, "flag_not_found", "There is none."), scope, "id")
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with running() as up:
        up.server._server.config.loaded_app = refusing
        async with up.peer() as peer:
            await peer.send(b"POST /ofrep/v1/evaluate/flags/a%2541%2Fb HTTP/1.1\r\nhost: a\r\n\r\n")
            assert json.loads((await peer.answer())[2])["key"] == "a%41/b"


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
                 "on_headers_complete", "on_message_complete", "on_response_complete", "shutdown",
                 "timeout_keep_alive_handler", "_unset_keepalive_if_required", "_should_upgrade",
                 "_start_asgi_task"):  # fmt: skip
        assert callable(getattr(HttpToolsProtocol, name)), name
    assert list(inspect.signature(HttpToolsProtocol).parameters) == ["config", "server_state", "app_state", "_loop"]
    assert {"startup", "main_loop", "on_tick"} <= set(dir(uvicorn.Server))
    server = uvicorn.Server(uvicorn.Config(App(), lifespan="off", log_config=None))
    assert {"connections", "tasks", "default_headers"} <= set(vars(server.server_state))


async def test_the_state_of_uvicorns_requests_that_is_used() -> None:
    """What is read and set on the connection and its request is there, and pipelined ones queue from the left."""
    async with running() as up, up.peer() as peer:
        await peer.send(SLOW + GET + GET)
        await asyncio.wait_for(up.app.entered.wait(), DEADLINE_S)
        connection = up.connection
        assert {"cycle", "pipeline", "parser", "headers", "url", "scope", "flow", "timeout_keep_alive",
                "timeout_keep_alive_task"} <= set(vars(connection))  # fmt: skip
        assert isinstance(connection.cycle, RequestResponseCycle)
        assert {"keep_alive", "more_body", "disconnected", "message_event", "response_started", "response_complete",
                "transport", "chunked_encoding"} <= set(vars(connection.cycle))  # fmt: skip
        assert len(connection.pipeline) == 2
        assert connection.pipeline[0][0] is connection.cycle


def test_the_behaviour_of_httptools_that_is_used() -> None:
    """A wish to upgrade ends the parsing behind its head, body or not, of any buffer, by an exception of its own."""
    calls: list[str] = []

    class Callbacks:
        def on_headers_complete(self) -> None:
            calls.append(f"headers complete, {parser.should_upgrade()}")

        def on_body(self, body: bytes) -> None:
            calls.append(f"body {body!r}")

        def on_message_complete(self) -> None:
            calls.append(f"message complete, {parser.should_upgrade()}")

    parser = httptools.HttpRequestParser(Callbacks())
    head = b"POST / HTTP/1.1\r\n" + WISH + b"content-length: 3\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as caught:
        parser.feed_data(memoryview(b"before" + head + b"abc")[6:])
    assert caught.value.args == (len(head),)
    assert calls == ["headers complete, True", "message complete, True"]
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError)
