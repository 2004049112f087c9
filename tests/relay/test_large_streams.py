"""Streams of large environments: what is worked out in slices is what would be worked out at once, and nobody waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.steps import finished
from relay.protocol.keys import Kind, fingerprint
from relay.protocol.sse import SseEvent, SseParser
from relay.serve import client_stream, update
from relay.serve.answers import native
from relay.serve.kept_context import KeptContext
from relay.serve.outcome import Outcome
from relay.serve.update import Update
from tests.clocks import FakeClock, settle
from tests.relay.live import data
from tests.relay.objects import Json, equals, flag, rule
from tests.relay.test_fanout import client, configurations, contexts
from tests.relay.world import World

FLAGS = 2 * update.SMALL
PATH = "/api/v2/client/stream?context=e30"
STEP_MS = 60_000


@contextmanager
def everything_is_large() -> Iterator[None]:
    """Let everything go in steps, one flag each where that is possible."""
    with (
        patch.object(update, "SMALL", 0),
        patch.object(client_stream, "SMALL", 0),
        patch.object(update, "_COMPARED_PER_STEP", 1),
        patch.object(update, "_PARTED_PER_STEP", 1),
        patch.object(client_stream, "_WRITTEN_PER_STEP", 1),
        patch("relay.engine.program._CHUNKS_PER_STEP", 1),
        patch("relay.engine.program.Program._are_many", lambda *_: True),
    ):
        yield


def plain_frame(outcome: Outcome) -> list[tuple[str | None, Any]]:
    """Return the events that tell of an outcome, from one call of the encoder each."""
    revision = outcome.configuration.revision
    told: list[tuple[str | None, Any]] = []
    if outcome.gone:
        told.append(("delete", orjson.dumps({"flags": sorted(outcome.gone), "revision": revision})))
    if outcome.evaluations:
        answers = {key: native(each) for key, each in sorted(outcome.evaluations.items())}
        told.append(("patch", orjson.dumps({"flags": answers, "revision": revision})))
    return told


def events(frame: bytes) -> list[SseEvent]:
    return SseParser().feed(frame)


@given(configurations, configurations, st.lists(contexts, min_size=1, max_size=4), st.booleans(), st.integers(0, 200))
def test_what_is_worked_out_in_steps_is_what_is_worked_out_at_once(
    before: dict[str, Any], after: dict[str, Any], asked: list[dict[str, Any]], public: bool, later_s: int  # noqa: FBT001
) -> None:  # fmt: skip
    """For any change, context and moment: keys, answers, what is gone, and the bytes that tell of it."""
    world = World(FakeClock())
    world.snapshot(before)
    grant = world.services.access.lookup(fingerprint(world.keys[Kind.CLIENT if public else Kind.SERVER]))
    assert grant is not None
    seen = world.configuration()
    world.commit({**dict.fromkeys(before), **after})
    now, now_ms = world.configuration(), 1_000_000 + later_s * 1_000
    sliced = Update(now, now_ms)
    for number, raw in enumerate(asked * 2):
        seen_ms, context = 1_000_000 + number % 3 * STEP_MS, KeptContext(raw, 8_192)
        with everything_is_large():
            steps = sliced.prepare(seen, grant, seen_ms, context)
            ahead = None if steps is None else finished(steps)
            found = sliced.view(seen, grant, seen_ms).outcome(seen_ms, context)
            assert steps is None or found is ahead
            frame = b"" if found is None else finished(client_stream._frame(now, found.evaluations, found.gone))
        whole = Update(now, now_ms).view(seen, grant, seen_ms).outcome(seen_ms, context)
        assert (found is None) == (whole is None)
        if found is not None and whole is not None:
            assert (found.evaluations, found.gone) == (whole.evaluations, whole.gone)
            assert [(event.event, event.data) for event in events(frame)] == plain_frame(whole)


@given(configurations, contexts, st.booleans())
def test_the_first_frame_is_the_same_prepared_or_not(held: dict[str, Any], context: Any, ahead: bool) -> None:  # noqa: FBT001
    """Byte for byte what one call of the encoder makes of all flags."""
    world = World(FakeClock())
    world.snapshot(held)
    stream = client(world, **context)
    with everything_is_large():
        steps = stream.prepare_first()
        assert steps is not None
        if ahead:
            finished(steps)
        frame = stream.next_frame()
    assert frame is not None
    answers = world.configuration().program.evaluate_all(context, world.clock.wall_ms(), client_side_only=True)
    (put,) = events(frame)
    shown = {"flags": {key: native(each) for key, each in answers.items()}, "revision": world.configuration().revision}
    assert (put.event, put.data) == ("put", orjson.dumps(shown))
    assert world.metrics.evaluations.value("stream") == len(answers)


@pytest.fixture
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop turn after every step."""
    monkeypatch.setattr("relay.sync.slices.SLICE_S", -1.0)


def many(text: str) -> dict[str, Json]:
    return {f"flag-{number}": flag(on=text, off="", rules=[rule(equals("plan", "pro"))]) for number in range(FLAGS)}


def changed(text: str) -> dict[str, Json | None]:
    return {**many(text)}


def values(event: SseEvent) -> set[str]:
    shown = data(event)["flags"]
    assert len(shown) == FLAGS
    return {each["value"] for each in shown.values()}


@pytest.mark.usefixtures("one_step_a_turn")
async def test_a_revision_that_comes_amid_a_sliced_pass_follows_it(world: World) -> None:
    """Each event is whole and of one revision, the newest comes last, and all that was told is counted."""
    world.snapshot(many("0"))
    async with world.running():
        stream = world.connect(PATH)
        await settle(100)
        world.commit(changed("1"))
        await settle(3)
        assert len(stream.events) == 1
        world.commit(changed("2"))
        await settle(300)
        assert [(event.event, values(event)) for event in stream.events] == [
            ("put", {"0"}), ("patch", {"1"}), ("patch", {"2"}),
        ]  # fmt: skip
        assert world.metrics.evaluations.value("stream") == 3 * FLAGS
        assert sum(row[5] for row in world.counts.rows if row[4] == "stream") == 3 * FLAGS
        await stream.leave()


@pytest.mark.usefixtures("one_step_a_turn")
async def test_a_revision_that_comes_while_a_stream_opens_is_the_first_that_it_tells(world: World) -> None:
    """What was prepared for the revision before is given up; it is neither sent nor counted."""
    world.snapshot(many("0"))
    async with world.running():
        stream = world.connect(PATH)
        await settle(2)
        assert stream.events == []
        world.commit(changed("1"))
        await settle(300)
        assert [(event.event, values(event)) for event in stream.events] == [("put", {"1"})]
        assert world.metrics.evaluations.value("stream") == FLAGS
        await stream.leave()


@pytest.mark.usefixtures("one_step_a_turn")
async def test_a_client_that_leaves_amid_a_sliced_pass_costs_nobody_anything(world: World) -> None:
    """The others are told, and nothing is counted for who has gone."""
    world.snapshot(many("0"))
    async with world.running():
        gone, stays = world.connect(PATH), world.connect(PATH)
        await settle(100)
        world.commit(changed("1"))
        await settle(3)
        await gone.leave()
        await settle(300)
        assert [values(event) for event in stays.events] == [{"0"}, {"1"}]
        assert world.metrics.evaluations.value("stream") == 3 * FLAGS
        await stays.leave()


@pytest.mark.usefixtures("one_step_a_turn")
async def test_a_client_that_takes_nothing_gets_the_newest_of_many_flags(world: World) -> None:
    """What two sliced passes mean to a busy client is told as one."""
    world.snapshot(many("0"))
    async with world.running():
        stream = world.connect(PATH)
        await settle(100)
        stream.stop_taking()
        for text in ("1", "2", "3"):
            world.commit(changed(text))
            await settle(200)
        stream.take_again()
        await settle(100)
        assert [values(event) for event in stream.events] == [{"0"}, {"1"}, {"3"}]
        await stream.leave()
