"""The OFREP event stream: only those whose values changed are told to ask again, spread over a moment."""

import orjson
import pytest

from relay.protocol.changes import Environments
from relay.protocol.keys import Kind
from relay.protocol.sse import SseEvent
from relay.serve.stream_token import BadToken, StreamToken, issue, read
from relay.settings import Serve, Streams
from tests.clocks import FakeClock, settle
from tests.relay.live import Live, data
from tests.relay.objects import equals, flag, ramp, reference, rule
from tests.relay.world import Connection, World

BULK = "/ofrep/v1/evaluate/flags"
ENVIRONMENT = "00000001-0000-4000-8000-000000000000"


async def uri(world: World, **context: object) -> str:
    """Ask in bulk and return where the stream is."""
    body = (await world.call("POST", BULK, {"context": context}, key=Kind.CLIENT)).json
    found: str = body["eventStreams"][0]["endpoint"]["requestUri"]
    return found


async def opened(world: World, *, last_id: str | None = None, **context: object) -> Connection:
    target = await uri(world, **context)
    stream = (
        world.connect(target, key=None) if last_id is None else world.connect(target, key=None, last_event_id=last_id)
    )
    await settle()
    return stream


def told(stream: Connection) -> list[SseEvent]:
    return stream.events


async def test_a_client_that_has_just_connected_asks_once(world: World) -> None:
    """Between its bulk answer and the stream a change may have slipped through; an ETag makes the question cheap."""
    async with world.running():
        stream = await opened(world, targetingKey="u")
        (event,) = told(stream)
        assert (event.event, event.id) == ("message", "e1:1")
        assert data(event) == {
            "type": "refetchEvaluation",
            "etag": '"e1:1"',
            "lastModified": world.clock.wall_ms() // 1000,
        }
        assert stream.started["status"] == 200
        assert b"event:" not in stream.raw
        assert b"retry:" not in stream.raw
        await stream.leave()


async def test_only_clients_whose_values_changed_are_told(world: World) -> None:
    """The message names the configuration that the refetch must not be older than."""
    pro = flag(rules=[rule(equals("plan", "pro"))], fallthrough={"variation": "off"})
    world.commit({"pro": pro})
    async with world.running():
        concerned, other = await opened(world, plan="pro"), await opened(world, plan="free")
        world.commit({"pro": {**pro, "enabled": False}})
        await settle()
        assert [event.id for event in told(concerned)] == ["e1:2", "e1:3"]
        assert len(told(other)) == 1
        etag = data(told(concerned)[-1])["etag"]
        answer = await world.call(
            "POST", f"{BULK}?flagConfigEtag={etag}", {"context": {"plan": "pro"}}, key=Kind.CLIENT
        )
        assert {each["key"]: each["value"] for each in answer.json["flags"]}["pro"] is False
        await concerned.leave()
        await other.leave()


async def test_flags_that_a_client_key_cannot_see_wake_nobody(world: World) -> None:
    """A server-side flag's change is none of a browser's business."""
    world.commit({"secret": flag(client_side=False)})
    async with world.running():
        stream = await opened(world)
        world.commit({"secret": flag(client_side=False, enabled=False)})
        await settle()
        assert len(told(stream)) == 1
        await stream.leave()


async def test_a_context_too_large_for_the_token_is_told_of_every_visible_change(world: World) -> None:
    """Unfiltered, but never silent."""
    noise = "".join(str(hash((number, "noise"))) for number in range(400))
    async with world.running():
        target = await uri(world, noise=noise)
        assert len(target) < 300
        stream = world.connect(target, key=None)
        await settle()
        world.commit({"other": flag()})
        await settle()
        assert len(told(stream)) == 2
        await stream.leave()


async def test_many_concerned_clients_are_told_over_a_window(world: World) -> None:
    """Here at most one a second: they do not all ask at the same moment, and all have within the window."""
    world = World(FakeClock(), Serve(streams=Streams(refetch_per_s=1, refetch_window_s=5)))
    world.snapshot({"beta": flag()})
    async with world.running():
        streams = [await opened(world, n=number) for number in range(40)]
        world.commit({"beta": flag(enabled=False)})
        await settle()
        told_at_once = sum(len(told(stream)) - 1 for stream in streams)
        await world.fake.advance(2.5)
        told_by_half = sum(len(told(stream)) - 1 for stream in streams)
        await world.fake.advance(2.7)
        assert [len(told(stream)) for stream in streams] == [2] * 40
        assert told_at_once < 20
        assert 3 < told_by_half < 37
        for stream in streams:
            await stream.leave()


async def test_a_ramps_step_tells_those_whom_it_takes_in(world: World) -> None:
    """Time alone changes values here too."""
    world.commit({"ramp": flag(fallthrough=ramp(world.clock.wall_ms(), every_s=60))})
    async with world.running():
        stream = await opened(world, targetingKey="u")
        await world.fake.advance(61)
        assert len(told(stream)) == 2
        await stream.leave()


async def test_a_reconnect_that_missed_nothing_is_not_told(world: World) -> None:
    """The id proves it: nothing, or nothing but keys, changed since."""
    async with world.running():
        stream = await opened(world, last_id="e1:1")
        assert told(stream) == []
        await stream.leave()
        world.commit(credentials=world.credentials(origins=["*"]))
        stream = await opened(world, last_id="e1:1")
        assert told(stream) == []
        await stream.leave()


@pytest.mark.parametrize("last_id", ["e1:1", "e0:2", "e1:99", "junk", "e1:", "1" * 500])
async def test_a_reconnect_that_may_have_missed_something_is_told_once(world: World, last_id: str) -> None:
    """A flag changed meanwhile, or the id proves nothing."""
    world.commit({"beta": flag(enabled=False)})
    async with world.running():
        stream = await opened(world, last_id=last_id)
        assert len(told(stream)) == 1
        await stream.leave()


async def test_the_stream_outlives_any_lifetime_and_ends_at_drain_without_a_word(live: Live) -> None:
    """The published web client knows one message, and never recovers from an end that it was not told to expect."""
    world = live.world
    async with live.stream(await uri(world), key=None) as stream:
        await stream.next()
        await world.services.streams.goodbye_all("drain", 0)
        assert await stream.end() == []


async def test_it_does_not_end_with_a_lifetime() -> None:
    """Heartbeats keep it open for as long as it takes."""
    world = World(FakeClock(), Serve(streams=Streams(lifetime_s=20, lifetime_jitter=0)))
    world.snapshot({"beta": flag()})
    async with world.running():
        stream = await opened(world)
        await world.fake.advance(100)
        assert not stream.is_complete
        assert stream.raw.split(b"\n").count(b":") == 6
        await stream.leave()


async def test_a_revoked_key_ends_the_stream_and_its_url(world: World) -> None:
    """The token names a key, and grants nothing without it."""
    async with world.running():
        stream = await opened(world)
        target = await uri(world)
        world.commit(credentials={})
        await settle()
        assert stream.is_complete
        await stream.task
        answer = await world.call("GET", target, key=None)
        assert (answer.status, answer.json["errorCode"]) == (401, "GENERAL")


async def test_an_expired_url_is_401(world: World) -> None:
    """It is good for the hour of its issue and for the next one."""
    target = await uri(world)
    world.fake.jump_wall(2 * 3_600_000)
    assert (await world.call("GET", target, key=None)).status == 401


async def test_a_return_with_an_expired_url_is_told_what_it_missed_and_then_401(world: World) -> None:
    """The published client tells its application of a change only if a message, not a 401, made it ask."""
    world.commit({"ramp": flag(fallthrough=ramp(world.clock.wall_ms(), every_s=60))})
    target = await uri(world)
    world.fake.jump_wall(2 * 3_600_000)
    missed = await world.call("GET", target, key=None, headers={"last-event-id": "e1:1"})
    assert (missed.status, missed.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert missed.body.startswith(b'data: {"type":"refetchEvaluation"')
    assert missed.body.endswith(b"\nid: e1:2\n\n")
    current = await world.call("GET", target, key=None, headers={"last-event-id": "e1:2"})
    assert current.status == 401
    world.commit(credentials={})
    revoked = await world.call("GET", target, key=None, headers={"last-event-id": "e1:1"})
    assert revoked.json["errorCode"] == "GENERAL"
    assert revoked.status == 401


@pytest.mark.parametrize("token", ["", "junk", "000000010000", "000000010000AAAA", "999999999999AAAA", "é"])
async def test_a_token_that_was_not_made_here_is_401(world: World, token: str) -> None:
    """Whatever it is made of."""
    answer = await world.call(
        "GET", f"/ofrep/v1/stream?token={token.encode().hex() if token == 'é' else token}", key=None
    )
    assert answer.status == 401
    assert answer.json["errorDetails"]


async def test_a_url_of_an_environment_that_is_lacking_is_503(world: World) -> None:
    """It may be a good one; the client comes back to it, where after a 401 it would ask for another."""
    target = await uri(world, targetingKey="u")
    held = world.configuration().state
    world.store.remove(world.ref.id)
    world.snapshot(ref=reference(2, "staging"))
    world.store.cover(Environments((held.ref, reference(2, "staging"))))
    assert (await world.call("GET", target, key=None)).status == 503
    world.store.cover(Environments((reference(2, "staging"),)))
    assert (await world.call("GET", target, key=None)).status == 401


async def test_a_page_that_the_key_does_not_list_is_refused(world: World) -> None:
    """The URL does not widen what the key allows."""
    answer = await world.call("GET", await uri(world), key=None, headers={"origin": "https://evil.example.com"})
    assert answer.status == 403


def test_a_token_is_deterministic_opens_with_its_secret_only_and_in_its_environment_only() -> None:
    """AES-SIV: equal contents make equal tokens; any change of text, secret or environment is noticed."""
    token = StreamToken("ab" * 32, 5, {"b": 1, "a": [2]})
    text = issue(token, ENVIRONMENT, "secret")
    assert text == issue(StreamToken("ab" * 32, 5, {"a": [2], "b": 1}), ENVIRONMENT, "secret")
    assert read(text, "secret") == token
    assert b"targetingKey" not in text.encode()
    for wrong, secret in [(text, "other"), (text[:-1], "secret"), ("1" + text[1:], "secret"), (text + "A", "secret")]:
        with pytest.raises(BadToken):
            read(wrong, secret)


def test_a_context_beyond_two_kib_deflated_is_left_out() -> None:
    """The URL stays short; the stream is unfiltered then."""
    noise = {"n": [number * 7_919 % 65_537 for number in range(3_000)]}
    assert len(orjson.dumps(noise)) < 64 * 1024
    assert read(issue(StreamToken("ab" * 32, 1, noise), ENVIRONMENT, "s"), "s").context is None
    assert read(issue(StreamToken("ab" * 32, 1, {}), ENVIRONMENT, "s"), "s").context == {}
