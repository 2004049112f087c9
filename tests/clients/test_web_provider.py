"""The published OFREP web provider in trouble: it ends right, and without a storm of requests.

Each test counts what the provider asks of the relay and states the most that it may. Some run the provider alone:
there values and events come right by what the relay does, but 0.4.3 says STALE for good once a stream broke. Others run
it as docs/web-provider.md shows it, where a few lines of the application let it ask anew: then it is READY again.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients.web.driver import PageApp, browser, new_client_key, page_app, start
from tests.clients.web.page_server import page_server
from tests.clients.web.programs import PROJECT, Where, chromium, node
from tests.clients.web.proxy import BULK
from tests.clients.web.world import TOKEN_S, TOTAL, World, world
from tests.stack import Client, Running, until

pytestmark = pytest.mark.system


@pytest.fixture(params=list(Where))
async def each(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Give the application in Node, and then in Chromium."""
    async with world(request.param, tmp_path) as made:
        yield made


async def test_a_change_arrives_within_a_second_with_one_request(each: World) -> None:
    """Through the event stream alone; a change that leaves this client's values as they are costs no request."""
    await each.start_bare()
    for number, enabled in enumerate((False, True, False), 1):
        await each.pair.toggle(flag="dark-mode", enabled=enabled)
        took_s = await each.set_and_told(enabled=enabled)
        each.note(f"told after {took_s * 1000:.0f} ms")
        assert took_s <= 1
        assert each.proxy.counts() == {"bulk 200": number}
    assert await each.status() == "READY"


@pytest.mark.parametrize("is_gateway", [False, True], ids=["refused", "502"])
async def test_a_relay_killed_and_started_again(each: World, *, is_gateway: bool) -> None:
    """By kill -9, with a change meanwhile and an attempt of the application that fails; the port is refused, or 502."""
    each.proxy.is_gateway = is_gateway
    await each.start_as_documented()
    mark = await each.mark()
    away_since_s = time.monotonic()
    await each.pair.kill_relay()
    await each.set(enabled=False)
    await each.hears("PROVIDER_ERROR", mark)
    assert await each.value() is True
    each.pair.start_relay()
    await each.changes(to=False)
    await each.is_calm()
    # One question for READY, and one because the stream is a new one.
    await each.streams(1)
    await each.answered(2)
    each.report(f"relay killed and started again, {is_gateway=}")
    took_s = time.monotonic() - away_since_s
    assert each.proxy.count("bulk") <= 3 + took_s / 4
    assert each.proxy.count("stream") <= 2 + took_s / 3
    assert await each.was_told_of_the_new_values()
    await each.still_hears(enabled=True)


async def test_a_connection_that_was_cut(each: World) -> None:
    """A change meanwhile; the provider alone has the value and tells of it, and is READY once it is asked anew."""
    await each.start_bare()
    mark = await each.mark()
    await each.proxy.go_away()
    await each.hears("PROVIDER_STALE", mark)
    await each.set(enabled=False)
    await each.pair.settled()
    await each.proxy.listen()
    await each.is_told(mark)
    assert await each.value() is False
    each.report("connection cut")
    assert each.proxy.counts() == {"stream 200": 1, "bulk 200": 1}
    assert each.proxy.passed[0].last_event_id is not None
    await each.is_ready_with_the_applications_help()
    await each.still_hears(enabled=True)


async def test_an_expired_stream_url(each: World) -> None:
    """A change after it expired, while the stream was broken: told of it first, then 401, then a new URL."""
    await each.start_bare()
    mark = await each.mark()
    await each.pair.kill_relay()
    await each.hears("PROVIDER_STALE", mark)
    await each.set(enabled=False)
    # A URL is good in its period and the next one. Periods of another length have other numbers, so with another
    # setting every URL from before is of another time. A day, so that hardly a run sees a new period begin.
    each.pair.start_relay_with(**{TOKEN_S: "86400"})
    await each.is_told(mark)
    assert await each.value() is False
    await each.streams(2)
    await each.asked(3)
    each.report("stream URL expired")
    counts = each.proxy.counts()
    assert (counts["stream 200"], counts["stream 401"]) == (2, 1)
    assert each.proxy.count("bulk") <= 3
    await each.is_ready_with_the_applications_help()
    await each.still_hears(enabled=True)


async def test_too_many_requests(each: World) -> None:
    """429 for the question after a change: the provider alone does not ask again, the application's lines do."""
    await each.start_as_documented()
    mark = await each.mark()
    each.proxy.refuse_next_bulk = True
    await each.set(enabled=False)
    await each.hears("PROVIDER_STALE", mark)
    assert await each.value() is True
    await each.changes(to=False)
    await each.hears("PROVIDER_CONTEXT_CHANGED", mark)
    await each.is_calm()
    each.report("429 with Retry-After")
    assert each.proxy.counts() == {"bulk 429": 1, "bulk 200": 1}
    await each.still_hears(enabled=True)


async def test_no_stream_to_be_had(each: World) -> None:
    """A relay that has as many streams as it may have: the provider polls, and does not press for a stream."""
    await each.pair.kill_relay()
    each.pair.start_relay_with(**{TOTAL: "0"})
    await each.pair.relay_connected()
    started_s = time.monotonic()
    await each.start_polling(500)
    await each.asked(4)
    mark = await each.mark()
    await each.set(enabled=False)
    await each.is_told(mark)
    assert await each.value() is False
    assert await each.status() == "READY"
    each.report("no stream to be had")
    assert each.proxy.count("bulk") <= 2 + (time.monotonic() - started_s) / 0.5
    assert each.proxy.counts()["stream 503"] == 1
    assert each.proxy.count("stream") == 1


async def test_a_hidden_tab(tmp_path: Path) -> None:
    """After 120 s out of sight the provider closes its stream; in sight again, it asks for what it missed."""
    async with world(Where.CHROMIUM, tmp_path) as each:
        assert isinstance(each.app, PageApp)
        page = each.app.page
        await page.clock.install()
        await each.start_as_documented()
        await page.evaluate(_SHOW, "hidden")
        await page.clock.fast_forward(119_000)
        await each.still_hears(enabled=False)
        await page.clock.fast_forward(3_000)

        async def closed() -> bool:
            return each.proxy.open_streams == 0

        await until("the stream is closed", closed)
        each.proxy.forget()
        mark = await each.mark()
        await each.set(enabled=True)
        await each.pair.settled()
        assert each.proxy.counts() == {}
        await page.evaluate(_SHOW, "visible")
        await each.is_told(mark)
        assert await each.value() is True
        await each.streams(1)
        await each.asked(3)
        each.report("hidden for two minutes")
        assert each.proxy.count("bulk") == 3
        assert each.proxy.count("stream") == 1
        await each.is_calm()
        await each.still_hears(enabled=False)


_SHOW = """state => {
  Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


async def test_a_page_from_an_origin_that_the_key_does_not_list_gets_nothing(tmp_path: Path) -> None:
    """Neither an answer nor a stream; the listed page beside it gets both."""
    node()
    chromium()
    async with Running.up(tmp_path) as stack, browser() as started, page_server() as listed, page_server() as other:
        key = await new_client_key(stack, listed)
        assert stack.session is not None
        _, answer = await Client(stack.session, stack.relay_url, key).post(BULK, {"context": {}})
        stream = stack.relay_url + answer["eventStreams"][0]["endpoint"]["requestUri"]
        async with page_app(started, listed) as app:
            assert await start(app, stack.relay_url, key, None) is None
            assert await app.call("status") == "READY"
            assert await app.page.evaluate(_OPEN, stream) == 1
        async with page_app(started, other) as app:
            assert await start(app, stack.relay_url, key, None) is not None
            assert await app.call("status") in {"ERROR", "FATAL"}
            assert await app.page.evaluate(_OPEN, stream) == 2


_OPEN = """url => new Promise(done => {
  const stream = new EventSource(url);
  stream.onopen = stream.onerror = () => { done(stream.readyState); stream.close(); };
})"""


def test_the_documentation_shows_the_code_that_is_tested() -> None:
    """Whoever copies it has what these tests ran."""
    text = (Path(__file__).parents[2] / "docs" / "web-provider.md").read_text()
    assert (PROJECT / "src" / "flags.mjs").read_text() in text
