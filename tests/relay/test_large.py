"""Large configurations: taken up in slices, only what changed, and let go of a little at a time."""

import asyncio
from typing import Any

import pytest

from relay.engine.environment import gaps
from relay.engine.model import Environment
from relay.engine.parse import parse_flag
from relay.engine.program import compile_steps
from relay.engine.steps import finished
from relay.protocol.changes import Applied, Environments, Snapshot
from relay.protocol.encode import Audience, snapshot_lines
from relay.protocol.sse import SseEvent
from relay.protocol.state import change_between
from relay.sync import configuration as configuration_module
from relay.sync import gaps as gaps_module
from relay.sync.backoff import Backoff
from relay.sync.collector import give_back, size_of
from relay.sync.configuration import INTERPRETED_AT_MOST
from relay.sync.gaps import GapBook
from relay.sync.inbox import Inbox
from relay.sync.leftovers import FEW, leftovers, let_go
from relay.sync.settling import PAUSE_S, Settling
from relay.sync.slices import SLICE_S, in_slices
from relay.sync.snapshot_file import restore_steps
from relay.sync.snapshot_format import Content, decode_file, decode_file_steps, encode_file
from relay.sync.store import Store
from tests.clocks import FakeClock, settle
from tests.protocol.build import COMMITTED_AT, environment_ref, flag, state
from tests.relay.stream_server import until

MANY = {f"flag-{number}": flag() for number in range(400)}
CHANGED = {key: flag(2) for key in MANY}
ID = environment_ref().id


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Store:
    store = Store(clock)
    store.apply(Snapshot(state(1, flags=MANY), "start"))
    return store


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the flags that are parsed from now on."""
    keys: list[str] = []

    def noted(key: str, obj: Any) -> Any:
        keys.append(key)
        return parse_flag(key, obj)

    monkeypatch.setattr(configuration_module, "parse_flag", noted)
    return keys


def test_only_what_changed_is_parsed_and_compiled(store: Store, parsed: list[str]) -> None:
    """One flag of many by a change set, and by a snapshot that says the rest once more."""
    one = state(2, flags={**MANY, "flag-7": flag(2)})
    store.apply(change_between(state(1, flags=MANY), one, COMMITTED_AT))
    other = state(9, flags={**MANY, "flag-7": flag(2), "flag-8": flag(2)})
    store.apply(Snapshot(other, "gap"))
    assert parsed == ["flag-7", "flag-8"]
    program = store.configurations[ID].program
    assert len(list(compile_steps(program))) == 1


def test_what_is_large_is_compiled_before_it_is_served(store: Store) -> None:
    """Many interpreted flags would cost everybody who asks for all of them."""
    program = store.configurations[ID].program
    assert len(program.chunks) > INTERPRETED_AT_MOST
    assert all(chunk.function is not None for chunk in program.chunks)


async def test_a_small_change_is_compiled_after_it_is_served(store: Store, clock: FakeClock) -> None:
    """At once it is interpreted; of many changes in a row the last one alone is compiled."""
    task = asyncio.ensure_future(Settling(store, clock).run())
    await settle()
    before, programs = state(1, flags=MANY), []
    for number in range(2, 7):
        after = state(number, flags={**MANY, "flag-7": flag(number)})
        assert isinstance(store.apply(change_between(before, after, COMMITTED_AT)), Applied)
        before = after
        programs.append(store.configurations[ID].program)
        assert sum(chunk.function is None for chunk in programs[-1].chunks) == 1
        assert programs[-1].evaluate_all({}, 0)["flag-7"].version == number
        await settle()
    await clock.advance(PAUSE_S)
    assert [sum(chunk.function is None for chunk in each.chunks) for each in programs] == [1, 1, 1, 1, 0]
    store.remove(ID)
    await clock.advance(PAUSE_S)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.apply(Snapshot(state(1), "start"))
    await clock.advance(PAUSE_S)
    assert store.configurations[ID].program.chunks[0].function is None


async def test_the_loop_turns_after_every_slice() -> None:
    """As many steps as fit into a slice run on end, then everybody else has a turn."""
    now_s, turns, ran = 0.0, 0, []

    def steps() -> Any:
        nonlocal now_s
        for _ in range(10):
            now_s += SLICE_S / 2
            ran.append(turns)
            yield
        return "done"

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    await asyncio.sleep(0)
    assert await in_slices(steps(), lambda: now_s) == "done"
    task.cancel()
    # A turn after every two steps.
    assert [ran.count(turn) for turn in sorted(set(ran))] == [2, 2, 2, 2, 2]


def test_what_was_replaced_goes_in_portions(store: Store) -> None:
    """Where nothing of the old configuration is left, its flags are freed over many steps; later there is nothing."""
    after = state(2, flags=CHANGED)
    finished(store.apply_steps(change_between(state(1, flags=MANY), after, COMMITTED_AT)))
    assert store.configurations[ID].revision == 2
    assert sum(1 for _ in store.tidy_steps()) > len(MANY) / 100
    assert not list(store.tidy_steps())


def test_what_is_applied_at_once_leaves_nothing(store: Store) -> None:
    """Nobody has to tidy after it, nor after a small change."""
    store.apply(Snapshot(state(2, flags=CHANGED), "gap"))
    assert not list(store.tidy_steps())
    one = state(3, flags={**CHANGED, "flag-7": flag(3)})
    finished(store.apply_steps(change_between(state(2, flags=CHANGED), one, COMMITTED_AT)))
    assert not list(store.tidy_steps())


def test_leftovers_are_what_the_successor_has_not(store: Store) -> None:
    """Flags and chunks; everything where there is no successor; and the list is empty in the end."""
    before = store.configurations[ID]
    after = state(2, flags={**MANY, "flag-7": flag(2)})
    store.apply(change_between(before.state, after, COMMITTED_AT))
    replaced = leftovers(before, store.configurations[ID])
    assert replaced == [before.environment.flags["flag-7"], before.program.chunks[0]]
    everything = leftovers(before, None)
    assert len(everything) == len(MANY) + len(before.program.chunks) > FEW
    assert sum(1 for _ in let_go(everything)) > len(MANY) / 100
    assert everything == []


async def test_what_goes_is_let_go_of_a_moment_later(store: Store, clock: FakeClock) -> None:
    """By then streams have been told, and hold it no longer; an environment that is gone is gone at once."""
    task = asyncio.ensure_future(Settling(store, clock).run())
    await settle()
    store.cover(Environments(()))
    assert store.configurations == {}
    assert len(store._replaced) > len(MANY)
    await clock.advance(PAUSE_S)
    await until(lambda: not store._replaced)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_large_snapshot_comes_through_the_inbox_whole(store: Store, clock: FakeClock) -> None:
    """Read, applied and confirmed; what is between is never visible."""
    inbox = Inbox(store, clock, Backoff(), lambda: 0.5)
    after = state(2, flags=CHANGED)
    revisions = []
    task = asyncio.ensure_future(inbox.take(SseEvent("snapshot", tuple(snapshot_lines(after, "gap", Audience.RELAY)))))
    while not task.done():
        versions = {each.version for each in store.configurations[ID].environment.flags.values()}
        revisions.append((store.configurations[ID].revision, versions))
        await asyncio.sleep(0)
    assert set(map(str, revisions)) <= {"(1, {1})", "(2, {2})"}
    assert inbox.stats.applied == 1


def test_the_size_of_a_message_is_what_it_brings() -> None:
    """Objects of a snapshot, or of a change set; what is only removed costs nothing."""
    before, after = state(1, flags=MANY), state(2, flags={"flag-1": flag(2)})
    assert size_of(Snapshot(before, "start")) == len(MANY)
    assert size_of(change_between(before, after, COMMITTED_AT)) == 1


def test_giving_memory_back_changes_nothing(store: Store) -> None:
    """It concerns the system alone."""
    before = store.configurations[ID]
    give_back()
    assert store.configurations[ID] is before


def test_a_file_is_read_in_steps() -> None:
    """The same content as at once, with a pause for each portion and each line."""
    content = Content((state(1, flags=MANY),), 5)
    raw = b"".join(encode_file("t", content))
    assert finished(decode_file_steps(raw, "t")) == decode_file(raw, "t") == content
    assert sum(1 for _ in decode_file_steps(raw, "t")) > len(raw) >> 17


def test_small_environments_are_served_while_a_large_one_is_restored(clock: FakeClock) -> None:
    """Keys of the large one are not unknown meanwhile, as the store says that it lacks it."""
    store = Store(clock)
    content = Content((state(1, flags=MANY), state(1, number=2)), 5)
    steps = restore_steps(content, store)
    seen = [(len(store.configurations), store.is_complete, store.lacking) for _ in steps]
    small = environment_ref(2).id
    assert (1, False, frozenset({ID})) in seen
    assert all(not is_complete for held, is_complete, _ in seen if held < 2)
    assert set(store.configurations) == {ID, small}
    assert store.covered is None
    assert store.is_complete


def test_gaps_are_looked_for_once_for_a_content(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are known by the name of the content, so that no replaced environment is held for them."""
    looks: list[int] = []

    def noted(environment: Environment) -> Any:
        looks.append(environment.revision)
        return gaps(environment)

    monkeypatch.setattr(gaps_module, "gaps", noted)
    book = GapBook(store)
    for _ in range(2):
        assert book.of(store.configurations[ID]) == ()
    store.force_off(ID, frozenset({"flag-7"}))
    assert book.of(store.configurations[ID]) == ()
    store.apply(Snapshot(state(2, flags=CHANGED), "gap"))
    assert book.of(store.configurations[ID]) == ()
    assert looks == [1, 1, 2]
