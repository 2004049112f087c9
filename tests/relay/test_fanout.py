"""Who is woken by a change, and what it costs to find out: counted, over ten thousand clients in process."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.model import Evaluation
from relay.engine.program import Program
from relay.protocol.keys import Kind, fingerprint
from relay.serve import client_stream
from relay.serve.client_stream import ClientStream
from relay.serve.kept_context import KeptContext
from relay.serve.ofrep_stream import OfrepStream
from relay.serve.outcome import Owed
from relay.serve.outlet import Outlet
from relay.serve.relevance import same_answer
from relay.serve.stream import Stream
from relay.serve.update import Update
from relay.settings import Serve, Streams
from tests.clocks import FakeClock, settle
from tests.relay.objects import SPLIT, equals, flag, ramp, rule
from tests.relay.world import World

CLIENTS = 10_000
FEWER = 2_000
COUNTRIES = ("NL", "DE", "FR", "BE", "US", "GB", "ES", "IT", "PL", "SE")
OFF = {"variation": "off"}


class Crowd:
    """Many streams in a world, whose bytes are counted and not kept."""

    def __init__(self, world: World, make: Callable[[int], Stream], count: int) -> None:
        self.world = world
        self.streams = [make(number) for number in range(count)]
        self.told: Counter[int] = Counter()
        self.frames: set[bytes] = set()
        for number, stream in enumerate(self.streams):
            world.services.streams._begin(stream)
            stream.open(Outlet(self._sink(number), Nobody(), lambda: None, lambda: None))
        self.forget()

    def _sink(self, number: int) -> Callable[[Any], Any]:
        async def send(message: Any) -> None:
            self.told[number] += 1
            self.frames.add(message["body"])

        return send

    def forget(self) -> None:
        self.told.clear()
        self.frames.clear()


class Nobody:
    """A connection that nobody cuts."""

    def abort(self) -> None:
        raise AssertionError

    def limit_send_buffer(self, _send_buffer_bytes: int) -> None:
        raise AssertionError


def client(world: World, **context: Any) -> ClientStream:
    grant = world.services.access.lookup(fingerprint(world.keys[Kind.CLIENT]))
    assert grant is not None
    return ClientStream(
        grant,
        configuration=world.configuration(),
        context=KeptContext(context, 8_192),
        ledger=world.services.ledger,
        settings=world.settings.streams,
        clock=world.clock,
    )


def mixed(world: World, count: int) -> Crowd:
    def one(number: int) -> ClientStream:
        return client(world, targetingKey=f"user-{number}", country=COUNTRIES[number % len(COUNTRIES)])

    return Crowd(world, one, count)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts evaluations by flag."""
    counted: Counter[str] = Counter()
    evaluate = Program.evaluate

    def counting(program: Program, key: str, context: Any, now_ms: int, **options: bool) -> Evaluation:
        counted[key] += 1
        return evaluate(program, key, context, now_ms, **options)

    monkeypatch.setattr(Program, "evaluate", counting)
    return counted


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every event that is encoded, by name."""
    noted: list[str] = []
    event = client_stream._event

    def noting(name: str, *rest: Any) -> bytes:
        noted.append(name)
        return event(name, *rest)

    monkeypatch.setattr(client_stream, "_event", noting)
    return noted


async def test_a_rule_for_one_country_wakes_its_clients_and_nobody_else(
    world: World, evaluated: Counter[str], encoded: list[str]
) -> None:
    """Of 10,000 clients the 1,000 in the Netherlands hear, in the same bytes; each country is evaluated once."""
    world.commit({"dutch": flag(fallthrough=OFF)})
    crowd = mixed(world, CLIENTS)
    encoded.clear()
    evaluated.clear()
    async with world.running():
        world.commit({"dutch": flag(fallthrough=OFF, rules=[rule(equals("country", "NL"))])})
        await settle(100)
        dutch = {number for number in range(CLIENTS) if COUNTRIES[number % len(COUNTRIES)] == "NL"}
        assert crowd.told == dict.fromkeys(dutch, 1)
        assert (len(crowd.frames), encoded) == (1, ["patch"])
        assert evaluated == {"dutch": 2 * len(COUNTRIES)}
        assert world.metrics.evaluations.value("stream") == CLIENTS * 2 + len(dutch)


async def test_a_change_for_everybody_is_evaluated_and_encoded_once(
    world: World, evaluated: Counter[str], encoded: list[str]
) -> None:
    """A flag that depends on nothing has one answer, whatever the 2,000 contexts say."""
    crowd = mixed(world, FEWER)
    encoded.clear()
    evaluated.clear()
    async with world.running():
        world.commit({"beta": flag(enabled=False)})
        await settle(100)
        assert len(crowd.told) == FEWER
        assert (encoded, evaluated) == (["patch"], {"beta": 2})
        assert world.metrics.evaluations.value("stream") == FEWER * 2


async def test_a_ramp_that_took_no_step_costs_a_change_nothing(world: World, evaluated: Counter[str]) -> None:
    """What only time can change is evaluated when time has come to a step, and then for every client."""
    world.commit({"slow": flag(fallthrough=ramp(world.clock.wall_ms(), every_s=60))})
    crowd = mixed(world, FEWER)
    async with world.running():
        world.commit({"beta": flag(enabled=False)})
        await settle(100)
        assert len(crowd.told) == FEWER
        assert evaluated == {"beta": 2}
        await world.fake.advance(61)
        await settle(200)
        assert evaluated["slow"] >= 2 * FEWER


async def test_a_split_is_evaluated_for_each_and_encoded_for_each_answer(
    world: World, evaluated: Counter[str], encoded: list[str]
) -> None:
    """Every unit has a place of its own; the half that moves gets the same bytes."""
    crowd = mixed(world, FEWER)
    encoded.clear()
    evaluated.clear()
    async with world.running():
        world.commit({"beta": flag(fallthrough=SPLIT)})
        await settle(200)
        assert 900 < len(crowd.told) < 1_100
        assert (encoded, evaluated) == (["patch"], {"beta": 2 * FEWER})


async def test_ofrep_clients_that_a_change_does_not_concern_are_left_alone_and_the_others_spread() -> None:
    """The 200 in the Netherlands are told to ask again, over a window and not at once."""
    world = World(FakeClock(), Serve(streams=Streams(refetch_per_s=100)))
    world.snapshot({"dutch": flag(fallthrough=OFF)})
    grant = world.services.access.lookup(fingerprint(world.keys[Kind.CLIENT]))
    assert grant is not None

    def one(number: int) -> OfrepStream:
        return OfrepStream(
            grant,
            configuration=world.configuration(),
            context=KeptContext({"country": COUNTRIES[number % len(COUNTRIES)]}, 8_192),
            arrivals=world.services.streams.arrivals,
            settings=world.settings.streams,
            clock=world.clock,
            is_current=True,
        )

    crowd = Crowd(world, one, FEWER)
    async with world.running():
        world.commit({"dutch": flag(fallthrough=OFF, rules=[rule(equals("country", "NL"))])})
        await settle(100)
        assert len(crowd.told) < 40
        await world.fake.advance(1)
        assert 60 < len(crowd.told) < 150
        await world.fake.advance(1.2)
        assert set(crowd.told) == set(range(0, FEWER, len(COUNTRIES)))
        assert len(crowd.frames) == 1


async def test_what_a_busy_client_lacks_is_told_together_and_counted(world: World) -> None:
    """Changes to a client that has not taken the last one are merged; each is counted."""
    world.commit({"text": flag(on="0", off="")})
    async with world.running():
        stream = world.connect("/api/v2/client/stream?context=e30")
        await settle()
        stream.stop_taking()
        for number in range(1, 5):
            world.commit({"text": flag(on=str(number), off="")})
            await settle()
        assert world.metrics.coalesced_updates.total() == 2  # the first was written, the second is owed
        stream.take_again()
        await settle()
        assert [event.event for event in stream.events] == ["put", "patch", "patch"]
        await stream.leave()


@given(
    st.frozensets(st.sampled_from("abc")), st.frozensets(st.sampled_from("abc")),
    st.frozensets(st.sampled_from("abc")), st.frozensets(st.sampled_from("abc")),
)  # fmt: skip
def test_what_is_owed_is_never_both_changed_and_gone(
    dirty: frozenset[str], gone: frozenset[str], dirty_later: frozenset[str], gone_later: frozenset[str]
) -> None:
    """The later word on a flag counts, and no flag is lost."""
    first, later = Owed(dirty - gone, gone), Owed(dirty_later - gone_later, gone_later)
    both = first.followed_by(later)
    assert not both.dirty & both.gone
    assert both.dirty | both.gone == first.dirty | first.gone | later.dirty | later.gone
    assert later.dirty <= both.dirty
    assert later.gone <= both.gone


# --- the same as without any sharing ----------------------------------------------------------------------------------

values = st.none() | st.sampled_from(["NL", "DE", "1", "true", "", 1, 1.0, True, 0, -0.0, 2**53, ["NL"], {"a": 1}])
contexts = st.fixed_dictionaries({}, optional={"country": values, "plan": values, "targetingKey": values})
conditions = st.builds(
    lambda attribute, wanted: equals(attribute, *wanted),
    st.sampled_from(["country", "plan"]),
    st.lists(st.sampled_from(["NL", "DE", "1", 1, True, 0]), min_size=1, max_size=2),
)
serves = st.sampled_from([{"variation": "on"}, OFF, SPLIT, ramp(1_000_000, every_s=60)])
flags = st.builds(
    lambda enabled, when, served, needs, is_public: flag(
        enabled=enabled,
        rules=[rule(each) for each in when],
        fallthrough=served,
        prerequisites=[{"flag": "first"}] if needs else [],
        client_side=is_public,
    ),
    st.booleans(), st.lists(conditions, max_size=2), serves, st.booleans(), st.integers(0, 4).map(bool),
)  # fmt: skip
configurations = st.fixed_dictionaries(
    {"first": flags.map(lambda made: made | {"prerequisites": []})}, optional={"second": flags, "third": flags}
)


@given(configurations, configurations, st.lists(contexts, min_size=2, max_size=8), st.booleans(), st.integers(0, 200))
def test_shared_outcomes_are_what_each_client_would_be_told_alone(
    before: dict[str, Any], after: dict[str, Any], asked: list[dict[str, Any]], public: bool, later_s: int  # noqa: FBT001
) -> None:  # fmt: skip
    """For any change, any contexts and any moment: the keys, the answers and what is gone."""
    world = World(FakeClock())
    world.snapshot(before)
    grant = world.services.access.lookup(fingerprint(world.keys[Kind.CLIENT if public else Kind.SERVER]))
    assert grant is not None
    seen = world.configuration()
    world.commit({**dict.fromkeys(before), **after})
    now = world.configuration()
    update = Update(now, 1_000_000 + later_s * 1_000)
    for number, context in enumerate(asked * 2):
        seen_ms = 1_000_000 + number % 3 * 60_000
        told = update.view(seen, grant, seen_ms).outcome(seen_ms, KeptContext(context, 8_192))
        dirty: set[str] = set()
        gone: set[str] = set()
        for key in before.keys() | after.keys():
            was, is_ = (
                found is not None and (found.client_side or not public)
                for found in (seen.environment.flags.get(key), now.environment.flags.get(key))
            )
            if was and not is_:
                gone.add(key)
            elif is_ and not (
                was
                and same_answer(
                    seen.program.evaluate(key, context, seen_ms), now.program.evaluate(key, context, update.now_ms)
                )
            ):
                dirty.add(key)
        assert (told is None) == (not dirty and not gone)
        if told is not None:
            assert (set(told.dirty), set(told.gone)) == (dirty, gone)
            for key, answer in told.evaluations.items():
                assert same_answer(answer, now.program.evaluate(key, context, update.now_ms))
