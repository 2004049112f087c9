"""Published readers of Server-Sent Events get every stream as it is sent, and exactly what they lack after a cut."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.clients.cutter import Cutter
from tests.clients.flags import TEXT, caught_up, create
from tests.clients.scenes import relay_beside, until_ready
from tests.clients.sse_readers import LIBRARIES, Reader, Seen, missing
from tests.stack import Client, Message, Running, SseReader, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]

CONTEXT = {"targetingKey": "user-1"}
LARGE_FLAGS = 40
LARGE_TEXT = TEXT * 500
MANY_LINES = 10
# Quick hearts and quick returns: what is tested is not how long they take.
QUICK = {
    "HALYARD_RELAY_SERVE__STREAMS__HEARTBEAT_S": "0.1",
    "HALYARD_RELAY_SERVE__STREAMS__RETRY_MIN_MS": "50",
    "HALYARD_RELAY_SERVE__STREAMS__RETRY_MAX_MS": "100",
}
EVENT_STREAMS = "/ofrep/v1/evaluate/flags"


@dataclass(frozen=True)
class Kind:
    """A stream: which key it takes, the events of a start, of one change, and of coming back after two changes."""

    name: str
    key: str
    start: tuple[str, ...]
    change: str
    back: tuple[str, ...]


KINDS = (
    Kind(
        "change stream", "server_key", ("environments", "snapshot"), "changes", ("environments", "changes", "changes")
    ),
    Kind("client stream", "client_key", ("put",), "patch", ("put",)),
    Kind("OFREP stream", "server_key", ("message",), "message", ("message",)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Return an installation of this module's own, with large flags and a relay whose heart beats fast."""
    async with Running.up(tmp_path_factory.mktemp("sse")) as stack:
        values = [{"key": "large", "value": LARGE_TEXT}, {"key": "small", "value": "small"}]
        config = {"enabled": True, "off": "small", "fallthrough": {"variation": "large"}}
        await create(
            stack, [{"key": f"large-{n}", "type": "string", "variations": values, **config} for n in range(LARGE_FLAGS)]
        )
        made = relay_beside(stack, stack.upstream_port, "fast", QUICK)
        await until_ready(made, ready=True, degraded=False)
        await caught_up(made)
        yield made


async def path_of(kind: Kind, relay: Running) -> str:
    """Return where the stream is, with its context."""
    if kind.name == "change stream":
        return "/api/v2/stream"
    if kind.name == "client stream":
        context = base64.urlsafe_b64encode(json.dumps(CONTEXT).encode()).decode().rstrip("=")
        return f"/api/v2/client/stream?context={context}"
    status, body = await relay.relay(kind.key).post(EVENT_STREAMS, {"context": CONTEXT})
    assert status == 200, body
    path: str = body["eventStreams"][0]["endpoint"]["requestUri"]
    return path


async def next_of(stream: SseReader) -> Message:
    """Return the next event but bookmarks, as the tests' own reader reads it."""
    while True:
        message = await stream.next()
        if message.event != "bookmark":
            return message


async def same(reader: Reader, stream: SseReader, names: tuple[str, ...]) -> list[Seen]:
    """Read as many events on both sides, and return the library's once they are the same and bear these names."""
    seen = [await reader.next() for _ in names]
    expected = [await next_of(stream) for _ in names]
    assert [(each.event, json.loads(each.data)) for each in seen] == [(each.event, each.data) for each in expected]
    # What an event without an id is said to have is the library's business: the last one, also across connections.
    assert [left.id for left, right in zip(seen, expected, strict=True) if right.id] == [
        each.id for each in expected if each.id
    ]
    assert tuple(each.event for each in seen) == names
    assert seen[-1].id
    return seen


async def toggle(relay: Running, *, enabled: bool) -> None:
    """Switch the demo flag and wait until the relay has it."""
    await relay.toggle(enabled=enabled)
    await caught_up(relay)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_published_reader_sees_what_is_sent(relay: Running, library: str, kind: Kind) -> None:
    """Start, change, cut, two changes meanwhile, return, change: the same names, ids and data, nothing twice."""
    why = missing(library)
    if why is not None:
        pytest.skip(why)
    await toggle(relay, enabled=True)
    path = await path_of(kind, relay)
    direct: Client = relay.relay(kind.key)
    headers = {"Authorization": f"Bearer {relay.demo[kind.key]}"}
    async with Cutter.before(relay.relay_port) as cutter:
        url = f"http://127.0.0.1:{cutter.port}{path}"
        async with LIBRARIES[library](url, headers) as reader:
            async with direct.stream(path) as stream:
                started = await same(reader, stream, kind.start)
                if kind.name == "change stream":
                    assert len(started[-1].data) > LARGE_FLAGS * len(LARGE_TEXT)
                    assert started[-1].data.count("\n") >= MANY_LINES

                await toggle(relay, enabled=False)
                (changed,) = await same(reader, stream, (kind.change,))

            with cutter.cut():
                await toggle(relay, enabled=True)
                await toggle(relay, enabled=False)
            async with direct.stream(path, last_event_id=changed.id) as stream:
                await same(reader, stream, kind.back)
                await toggle(relay, enabled=True)
                await same(reader, stream, (kind.change,))
    assert reader.queue.empty()
    assert cutter.accepted == 2


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_heartbeat_is_no_event(relay: Running, library: str) -> None:
    """Comments on an idle stream reach nobody as events."""
    why = missing(library)
    if why is not None:
        pytest.skip(why)
    await toggle(relay, enabled=True)
    kind = KINDS[1]
    async with Cutter.before(relay.relay_port) as cutter:
        url = f"http://127.0.0.1:{cutter.port}{await path_of(kind, relay)}"
        headers = {"Authorization": f"Bearer {relay.demo[kind.key]}"}
        async with LIBRARIES[library](url, headers) as reader:
            assert (await reader.next()).event == "put"
            before = cutter.heartbeats

            async def beaten() -> bool:
                return cutter.heartbeats >= before + 3

            await until("three heartbeats", beaten)
            await toggle(relay, enabled=False)
            assert (await reader.next()).event == "patch"
    # A heartbeat is no whole event: httpx-sse, once it has seen an id, would hand over an empty one for a blank line.
    assert reader.empty == 0
