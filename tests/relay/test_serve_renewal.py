"""What a request or a stream may see is decided after everything that it waited for, and again when its key changes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from relay.protocol.changes import ChangeSet
from relay.protocol.keys import Kind
from relay.serve.stream_token import StreamToken, issue
from relay.settings import Serve, Streams
from tests.clocks import FakeClock, settle
from tests.relay.live import SlowRequest, context_parameter, data
from tests.relay.objects import credential, flag, reference
from tests.relay.world import Connection, World

BULK = "/ofrep/v1/evaluate/flags"
CLIENT_STREAM = "/api/v2/client/stream"
STAGING = reference(2, "staging")
PAGE = "https://shop.example.com"


REQUESTS = [
    ("/api/v2/evaluate", {"flag": "beta", "context": {}}),
    ("/api/v2/bootstrap", {"context": {}}),
    (BULK, {"context": {}}),
    (f"{BULK}/beta", {"context": {}}),
]
TRACK: tuple[str, Any] = ("/api/v2/track", {"events": [{"id": "e1", "type": "track", "name": "bought", "unit": "u"}]})
STREAM: tuple[str, Any] = (CLIENT_STREAM, {"context": {}})


@pytest.mark.parametrize(("target", "body"), REQUESTS)
async def test_an_answer_comes_from_what_is_current_when_the_body_is_there(
    world: World, target: str, body: dict[str, Any]
) -> None:
    """A change that arrived while the body was under way counts."""
    request = SlowRequest(world, target, body)
    await settle()
    world.commit({"beta": flag(enabled=False)})
    await request.complete()
    await request.task
    assert request.status == 200
    assert b'"value":false' in request.raw


@pytest.mark.parametrize(("target", "body"), [*REQUESTS, TRACK, STREAM])
async def test_a_key_that_is_revoked_while_the_body_is_under_way_is_401(
    world: World, target: str, body: dict[str, Any]
) -> None:
    """Nothing is answered, taken or opened with it."""
    request = SlowRequest(world, target, body)
    await settle()
    world.commit(credentials={})
    await request.complete()
    assert request.status == 401
    await request.task


async def test_a_stream_with_a_slow_body_begins_with_what_is_current(world: World) -> None:
    """Nobody would ever tell it of a change that came before it was open."""
    async with world.running():
        request = SlowRequest(world, *STREAM)
        await settle()
        world.commit({"beta": flag(enabled=False)})
        await settle()
        await request.complete()
        (put,) = request.events
        assert data(put)["revision"] == 2
        assert data(put)["flags"]["beta"]["value"] is False
        await request.leave()


async def test_a_key_that_is_revoked_while_a_revision_is_waited_for_is_401(world: World) -> None:
    """The revision that the request names arrives, and takes the key with it."""
    asked = asyncio.create_task(
        world.call("POST", f"{BULK}?flagConfigEtag=%22e1:2%22", {"context": {}}, key=Kind.CLIENT)
    )
    await settle()
    world.commit(credentials={})
    assert (await asked).status == 401


# --- followers --------------------------------------------------------------------------------------------------------


class SlowLog:
    """A change log that keeps nothing and answers when the test says so."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = 0
        self.most_at_once = 0

    async def changes(self, environment_id: str, after: int, upto: int) -> Sequence[ChangeSet] | None:  # noqa: ARG002 - the seam
        self.asked += 1
        self.most_at_once = max(self.most_at_once, self.asked)
        await self.answers.wait()
        self.asked -= 1
        return None


def following() -> tuple[World, SlowLog]:
    log = SlowLog()
    world = World(FakeClock(), history=log)
    for ref in (world.ref, STAGING):
        world.snapshot({"beta": flag()}, ref=ref, revision=50)
    return world, log


async def waiting(world: World) -> Connection:
    token = "1.e1.000000010000-1-00000000,000000020000-1-00000000"
    stream = world.connect("/api/v2/stream", key=Kind.RELAY, last_event_id=token)
    await settle()
    assert not stream.started
    return stream


async def test_what_a_follower_lacks_is_looked_up_for_all_environments_at_once() -> None:
    """Two slow lookups take as long as one."""
    world, log = following()
    async with world.running():
        stream = await waiting(world)
        assert log.most_at_once == 2
        log.answers.set()
        await settle()
        await stream.leave()


async def test_environments_that_come_and_go_while_a_stream_is_opened_are_followed_and_not() -> None:
    """The key lost one and got another while the log was read; the stream is about what the key opens in the end."""
    world, log = following()
    added = reference(3, "added")
    async with world.running():
        stream = await waiting(world)
        world.commit(credentials={}, ref=STAGING)
        world.snapshot({"beta": flag()}, ref=added)
        await settle()
        log.answers.set()
        await settle()
        listed = {each["key"] for each in data(stream.events[0])["environments"]}
        assert listed == {"production", "added"}
        sent = {data(each)["environment"]["id"] for each in stream.events if each.event == "snapshot"}
        assert sent == {world.ref.id, added.id}
        await stream.leave()


async def test_a_follower_whose_key_goes_while_it_waits_is_401() -> None:
    """Nothing was sent yet, so it hears the reason."""
    world, log = following()
    stream = await waiting(world)
    for ref in (world.ref, STAGING):
        world.commit(credentials={}, ref=ref)
    log.answers.set()
    await settle()
    assert stream.started["status"] == 401
    await stream.task


# --- large contexts ---------------------------------------------------------------------------------------------------


def with_context_limit(limit: int = 1_024) -> World:
    world = World(FakeClock(), Serve(streams=Streams(context_bytes=limit)))
    world.snapshot({"beta": flag()})
    return world


async def test_a_stream_takes_no_context_over_its_limit() -> None:
    """In the URL or in the body; what an evaluation may have is another limit."""
    world = with_context_limit()
    big = {"plan": "x" * 1_024}
    for answer in (
        await world.call("GET", f"{CLIENT_STREAM}?context={context_parameter(**big)}", key=Kind.CLIENT),
        await world.call("POST", CLIENT_STREAM, {"context": big}, key=Kind.CLIENT),
    ):
        assert (answer.status, answer.json["code"]) == (413, "context_too_long")
    assert (await world.call("POST", "/api/v2/bootstrap", {"context": big}, key=Kind.CLIENT)).status == 200


async def test_an_ofrep_token_carries_no_context_over_the_limit() -> None:
    """The URL that bulk gives works, unfiltered; a token of a relay that allows more is 413."""
    world = with_context_limit()
    big = {"plan": "x" * 1_024}
    bulk = await world.call("POST", BULK, {"context": big}, key=Kind.CLIENT)
    stream = world.connect(bulk.json["eventStreams"][0]["endpoint"]["requestUri"], key=None)
    await settle()
    assert stream.started["status"] == 200
    await stream.leave()
    fingerprint = next(
        each.fingerprint for each in world.configuration().credentials.values() if each.kind == Kind.CLIENT
    )
    slot = world.clock.wall_ms() // 3_600_000
    token = issue(StreamToken(fingerprint, slot, big), world.ref.id, "stream-secret")
    assert (await world.call("GET", f"/ofrep/v1/stream?token={token}", key=None)).status == 413


@pytest.mark.parametrize("path", ["client", "ofrep"])
async def test_a_stream_that_is_over_holds_no_context(world: World, path: str) -> None:
    """A timer may hold the stream for a while longer; the context, and old configurations, are let go of."""
    target = f"{CLIENT_STREAM}?context={context_parameter(plan='pro')}"
    if path == "ofrep":
        bulk = await world.call("POST", BULK, {"context": {"plan": "pro"}}, key=Kind.CLIENT)
        target = bulk.json["eventStreams"][0]["endpoint"]["requestUri"]
    connection = world.connect(target)
    await settle()
    (stream,) = world.services.streams._registry.all()
    assert stream.grant.configurations == ()
    await connection.leave()
    assert stream._context is None  # type: ignore[attr-defined]


async def test_a_context_that_is_kept_as_text_is_evaluated_like_any_other(world: World) -> None:
    """A change is told to those whose value it changes, also with a context of some size."""
    async with world.running():
        stream = world.connect(f"{CLIENT_STREAM}?context={context_parameter(targetingKey='u', noise='x' * 2_000)}")
        await settle()
        world.commit({"beta": flag(targets=[{"variation": "off", "units": ["u"]}])})
        await settle()
        assert [event.event for event in stream.events] == ["put", "patch"]
        await stream.leave()


# --- what a client key may learn --------------------------------------------------------------------------------------


async def test_a_client_key_learns_no_hidden_flag_and_no_group_from_metadata(world: World) -> None:
    """A prerequisite is named only if the client sees it; an exclusion group never is. Server keys see both."""
    world.commit(
        {
            "hidden": flag(enabled=False, client_side=False),
            "shown": flag(enabled=False),
            "on-hidden": flag(prerequisites=[{"flag": "hidden"}]),
            "on-shown": flag(prerequisites=[{"flag": "shown"}]),
            "one": flag(group="checkout"),
            "two": flag(group="checkout"),
        }
    )
    found: dict[Kind, list[str]] = {}
    for kind in (Kind.CLIENT, Kind.SERVER):
        bulk = await world.call("POST", BULK, {"context": {"targetingKey": "u"}}, key=kind)
        named = [each["metadata"].get("halyardBlockedBy") for each in bulk.json["flags"]]
        found[kind] = sorted(name for name in named if name)
        single = await world.evaluate("on-hidden", key=kind)
        assert single.json["metadata"]["halyardReason"] == "PREREQUISITE_FAILED"
        assert ("halyardBlockedBy" in single.json["metadata"]) is (kind == Kind.SERVER)
    assert found == {Kind.CLIENT: ["shown"], Kind.SERVER: ["checkout", "hidden", "shown"]}


# --- terms ------------------------------------------------------------------------------------------------------------


def changed(world: World, of: Kind, **members: Any) -> dict[str, bytes]:
    """Return the credentials with one of them changed, its id kept."""
    objects = {each: orjson.loads(raw) for each, raw in world.credentials(origins=[PAGE]).items()}
    fingerprint = credential(world.keys[of], of)["hash"]
    for obj in objects.values():
        if obj["hash"] == fingerprint:
            obj.update(members)
    return {each: orjson.dumps(obj, option=orjson.OPT_SORT_KEYS) for each, obj in objects.items()}


@pytest.mark.parametrize(
    "members", [{"scopes": []}, {"kind": "server", "scopes": []}, {"origins": ["https://other.example.com"]}]
)
async def test_a_stream_ends_when_its_key_would_not_open_it_any_more(world: World, members: dict[str, Any]) -> None:
    """Scope and origin are asked for again, not only whether the key exists."""
    world.commit(credentials=world.credentials(origins=[PAGE]))
    async with world.running():
        stream = world.connect(f"{CLIENT_STREAM}?context=e30", origin=PAGE)
        await settle()
        world.commit(credentials=changed(world, Kind.CLIENT, **members))
        await settle()
        assert data(stream.events[-1]).get("reason") == "revoked"
        await stream.task


async def test_a_change_stream_ends_when_its_key_becomes_of_another_kind(world: World) -> None:
    """Client keys may not follow."""
    async with world.running():
        stream = world.connect("/api/v2/stream", key=Kind.SERVER)
        await settle()
        world.commit(credentials=changed(world, Kind.SERVER, kind="client"))
        await settle()
        assert data(stream.events[-1]).get("reason") == "revoked"
        await stream.task


async def test_an_ofrep_stream_needs_the_scope_to_read(world: World) -> None:
    """The token names a key; what the key may do is asked when it is used."""
    bulk = await world.call("POST", BULK, {"context": {}}, key=Kind.CLIENT)
    target = bulk.json["eventStreams"][0]["endpoint"]["requestUri"]
    world.commit(credentials=changed(world, Kind.CLIENT, scopes=[]))
    assert (await world.call("GET", target, key=None)).status == 403
