"""The store: what becomes visible, when, and who is told."""

import gc
import logging
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from relay.engine.environment import assemble
from relay.engine.evaluate import evaluate
from relay.protocol.changes import (
    Applied,
    Bookmark,
    ChangeSet,
    Duplicate,
    Environments,
    Mark,
    NeedResync,
    Outcome,
    Refused,
    Snapshot,
    State,
    mark_of,
)
from relay.protocol.keys import Kind
from relay.protocol.state import change_between
from relay.sync.collector import collector_paused
from relay.sync.store import Origin, Staleness, Store, Swap
from relay.sync.window import Window
from tests.clocks import FakeClock
from tests.protocol.build import COMMITTED_AT, credential, environment_ref, flag, segment, state

FIRST = state(1)
ID = FIRST.ref.id


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Store:
    store = Store(clock)
    store.apply(Snapshot(FIRST, "start"))
    return store


def revision(number: int, **parts: Any) -> State:
    return state(number, **{"flags": {"checkout": flag(number)}, **parts})


def step(before: State, after: State) -> ChangeSet:
    return change_between(before, after, COMMITTED_AT)


def finished(steps: Generator[None, None, Outcome]) -> Outcome:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome


def test_a_snapshot_becomes_a_configuration(store: Store) -> None:
    """What was received can be evaluated, and its secrets and limits are at hand."""
    configuration = store.configurations[ID]
    assert configuration.state == FIRST
    assert configuration.revision == 1
    assert evaluate(configuration.environment, "checkout", {"targetingKey": "u"}, 0).value is True
    assert configuration.stream_secret == "s1"
    assert configuration.secure_mode_secret == "s2"
    assert configuration.limits == {"evaluations_per_s": 100}
    assert store.get(ID) is configuration
    assert store.get("other") is None


def test_secrets_are_not_shown(store: Store) -> None:
    """A configuration in a log shows neither secrets nor hashes of keys."""
    shown = repr(store.configurations[ID])
    assert "s1" not in shown
    assert "0" * 64 not in shown


def test_a_change_set_parses_only_what_changed(store: Store) -> None:
    """Objects that did not change are shared with the revision before."""
    both = revision(2, flags={"checkout": flag(), "search": flag()}, segments={"beta": segment()})
    store.apply(step(FIRST, both))
    before = store.configurations[ID]
    after = replace(both, revision=3)
    store.apply(step(both, after))
    assert store.configurations[ID].environment.flags["search"] is before.environment.flags["search"]
    assert store.configurations[ID].credentials is before.credentials


def test_a_later_snapshot_parses_only_what_changed(store: Store) -> None:
    """A snapshot that repeats an object does not parse it again."""
    before = store.configurations[ID].environment.flags["checkout"]
    store.apply(Snapshot(state(5, flags={"checkout": flag(), "search": flag()}), "gap"))
    assert store.configurations[ID].environment.flags["checkout"] is before
    assert store.configurations[ID].environment.revision == 5


def test_everything_of_a_change_set_arrives(store: Store) -> None:
    """Flags, segments, credentials, limits and secrets of one revision become visible together."""
    after = replace(
        revision(
            2, flags={"search": flag()}, segments={"beta": segment()}, credentials={"c2": credential("c2", "2" * 64)}
        ),
        limits=b"{}",
    )
    after = replace(after, credentials_hash=None)
    seen: list[Swap] = []
    store.subscribe(seen.append)
    assert isinstance(store.apply(step(FIRST, after)), Applied)
    configuration = store.configurations[ID]
    assert set(configuration.environment.flags) == {"search"}
    assert set(configuration.environment.segments) == {"beta"}
    assert set(configuration.credentials) == {"2" * 64}
    assert configuration.limits == {}
    assert [swap.after for swap in seen] == [configuration]


def test_earlier_maps_do_not_change(store: Store) -> None:
    """Who took the map of configurations keeps one consistent view."""
    taken = store.configurations
    store.apply(step(FIRST, revision(2)))
    assert taken[ID].revision == 1


@pytest.mark.parametrize(
    ("after", "path"),
    [
        (revision(2, flags={"checkout": b'{"type":"boolean"}'}), "flags.checkout"),
        (revision(2, segments={"beta": b"{}"}), "segments.beta"),
        (revision(2, credentials={"c1": credential("c1", kind=7)}), "credentials.c1.kind"),
        (revision(2, credentials={"c1": credential("c1", scopes="all")}), "credentials.c1.scopes"),
        (revision(2, credentials={"c1": credential("c1", expires_at="tomorrow")}), "credentials.c1.expires_at"),
        (replace(state(2), secrets=b'{"stream_secret":5}', credentials_hash=None), "secrets.stream_secret"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_last_good_stays(store: Store, after: State, path: str) -> None:
    """A refusal names the place; nobody is told of a swap and nothing changed (I8)."""
    seen: list[Swap] = []
    store.subscribe(seen.append)
    before = store.configurations
    for message in (step(FIRST, after), Snapshot(after, "gap")):
        outcome = store.apply(message)
        assert isinstance(outcome, Refused)
        assert outcome.path.startswith(path)
    assert store.configurations is before
    assert seen == []


def test_a_key_of_an_unknown_kind_opens_nothing(store: Store) -> None:
    """A newer authority's kind of key is left out, and the others keep working."""
    credentials = {"c1": credential("c1"), "c2": credential("c2", "2" * 64, kind="device")}
    store.apply(step(FIRST, revision(2, credentials=credentials)))
    assert set(store.configurations[ID].credentials) == {"0" * 64}


def test_outcomes_of_the_protocol_are_passed_on(store: Store) -> None:
    """Repeats and gaps are told as they are."""
    assert store.apply(Snapshot(FIRST, "start")) == Duplicate()
    assert isinstance(store.apply(step(revision(2), revision(3))), NeedResync)


def test_environments_have_a_maximum(clock: FakeClock) -> None:
    """One environment more than allowed is refused, one that is held goes on."""
    store = Store(clock, max_environments=1)
    store.apply(Snapshot(FIRST, "start"))
    assert store.apply(Snapshot(state(number=2), "start")) == Refused("environment", "more than 1 environments")
    assert isinstance(store.apply(step(FIRST, revision(2))), Applied)


def test_a_large_snapshot_is_taken_up_in_portions_that_make_one_whole(store: Store) -> None:
    """Thousands of flags never come at once, and what they depend on among each other is as if they had."""
    chain: dict[str, Any] = {"prerequisites": [{"flag": "flag-0"}], "group": "exclusive"}
    flags = {f"flag-{n}": flag(**(chain if n % 100 == 1 else {})) for n in range(2_500)}
    large = state(2, flags=flags, segments={"beta": segment()})
    portions = sum(1 for _ in store.apply_steps(Snapshot(large, "gap")))
    assert portions > 2_500 // 16
    environment = store.configurations[ID].environment
    assert environment == assemble(
        environment_id=ID,
        key=environment.key,
        project_id=environment.project_id,
        project_key=environment.project_key,
        revision=2,
        flags=environment.flags,
        segments=environment.segments,
    )
    assert len(environment.groups["exclusive"]) == 25
    assert gc.isenabled()


def test_the_collector_rests_while_much_is_built() -> None:
    """It is off for a large configuration, on again afterwards, and left alone for a small one or by others' choice."""
    with collector_paused(999):
        assert gc.isenabled()
    with collector_paused(1_000):
        assert not gc.isenabled()
        with collector_paused(1_000):
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()


def test_steps_that_were_overtaken_change_nothing(store: Store) -> None:
    """A message prepared while another one came first is not put on top of it."""
    many = {f"flag-{n}": flag() for n in range(100)}
    slow = store.apply_steps(Snapshot(state(2, flags=many), "gap"))
    next(slow)
    store.apply(step(FIRST, revision(2)))
    assert finished(slow) == NeedResync("another change came first")
    assert store.configurations[ID].state == revision(2)


def test_credentials_are_found_in_every_environment(store: Store) -> None:
    """A relay key or token is found with what it may do in each environment, until it is revoked."""
    relay_key = credential(
        "c9", "9" * 64, kind="relay", projects=["shop"], expires_at="2026-11-21T06:30:00.000Z", origins=["*"]
    )
    second = state(1, number=2, credentials={"c9": relay_key})
    store.apply(Snapshot(second, "start"))
    first = revision(2, credentials={"c1": credential("c1"), "c9": relay_key})
    store.apply(step(FIRST, first))
    found = store.credential("9" * 64)
    assert [configuration.ref.id for configuration, _ in found] == [second.ref.id, ID]
    held = found[0][1]
    assert held.kind is Kind.RELAY
    assert held.scopes == frozenset({"flags:read"})
    assert held.projects == frozenset({"shop"})
    assert (held.expires_at_ms, held.origins) == (1_795_242_600_000, ("*",))
    store.apply(step(first, revision(3)))
    assert [configuration.ref.id for configuration, _ in store.credential("9" * 64)] == [second.ref.id]
    store.remove(second.ref.id)
    assert store.credential("9" * 64) == []
    assert [configuration.revision for configuration, _ in store.credential("0" * 64)] == [3]


def test_environments_are_found_by_key(store: Store) -> None:
    """By environment key, and by project key or id where that is needed."""
    other = replace(state(number=2), ref=replace(environment_ref(2), key="env-1", project_key="blog", project_id="p2"))
    store.apply(Snapshot(other, "start"))
    assert [each.ref.id for each in store.by_key("env-1")] == [ID, other.ref.id]
    assert [each.ref.id for each in store.by_key("env-1", "blog")] == [other.ref.id]
    assert [each.ref.id for each in store.by_key("env-1", "p2")] == [other.ref.id]
    assert store.by_key("staging") == []


def test_a_listener_that_fails_stops_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged and counted; the swap and the other listeners go on."""

    def fail(_: Swap) -> None:
        raise RuntimeError("broken listener")

    seen: list[Swap] = []
    store.subscribe(fail)
    store.subscribe(seen.append)
    with caplog.at_level(logging.ERROR):
        store.apply(step(FIRST, revision(2)))
    assert store.listener_failures == 1
    assert "broken listener" in caplog.text
    assert [(swap.before and swap.before.revision, swap.after and swap.after.revision) for swap in seen] == [(1, 2)]
    assert seen[0].changes == step(FIRST, revision(2))


def test_a_listener_can_leave(store: Store) -> None:
    """After that it hears nothing, and leaving twice is no error."""
    seen: list[Swap] = []
    leave = store.subscribe(seen.append)
    leave()
    leave()
    store.apply(step(FIRST, revision(2)))
    assert seen == []


def test_recent_changes_are_kept_within_bounds(clock: FakeClock) -> None:
    """The window is dense up to the head; what fell out of it, or lies ahead, is not there."""
    store = Store(clock, window_changes=2)
    held = FIRST
    store.apply(Snapshot(held, "start"))
    assert store.recent(ID, 1) == ()
    for number in range(2, 6):
        store.apply(step(held, revision(number)))
        held = revision(number)
    recent = store.recent(ID, 3)
    assert recent is not None
    assert [change.revision for change in recent] == [4, 5]
    assert store.recent(ID, 5) == ()
    assert store.recent(ID, 2) is None
    assert store.recent(ID, 6) is None
    assert store.recent("other", 0) is None


def test_a_snapshot_starts_the_window_anew(store: Store) -> None:
    """Changes before a snapshot need not lead to it, the same revision and another epoch included."""
    store.apply(step(FIRST, revision(2)))
    store.apply(Snapshot(replace(revision(2), epoch="e2"), "epoch"))
    assert store.recent(ID, 1) is None
    assert store.recent(ID, 2) == ()


def test_the_window_is_bounded_in_bytes() -> None:
    """A few large change sets push older ones out as many small ones would; one alone may be too large to keep."""
    window = Window(0, max_changes=100, max_bytes=3_000)
    held = state(0)
    for number in range(1, 5):
        after = state(number, flags={"checkout": flag(metadata={"n": f"{number}" * 500})})
        window.append(step(held, after))
        held = after
    assert window.after(1) is None
    assert len(window.after(3) or ()) == 1


def test_environments_no_longer_covered_go(store: Store) -> None:
    """Listeners are told, the window is dropped, and new names of the others are taken up."""
    store.apply(Snapshot(state(number=2), "start"))
    seen: list[Swap] = []
    store.subscribe(seen.append)
    renamed = replace(environment_ref(2), key="production", project_key="store")
    store.cover(Environments((renamed,)))
    assert set(store.configurations) == {renamed.id}
    configuration = store.configurations[renamed.id]
    assert configuration.ref == renamed
    assert (configuration.environment.key, configuration.environment.project_key) == ("production", "store")
    assert [(swap.before is None, swap.after is None, swap.changes) for swap in seen] == [
        (False, True, None),
        (False, False, None),
    ]
    assert store.recent(ID, 1) is None
    assert store.recent(renamed.id, 1) == ()
    assert store.by_key("env-2") == []
    assert store.by_key("production") == [configuration]
    store.remove(ID)
    assert len(seen) == 2


def test_what_the_sender_lacks_itself_is_not_gone(store: Store) -> None:
    """It stays if it is held or was to be; everything else that is not listed goes, however incomplete the list is."""
    second, third, never = environment_ref(2), environment_ref(3), environment_ref(9)
    store.apply(Snapshot(state(number=2), "start"))
    store.apply(Snapshot(state(number=3), "start"))
    store.cover(Environments((environment_ref(1),), is_complete=False, lacking=frozenset({second.id, never.id})))
    assert set(store.configurations) == {ID, second.id}
    assert third.id not in store.configurations
    assert store.covered == frozenset({ID, second.id})
    store.cover(Environments((environment_ref(1),)))
    assert store.covered == frozenset(store.configurations) == frozenset({ID})


def test_whoever_was_told_half_is_not_complete(store: Store) -> None:
    """Neither while the sender lacks something, nor while something that is covered has not come."""
    complete = [store.is_complete]
    store.cover(Environments((environment_ref(1),), is_complete=False))
    complete.append(store.is_complete)
    store.cover(Environments((environment_ref(1), environment_ref(2))))
    complete.append(store.is_complete)
    assert store.lacking == frozenset({environment_ref(2).id})
    store.apply(Snapshot(state(number=2), "start"))
    complete.append(store.is_complete)
    assert complete == [True, False, False, True]


async def test_age_is_the_time_since_the_last_good_bookmark(store: Store, clock: FakeClock) -> None:
    """A bookmark that agrees makes the configuration fresh; one that does not leaves the age."""
    assert store.staleness == Staleness(Origin.UPSTREAM, None)
    assert store.confirm(Bookmark({ID: mark_of(FIRST)}, COMMITTED_AT)) == {}
    await clock.advance(12.5)
    assert store.age_s() == 12.5
    ahead = Mark("e1", 2, FIRST.content_hash)
    differing = store.confirm(Bookmark({ID: ahead, "other": ahead}, COMMITTED_AT))
    assert set(differing) == {ID, "other"}
    assert store.age_s() == 12.5
    assert store.confirm(Bookmark({ID: ahead}, COMMITTED_AT), held={ID}) == {}
    assert store.age_s() == 0


async def test_news_from_an_upstream_that_is_cut_off_is_as_old_as_its_own(store: Store, clock: FakeClock) -> None:
    """The age that a bookmark declares counts, an unknown one makes nothing fresher, and an older one nothing older."""
    marks = {ID: mark_of(FIRST)}
    assert store.confirm(Bookmark(marks, None, None)) == {}
    assert store.staleness == Staleness(Origin.UPSTREAM, None)
    store.confirm(Bookmark(marks, COMMITTED_AT, 600.0))
    await clock.advance(15)
    assert store.age_s() == 615
    assert store.confirmed_at_ms == clock.wall_ms() - 615_000
    store.confirm(Bookmark(marks, None, None))
    assert store.age_s() == 615
    store.confirm(Bookmark(marks, COMMITTED_AT, 5.0))
    await clock.advance(10)
    store.confirm(Bookmark(marks, COMMITTED_AT, 600.0))
    assert store.age_s() == 15


def test_age_of_what_an_earlier_process_confirmed(clock: FakeClock) -> None:
    """Before the first bookmark the age is told by the wall clock, never negative when that jumped."""
    store = Store(clock)
    assert store.staleness == Staleness(Origin.NOWHERE, None)
    store.apply(Snapshot(FIRST, "start"), Origin.FILE)
    store.confirmed_at_ms = clock.wall_ms() - 90_000
    assert store.staleness == Staleness(Origin.FILE, 90.0)
    clock.jump_wall(-3_600_000)
    assert store.age_s() == 0.0
