"""What a served configuration makes of flags that are forced off, and what clients are told of it."""

from collections.abc import Generator
from typing import Any

from relay.engine.evaluate import evaluate
from relay.protocol.changes import Applied, Snapshot
from relay.protocol.keys import Kind
from relay.serve.freshness import Position, config_etag, hint_of, position_id, position_of
from tests.clocks import settle
from tests.relay.live import context_parameter
from tests.relay.objects import flag, ramp, reference
from tests.relay.world import Connection, World

BULK = "/ofrep/v1/evaluate/flags"
CLIENT_STREAM = f"/api/v2/client/stream?context={context_parameter(targetingKey='u')}"


# --- what is served ---------------------------------------------------------------------------------------------------


def value(world: World, key: str = "beta") -> object:
    return evaluate(world.configuration().environment, key, {"targetingKey": "u"}, world.clock.wall_ms()).value


def finished(steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def test_a_forced_flag_is_off_and_the_state_stays_the_authoritys(world: World) -> None:
    """Evaluation sees it; bytes, hash and revision, from which followers are fed, do not."""
    before = world.configuration()
    swaps: list[Any] = []
    world.store.subscribe(swaps.append)
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    after = world.configuration()
    assert value(world) is False
    assert after.state is before.state
    assert [(swap.before, swap.after, swap.changes) for swap in swaps] == [(before, after, None)]
    world.store.force_off(world.ref.id, frozenset())
    assert world.configuration() == before
    assert value(world) is True


def test_what_changes_nothing_is_no_swap(world: World) -> None:
    """A flag that is off already, one that is not there, and the same again."""
    world.commit({"gamma": flag(enabled=False)})
    before = world.configuration()
    for flags in ({"gamma"}, {"nowhere"}, set()):
        world.store.force_off(world.ref.id, frozenset(flags))
        assert world.configuration() is before
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    forced = world.configuration()
    world.store.force_off(world.ref.id, frozenset({"beta", "gamma"}))
    assert world.configuration() is forced


def test_later_revisions_stay_under_the_overlay(world: World) -> None:
    """Change sets, snapshots and new names alike; the flags of the authority come back as they are then."""
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    world.commit({"beta": flag(on="new", off="old"), "gamma": flag()})
    assert (value(world), value(world, "gamma")) == ("old", True)
    world.snapshot({"beta": flag(on=7, off=3)}, revision=9, reason="gap")
    assert value(world) == 3
    assert world.configuration().environment.revision == 9
    world.commit({"beta": None})
    assert "beta" not in world.configuration().environment.flags
    world.commit({"beta": flag(on=8, off=3)})
    world.store.force_off(world.ref.id, frozenset())
    assert value(world) == 8


def test_an_overlay_waits_for_its_environment(world: World) -> None:
    """After a restart it is known before the configuration is; no moment passes in which the flag is on."""
    seen: list[object] = []
    staging = reference(2, "staging")
    world.store.subscribe(lambda swap: seen.append(swap.after and swap.after.environment.flags["beta"].enabled))
    world.store.force_off(staging.id, frozenset({"beta"}))
    world.snapshot({"beta": flag()}, ref=staging)
    assert seen == [False]


def test_a_kill_while_a_message_is_prepared_neither_stops_nor_escapes_it(world: World) -> None:
    """The message goes on, and what it brings stands under the overlay."""
    many = {f"flag-{n}": flag() for n in range(100)}
    other = World(world.clock)
    prepared = other.snapshot({"beta": flag(), **many}, revision=2)
    steps = world.store.apply_steps(Snapshot(prepared, "gap"))
    next(steps)
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    assert isinstance(finished(steps), Applied)
    assert (value(world), world.configuration().revision) == (False, 2)


def test_a_ramp_that_was_killed_runs_no_more(world: World) -> None:
    """A killed flag does not wake streams by time."""
    world.commit({"beta": flag(fallthrough=ramp(world.clock.wall_ms(), every_s=60))})
    assert world.configuration().environment.ramps
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    assert not world.configuration().environment.ramps


# --- what clients are told --------------------------------------------------------------------------------------------


def test_the_version_names_what_differs_and_nothing_else(world: World) -> None:
    """It is the same at every relay and in any order, and empty as soon as the authority says the same."""
    world.commit({"gamma": flag()})
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    one = world.configuration().overlay_version
    world.store.force_off(world.ref.id, frozenset({"gamma", "beta"}))
    two = world.configuration().overlay_version
    world.commit({"gamma": flag(enabled=False)})
    assert len({"", one, two}) == 3
    assert world.configuration().overlay_version == one
    world.commit({"beta": flag(enabled=False)})
    assert world.configuration().overlay_version == ""


def test_a_name_with_an_overlay_is_read_back(world: World) -> None:
    """Epoch, revision and version; a client that names it is answered by any relay that has the revision."""
    assert position_id(world.configuration()) == "e1:1"
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    held = world.configuration()
    assert position_of(position_id(held)) == Position("e1", 1, held.overlay_version)
    hint = hint_of(config_etag(held), None)
    world.store.force_off(world.ref.id, frozenset())
    assert hint is not None
    assert hint.is_met(world.configuration(), 0)


async def test_etags_change_with_an_overlay_and_come_back_without_it(world: World) -> None:
    """No revision is needed for a new ETag, on OFREP and native routes alike."""
    for path in (BULK, "/api/v2/bootstrap"):
        first = (await world.call("POST", path, {"context": {}})).headers["etag"]
        world.store.force_off(world.ref.id, frozenset({"beta"}))
        killed = await world.call("POST", path, {"context": {}}, headers={"if-none-match": first})
        assert killed.status == 200
        assert killed.headers["etag"] != first
        world.store.force_off(world.ref.id, frozenset())
        assert (await world.call("POST", path, {"context": {}})).headers["etag"] == first


async def test_a_client_stream_gets_one_patch_and_no_second_when_the_revision_comes(world: World) -> None:
    """The kill is a patch at once; the authority's own revision of it, and the overlay's end, say nothing new."""
    async with world.running():
        connection = world.connect(CLIENT_STREAM)
        await settle()
        world.store.force_off(world.ref.id, frozenset({"beta"}))
        await settle()
        assert [event.event for event in connection.events] == ["put", "patch"]
        assert connection.events[1].id == position_id(world.configuration())
        assert b'"value":false' in connection.events[1].data
        world.commit({"beta": flag(enabled=False)})
        await settle()
        world.store.force_off(world.ref.id, frozenset())
        await settle()
        assert len(connection.events) == 2
        world.commit({"beta": flag()})
        await settle()
        assert [event.event for event in connection.events] == ["put", "patch", "patch"]
        await connection.leave()


async def ofrep_stream(world: World, last_id: str) -> Connection:
    body = (await world.call("POST", BULK, {"context": {"targetingKey": "u"}}, key=Kind.CLIENT)).json
    target = body["eventStreams"][0]["endpoint"]["requestUri"]
    connection = world.connect(target, key=None, last_event_id=last_id)
    await settle()
    return connection


async def test_ofrep_clients_are_told_to_ask_again(world: World) -> None:
    """At once, with the name of what they shall get; not again when the authority's revision says the same."""
    async with world.running():
        stream = await ofrep_stream(world, "e1:1")
        assert stream.events == []
        world.store.force_off(world.ref.id, frozenset({"beta"}))
        await settle()
        await world.fake.advance(0.2)
        killed = position_id(world.configuration())
        assert [event.id for event in stream.events] == [killed]
        world.commit({"beta": flag(enabled=False)})
        await world.fake.advance(0.2)
        assert len(stream.events) == 1
        await stream.leave()


async def test_an_ofrep_client_that_missed_an_overlay_is_told_when_it_comes_back(world: World) -> None:
    """Its beginning, its end, and another one are no revision, and yet it would be answered otherwise."""
    world.store.force_off(world.ref.id, frozenset({"beta"}))
    killed = position_id(world.configuration())
    async with world.running():
        for last_id, expected in (("e1:1", 1), (killed, 0), ("e1:1~0000000000000000", 1)):
            stream = await ofrep_stream(world, last_id)
            assert len(stream.events) == expected, last_id
            await stream.leave()
        world.store.force_off(world.ref.id, frozenset())
        stream = await ofrep_stream(world, killed)
        assert len(stream.events) == 1
        await stream.leave()


async def test_followers_hear_nothing_of_an_overlay(world: World) -> None:
    """The change stream carries the authority's own bytes; it neither repeats nor skips a revision."""
    async with world.running():
        stream = world.connect("/api/v2/stream", key=Kind.SERVER)
        await settle()
        before = len(stream.events)
        world.store.force_off(world.ref.id, frozenset({"beta"}))
        await settle()
        assert len(stream.events) == before
        change = world.commit({"gamma": flag()})
        await settle()
        (event,) = stream.events[before:]
        assert (event.event, change.content_hash.encode() in event.data) == ("changes", True)
        await stream.leave()
