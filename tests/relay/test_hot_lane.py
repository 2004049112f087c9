"""The hot lane beside the app alone: the same bytes get the same answers, on connections that look the same after."""

import asyncio
import itertools
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.keys import Kind
from relay.serve.hot_lane import HotProtocol
from relay.serve.http_limits import LimitedProtocol
from relay.serve.request_head import LEFT, LONGEST, READ
from relay.serve.server import HttpServer
from relay.settings import Limits, Serve
from tests.clocks import settle
from tests.relay.two_ways import ROUTES, SENTINEL, TwoWays, peer_of, served, two_ways

SMALL = Serve(limits=Limits(header_count=8, header_bytes=1_024, path_bytes=256, query_bytes=256, context_bytes=512))
# What waits for the rest of a request is timed out soon.
HASTY = Serve(limits=SMALL.limits.model_copy(update={"header_s": 0.05, "body_s": 0.05}))
TOKEN_FIELD = re.compile(rb"Authorization: [^\r]*\r\n")

# Requests by what is odd about them: what is put in place of a part of a request in strict form.
Change = tuple[bytes, bytes]
CHANGES: dict[str, Change] = {
    "nothing": (b"", b""),
    "another method": (b"POST", b"PUT"),
    "a lowercase method": (b"POST", b"post"),
    "HTTP/1.0": (b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2.0": (b"HTTP/1.1", b"HTTP/2.0"),
    "a query": (b" HTTP/1.1", b"?a=b HTTP/1.1"),
    "an empty query": (b" HTTP/1.1", b"? HTTP/1.1"),
    "a fragment": (b" HTTP/1.1", b"#a HTTP/1.1"),
    "an absolute target": (b"POST /", b"POST http://a/"),
    "two spaces": (b"POST /", b"POST  /"),
    "a tab": (b"POST /", b"POST\t/"),
    "a trailing slash": (b" HTTP/1.1", b"/ HTTP/1.1"),
    "a doubled slash": (b"POST /", b"POST //"),
    "an encoded letter": (b"POST /ofrep", b"POST /%6ffrep"),
    "dots": (b"POST /", b"POST /../"),
    "a NUL in the target": (b" HTTP/1.1", b"\0 HTTP/1.1"),
    "a byte beyond ASCII in the target": (b" HTTP/1.1", b"\xe4 HTTP/1.1"),
    "another route": (b"POST /", b"POST /nowhere/"),
    "bare LF": (b"\r\n", b"\n"),
    "a blank line before": (b"POST", b"\r\nPOST"),
    "no blank line": (b"\r\n\r\n", b"\r\n"),
    "no space after the colon": (b"Host: a", b"Host:a"),
    "two spaces after the colon": (b"Host: a", b"Host:  a"),
    "a tab after the colon": (b"Host: a", b"Host:\ta"),
    "a space before the colon": (b"Host: a", b"Host : a"),
    "a space at the end": (b"Host: a", b"Host: a "),
    "an empty value": (b"Host: a", b"Host:"),
    "a folded line": (b"Host: a", b"Host: a\r\n b"),
    "no name": (b"Host: a", b": a"),
    "no colon": (b"Host: a", b"Host"),
    "a NUL in a value": (b"Host: a", b"Host: a\0"),
    "a CR in a value": (b"Host: a", b"Host: a\rb"),
    "a byte beyond ASCII in a value": (b"Host: a", b"Host: \xe4"),
    "a name of odd letters": (b"Host: a", b"X_y!: a"),
    "no host": (b"Host: a\r\n", b""),
    "two hosts": (b"Host: a", b"Host: a\r\nHost: b"),
    "names in capitals": (b"Authorization", b"AUTHORIZATION"),
    "a lowercase scheme": (b"Bearer", b"bearer"),
    "another scheme": (b"Bearer", b"Basic"),
    "two spaces before the key": (b"Bearer ", b"Bearer  "),
    "no key": (b"Authorization", b"X-Nothing"),
    "a key elsewhere": (b"Authorization: Bearer ", b"X-API-Key: "),
    "two keys": (b"Authorization", b"X-API-Key: a\r\nAuthorization"),
    "two authorizations": (b"Authorization", b"Authorization: Bearer a\r\nAuthorization"),
    "a mistyped key": (b"Bearer hal_", b"Bearer hal-"),
    "no length": (b"Content-Length", b"X-Length"),
    "a length of zero": (b"Content-Length: ", b"Content-Length: 0\r\nX-Was: "),
    "a length with a plus": (b"Content-Length: ", b"Content-Length: +"),
    "a length with zeros": (b"Content-Length: ", b"Content-Length: 00"),
    "a negative length": (b"Content-Length: ", b"Content-Length: -"),
    "a hexadecimal length": (b"Content-Length: ", b"Content-Length: 0x"),
    "two lengths": (b"Content-Length: ", b"Content-Length: 3\r\nContent-Length: "),
    "a list of lengths": (b"Content-Length: ", b"Content-Length: 3, "),
    "a huge length": (b"Content-Length: ", b"Content-Length: 99999"),
    "a length beyond 64 bits": (b"Content-Length: ", b"Content-Length: 99999999999999999999"),
    "chunked": (b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX-Was: "),
    "chunked and a length": (b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: "),
    "keep-alive": (b"Host: a", b"Connection: keep-alive"),
    "Keep-Alive": (b"Host: a", b"Connection: Keep-Alive"),
    "close": (b"Host: a", b"Connection: close"),
    "close among others": (b"Host: a", b"Connection: keep-alive, close"),
    "close twice": (b"Host: a", b"Connection: keep-alive\r\nConnection: close"),
    "another proxy's close": (b"Host: a", b"Proxy-Connection: close"),
    "a wish for another protocol": (b"Host: a", b"Connection: upgrade\r\nUpgrade: websocket"),
    "another protocol without a wish": (b"Host: a", b"Upgrade: h2c"),
    "an expectation": (b"Host: a", b"Expect: 100-continue"),
    "an odd expectation": (b"Host: a", b"Expect: a"),
    "an origin": (b"Host: a", b"Origin: https://shop.example"),
    "an id": (b"Host: a", b"X-Request-Id: abc"),
    "an odd id": (b"Host: a", b"X-Request-Id: a b"),
    "a coding of the body": (b"Host: a", b"Content-Encoding: gzip"),
    "no coding of the body": (b"Host: a", b"Content-Encoding: identity"),
    "an accepted coding": (b"Host: a", b"Accept-Encoding: gzip, br"),
    "anything named": (b"Host: a", b"If-None-Match: *"),
    "something else named": (b"Host: a", b'If-None-Match: "a", W/"b"'),
    "an odd name": (b"Host: a", b'If-None-Match: "a'),
    "named twice": (b"Host: a", b'If-None-Match: *\r\nIf-None-Match: "b"'),
    "a browser's question before": (b"Host: a", b"Access-Control-Request-Method: POST"),
    "a trace": (b"Host: a", b"traceparent: 00-1-1-00"),
    "a proxy's word": (b"Host: a", b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https"),
    "seven more": (b"Host: a", b"\r\n".join(b"A%d: b" % number for number in range(6))),
    "too many": (b"Host: a", b"\r\n".join(b"A%d: b" % number for number in range(9))),
    "a long one": (b"Host: a", b"Host: " + b"a" * 900),
    "one too long": (b"Host: a", b"Host: " + b"a" * 1_100),
    "a target too long": (b" HTTP/1.1", b"/" + b"a" * 300 + b" HTTP/1.1"),
    "a target much too long": (b" HTTP/1.1", b"/" + b"a" * 3_000 + b" HTTP/1.1"),
    "no body yet": (b'{"', b""),
    "more than the body": (b"}}", b"}}GET"),
    "a blank line after": (b"}}", b"}}\r\n"),
    "another request behind": (b"}}", b"}}" + SENTINEL),
}  # fmt: skip
BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "null": b"null",
    "a list": b"[]",
    "no context": b"{}",
    "a null context": b'{"context":null}',
    "an empty context": b'{"context":{}}',
    "a text as context": b'{"context":"a"}',
    "spaces around": b' { "context" : { } } ',
    "an unknown member": b'{"context":{},"a":1}',
    "a flag": b'{"flag":"beta","context":{"targetingKey":"u"}}',
    "a flag that is none": b'{"flag":"nowhere","context":{}}',
    "a flag with another name": '{"flag":"ümlaut/ä","context":{}}'.encode(),
    "a flag for servers": b'{"flag":"private","context":{}}',
    "a flag without its unit": b'{"flag":"split","context":{}}',
    "a number as flag": b'{"flag":1,"context":{}}',
    "a long flag": b'{"flag":"' + b"a" * 600 + b'","context":{}}',
    "the environment named": b'{"flag":"beta","environment":"production","context":{}}',
    "another environment": b'{"flag":"beta","environment":"staging","context":{}}',
    "named twice": b'{"context":{"targetingKey":"a"},"context":{"targetingKey":"b"}}',
    "not a number": b'{"context":{"a":NaN}}',
    "half a character": b'{"context":{"a":"\\ud800"}}',
    "no UTF-8": b'{"context":{"a":"\xff"}}',
    "a byte order mark": b'\xef\xbb\xbf{"context":{}}',
    "deep": b'{"context":{"a":' + b"[" * 40 + b"]" * 40 + b"}}",
    "too long": b'{"context":{"a":"' + b"a" * 600 + b'"}}',
}
FLAGS = ("beta", "off", "text", "object", "split", "private", "quiet", "no-off", "needs-off", "needs-private", "stuck",
         "ramp", "nowhere", ".", "..", "%62eta", "be%2Fta", "a/b", "a b", "a;b", "beta?", "~-_.")  # fmt: skip


@pytest.fixture
def both() -> TwoWays:
    return two_ways(settings=SMALL)


def changed(request: bytes, change: Change) -> bytes:
    """Put a part in the place of another, wherever it stands; nothing in place of nothing is no change."""
    old, new = change
    return request.replace(old, new) if old else request


@pytest.mark.parametrize("route", ROUTES)
async def test_every_odd_request_is_answered_alike(both: TwoWays, route: str) -> None:
    """Whatever is odd about a request, it gets the same answer, and so does the next one behind it."""
    for name, change in CHANGES.items():
        request = changed(both.request(*ROUTES[route]), change)
        await both.same(request, what=name)
        await both.same(request, SENTINEL, what=name)
    await both.same_counts()


async def test_over_sockets_too() -> None:
    """The same on real connections: as many answers, the same ones, and open or closed after."""
    both = two_ways(settings=HASTY)

    async def exchange(server: HttpServer, request: bytes, number: int) -> object:
        async with peer_of(server) as peer:
            await peer.send(request)
            first = await peer.answers(number)
            await peer.send(SENTINEL)
            # What waits for the rest of a request takes the sentinel for it, and is timed out in the end.
            return first, await peer.answers(1)

    async with served(both.hot) as hot, served(both.plain) as plain:
        for name, change in CHANGES.items():
            request = changed(both.request(*ROUTES["bulk"]), change)
            number = len(await both.same(request, what=name))
            found = await exchange(hot, request, number)
            assert found == await exchange(plain, request, number), name


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.CLIENT, Kind.RELAY, Kind.TOKEN])
@pytest.mark.parametrize("route", ROUTES)
async def test_every_body_is_answered_alike(both: TwoWays, route: str, kind: Kind) -> None:
    """Whatever stands in a body, whoever sends it: once, and when it is sent again."""
    for name, body in BODIES.items():
        for _ in range(3):
            await both.same(both.request(ROUTES[route][0], body, kind=kind), what=name)
    await both.same_counts()


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.CLIENT])
async def test_every_flag_is_answered_alike(both: TwoWays, kind: Kind) -> None:
    """Whatever a flag is called and serves, by itself and among all, the first time and later."""
    for key, context in itertools.product(FLAGS, ({}, {"targetingKey": "u", "country": "NL"}, {"targetingKey": "v"})):
        for _ in range(3):
            single = f"/ofrep/v1/evaluate/flags/{key}"
            await both.same(both.request(single, {"context": context}, kind=kind), what=key)
            await both.same(both.request("/api/v2/evaluate", {"flag": key, "context": context}, kind=kind), what=key)
    await both.same_counts()


@pytest.mark.parametrize("route", ROUTES)
async def test_split_at_every_byte(both: TwoWays, route: str) -> None:
    """A request that comes in two segments is answered as one that comes in one, wherever it is cut."""
    request = both.request(*ROUTES[route])
    (whole,) = await both.same(request)
    for cut in range(1, len(request)):
        assert await both.same(request[:cut], request[cut:]) == [whole]
    assert len(await both.same(*(request[at : at + 1] for at in range(len(request))))) == 1
    await both.same_counts()


async def test_pipelined_requests_are_answered_in_turn(both: TwoWays) -> None:
    """Requests in one segment, or behind one that is not answered yet, keep their order."""
    single, bulk = both.request(*ROUTES["single"]), both.request(*ROUTES["bulk"])
    assert len(await both.same(single + bulk + single)) == 3
    assert len(await both.same(single, bulk + single[:20], single[20:], bulk)) == 4
    for way in both.ways:
        line = way.connection()
        for segment in (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", single, bulk):
            line.protocol.data_received(segment)  # the first is under way when the others come
        await settle()
        assert [answer.status for answer in line.answers] == [404, 200, 200]
        await line.close()
    await both.same_counts()


@given(st.data())
def test_any_request_cut_anywhere(data: st.DataObject) -> None:
    """Any row of requests, odd or not, cut into segments anywhere, on one connection."""

    async def play() -> None:
        both = two_ways(settings=SMALL)
        requests = []
        for _ in range(data.draw(st.integers(1, 4))):
            path = ROUTES[data.draw(st.sampled_from(sorted(ROUTES)))][0]
            body = BODIES[data.draw(st.sampled_from(sorted(BODIES)))]
            request = both.request(path, body, kind=data.draw(st.sampled_from([Kind.SERVER, Kind.CLIENT])))
            for name in data.draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=2)):
                request = changed(request, CHANGES[name])
            requests.append(request)
        raw = b"".join(requests)
        is_whole = data.draw(st.booleans())
        cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=4)))
        segments = requests if is_whole else [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        await both.same(*segments)
        await both.same_counts()

    asyncio.run(play())


async def test_a_body_is_never_taken_for_a_request(both: TwoWays) -> None:
    """The body of a request that was answered by its head alone is read away, whatever it looks like."""
    request = both.request(*ROUTES["single"])
    refused = TOKEN_FIELD.sub(b"", both.request(ROUTES["single"][0], request), count=1)
    head = refused.removesuffix(request)
    # Behind another request in one segment, so that nothing of this one was fed since that one's end.
    answers = await both.same(request + head, request, request)
    assert [answer.status for answer in answers] == [200, 401, 200]
    await both.same_counts()


async def test_the_lane_takes_what_it_should(both: TwoWays) -> None:
    """A request in strict form is answered in the lane with one write, and from memory from the third time on."""
    for route, (path, body) in ROUTES.items():
        request = both.request(path, body, headers=[("Connection", "keep-alive"), ("Accept", "*/*")])
        line = both.hot.connection()
        for _ in range(4):
            await line.send(request)
        assert line.transport.writes == 4
        assert [answer.status for answer in line.answers] == [200] * 4
        assert both.hot.in_lane[route, "evaluated"] == 2
        assert both.hot.in_lane[route, "cached"] == 2
        await line.close()


async def test_the_lane_leaves_what_it_should(both: TwoWays) -> None:
    """What is refused, unusual or cut in pieces is the app's."""
    request = both.request(*ROUTES["single"])
    await both.same(request[:30], request[30:])
    await both.same(both.request("/ofrep/v1/evaluate/flags/nowhere"))
    await both.same(both.request(*ROUTES["single"], headers=[("Origin", "https://shop.example")]))
    await both.same(TOKEN_FIELD.sub(b"", request))
    assert not both.hot.in_lane


async def test_a_client_that_does_not_read_is_not_written_to(both: TwoWays) -> None:
    """While the transport holds back, the app waits for it; afterwards the lane goes on."""
    request = both.request(*ROUTES["bulk"])
    for way in both.ways:
        line = way.connection()
        line.protocol.pause_writing()
        await line.send(request)
        assert line.transport.written == b""
        line.protocol.resume_writing()
        await settle()
        assert [answer.status for answer in line.answers] == [200]
        await line.send(request)
        assert [answer.status for answer in line.answers] == [200, 200]
        await line.close()
    assert both.hot.in_lane == {("bulk", "evaluated"): 1}


async def test_too_many_connections_are_refused_alike() -> None:
    """Over the limit of connections the lane answers nobody."""
    both = two_ways(settings=Serve(limits=Limits(connections=16)))
    for way in both.ways:
        lines = [way.connection() for _ in range(17)]
        await lines[-1].send(both.request(*ROUTES["single"]))
        assert [answer.status for answer in lines[-1].answers] == [503]
        for line in lines:
            await line.close()


async def test_shutting_down_ends_an_idle_connection(both: TwoWays) -> None:
    """Between two requests a connection is closed at once, also one that only the lane has answered on."""
    for way in both.ways:
        line = way.connection()
        await line.send(both.request(*ROUTES["single"]))
        line.protocol.shutdown()
        assert line.transport.closed
        assert len(line.answers) == 1
        await line.close()


async def test_draining_says_close() -> None:
    """A request that is under way when the server stops is answered with `connection: close`, whatever came before."""
    both = two_ways(settings=SMALL)
    request = both.request(*ROUTES["single"])
    for way in both.ways:
        line = way.connection()
        await line.send(request, request[:-1])
        line.protocol.shutdown()
        await line.send(request[-1:])
        assert ("connection", "close") in line.answers[-1].headers
        assert line.transport.closed
        await line.close()


async def test_an_idle_connection_lives_as_long_as_it_was_promised() -> None:
    """The keep-alive time counts from the last answer, in the lane as elsewhere, and costs one timer."""
    both = two_ways()
    line = both.hot.connection()
    protocol: Any = line.protocol
    now_s, timers = 1_000.0, []
    loop = protocol.loop

    def call_later(delay_s: float, call: Any) -> Any:
        timers.append((now_s + delay_s, call))
        return loop.call_later(3_600, call)

    protocol.loop = type("Loop", (), {"time": staticmethod(lambda: now_s), "call_later": staticmethod(call_later)})
    protocol.timeout_keep_alive = 75
    protocol.timeout_keep_alive_task.cancel()
    protocol.timeout_keep_alive_task = loop.call_later(3_600, protocol.timeout_keep_alive_handler)
    for now_s in (1_000.0, 1_040.0, 1_060.0):  # noqa: B007 - the loop's time
        protocol.data_received(both.request(*ROUTES["single"]))
    assert not timers
    now_s = 1_075.0
    protocol.timeout_keep_alive_handler()
    assert [due for due, _ in timers] == [1_135.0]
    closed_early = line.transport.closed
    now_s = 1_135.0
    protocol.timeout_keep_alive_handler()
    assert (closed_early, line.transport.closed) == (False, True)
    protocol.loop = loop
    await line.close()


def test_every_header_that_is_read_anywhere_is_known_to_the_lane() -> None:
    """A header field that a route begins to read must be understood by the lane or left to the app."""
    read = set()
    for file in Path("relay/serve").glob("*.py"):
        read |= set(re.findall(r"header\([a-z_.]+, b\"([a-z-]+)\"\)", file.read_text()))
    assert {"authorization", "if-none-match", "origin"} <= read
    # A stream's own field; streams have no strict form.
    assert read - {"last-event-id"} <= {name.decode() for name in READ | LEFT}


async def test_a_head_longer_than_the_lane_reads() -> None:
    """It is the parser's, however strict its form."""
    roomy = two_ways(settings=Serve())
    request = roomy.request(*ROUTES["single"], headers=[("X-Long", "a" * LONGEST)])
    assert [answer.status for answer in await roomy.same(request)] == [200]
    assert not roomy.hot.in_lane


async def test_ids_come_from_the_one_count(both: TwoWays) -> None:
    """Requests in the lane and beside it are numbered by the same counter."""
    line = both.hot.connection()
    request = both.request(*ROUTES["single"])
    await line.send(request, request[:9], request[9:], request)
    ids = re.findall(rb"x-request-id: ([0-9a-f]{8})-([0-9a-f]+)\r\n", line.transport.written)
    assert len({process for process, _ in ids}) == 1
    numbers = [int(number, 16) for _, number in ids]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    await line.close()


async def test_the_answer_is_what_the_client_reads(both: TwoWays) -> None:
    """Spelled out once: the status line, each header field and the body."""
    line = both.hot.connection()
    await line.send(both.request(*ROUTES["single"]))
    head, _, body = line.transport.written.partition(b"\r\n\r\n")
    assert re.sub(rb"-id: .*", b"-id: x", head).split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"date: Sat, 28 Nov 2026 12:00:00 GMT",
        b"content-length: %d" % len(body),
        b"content-type: application/json",
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"x-request-id: x",
    ]
    assert orjson.loads(body) == {
        "key": "beta", "value": True, "variant": "on", "reason": "STATIC", "metadata": {}
    }  # fmt: skip
    await line.close()


async def test_the_date_is_the_servers(both: TwoWays) -> None:
    """The server's own fields are taken anew whenever uvicorn makes another list of them, which it does each second."""
    line = both.hot.connection()
    request = both.request(*ROUTES["single"])
    await line.send(request)
    both.hot.state.default_headers = [(b"date", b"Sat, 28 Nov 2026 12:00:01 GMT"), (b"x-more", b"a")]
    await line.send(request)
    assert line.transport.written.count(b"12:00:00 GMT\r\ncontent") == 1
    assert line.transport.written.count(b"12:00:01 GMT\r\nx-more: a\r\ncontent") == 1
    await line.close()
    async with served(both.hot) as server:
        state = server._server.server_state
        before = state.default_headers
        await server._server.on_tick(0)
        assert state.default_headers is not before
        assert [name for name, _ in state.default_headers] == [b"date"]


async def test_who_is_given_no_lane_has_none(both: TwoWays) -> None:
    """The upstream and the admin listener answer everything through their app."""
    for way, expected in zip(both.ways, (HotProtocol, LimitedProtocol), strict=True):
        async with served(way) as server, peer_of(server) as peer:
            await peer.send(SENTINEL)
            await peer.answers(1)
            connection: Any
            (connection,) = server._server.server_state.connections
            # What the lane looks at of its connection beside what test_server.py names.
            assert connection.flow.write_paused is False
            assert type(connection) is expected


@pytest.mark.parametrize("caller", ["relay/serve/admin.py", "upstream/process.py"])
def test_the_other_listeners_ask_for_no_lane(caller: str) -> None:
    """They stay on the plain protocol."""
    assert "HttpServer" in Path("relay/serve/admin.py").read_text()
    assert "lane" not in Path(caller).read_text()
