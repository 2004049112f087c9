"""A model authority against real followers, under every fault that a network and a database can bring."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from relay.protocol.changes import Bookmark, ChangeSet
from relay.protocol.decode import parse_message
from relay.protocol.encode import Audience, encode_changes, snapshot_lines
from relay.protocol.overlays import ForcedOff
from relay.protocol.resume import parse_token
from relay.protocol.sse import SseEvent, SseParser, encode_event
from relay.protocol.state import change_between
from relay.sync.backoff import Backoff
from relay.sync.inbox import Inbox, StreamEnded
from relay.sync.store import Store, Swap
from tests.protocol import invariants
from tests.protocol.authority import ENVIRONMENTS, Authority, Replica, Session
from tests.protocol.build import COMMITTED_AT, credential, environment_ref, flag, segment
from tests.protocol.invariants import UNUSABLE, UNUSABLE_FLAG

ROUNDS_TO_CONVERGE = 4

log = logging.getLogger("relay.sync.inbox")


def _is_no_warning(record: logging.LogRecord) -> bool:
    # Invalid messages come by the thousand here; their warnings prove nothing and cost time.
    return record.levelno != logging.WARNING


class HandClock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s


Edit = Callable[[dict[str, dict[str, bytes]]], None]


def _sets_flag(key: str, version: int) -> Edit:
    return lambda objects: objects["flags"].update({key: flag(version) if version else UNUSABLE})


def _removes_flag(key: str) -> Edit:
    def edit(objects: dict[str, dict[str, bytes]]) -> None:
        objects["flags"].pop(key, None)

    return edit


def _sets_the_rest(version: int) -> Edit:
    def edit(objects: dict[str, dict[str, bytes]]) -> None:
        objects["segments"]["beta"] = segment(version)
        objects["credentials"] = {f"c{version}": credential(f"c{version}", f"{version:064x}")}
        objects["limits"][""] = b'{"evaluations_per_s":%d}' % version

    return edit


def _drop(frames: list[bytes], _: list[bytes], at: int, __: int) -> None:
    del frames[at : at + 1]


def _duplicate(frames: list[bytes], _: list[bytes], at: int, __: int) -> None:
    frames[at:at] = frames[at : at + 1]


def _reorder(frames: list[bytes], _: list[bytes], at: int, to: int) -> None:
    moved = frames[at : at + 1]
    del frames[at : at + 1]
    frames[to:to] = moved


def _replay(frames: list[bytes], past: list[bytes], at: int, to: int) -> None:
    # From the oldest that is remembered: it is most likely to be a snapshot.
    frames[to:to] = past[::-1][at : at + 1]


def _corrupt(frames: list[bytes], _: list[bytes], at: int, __: int) -> None:
    # Valid JSON, other content: only the hash can tell.
    frames[at : at + 1] = [frame.replace(b'"version":1', b'"version":4') for frame in frames[at : at + 1]]


FAULTS: Mapping[str, Callable[[list[bytes], list[bytes], int, int], None]] = {
    "drop": _drop,
    "duplicate": _duplicate,
    "reorder": _reorder,
    "replay": _replay,
    "corrupt": _corrupt,
}
HARMLESS_FAULTS = frozenset({"duplicate"})
"""Faults that a follower must not even notice."""

Way = tuple[list[tuple[str, int, int]], bool, int, int | None]
"""Faults with two places each, whether a bookmark follows, how many messages arrive, to which replica all go then."""

MAX_EPOCHS = 4
LONG_MS = 1_000_000_000_000


def _overlay(environment_id: str, flag_key: str) -> ForcedOff:
    return ForcedOff(environment_id, f"{environment_id[:8]}-{flag_key}", flag_key, 0, LONG_MS)


environment_ids = st.sampled_from([environment_ref(number).id for number in ENVIRONMENTS])
which = st.integers(0, 1)
places = st.integers(0, 3)
ways = st.tuples(
    st.lists(st.tuples(st.sampled_from(sorted(FAULTS)), places, places), max_size=2),
    st.booleans(),
    st.sampled_from([0, 1, 100, 100]),
    st.sampled_from([None, None, 0, 1]),
)
wakes = st.sampled_from([(0,), (0,), (0, 1), (1,), ()])
versions = st.integers(1, 3)
overlays = st.builds(_overlay, environment_ids, st.sampled_from(["checkout", "search"]))
flag_keys = st.sampled_from(["checkout", "search"])
edits = st.one_of(
    st.builds(_sets_flag, flag_keys, versions),
    st.builds(_removes_flag, flag_keys),
    st.builds(_sets_the_rest, versions),
    st.just(_sets_flag(UNUSABLE_FLAG, 0)),
    st.just(_removes_flag(UNUSABLE_FLAG)),
)


def run(steps: Coroutine[Any, Any, bool]) -> bool:
    """Run a coroutine that only ever lets the loop turn."""
    while True:
        try:
            steps.send(None)
        except StopIteration as done:
            return bool(done.value)


class SimulatedFollower:
    """A relay's store and inbox, fed by hand."""

    def __init__(self, authority: Authority, clock: HandClock) -> None:
        self.authority = authority
        self.store = Store(clock)
        self.inbox = Inbox(self.store, clock, Backoff(), lambda: 1.0)
        self.session: Session | None = None
        self.parser = SseParser()
        self.store.subscribe(self._check_swap)
        self.swaps_of_event = 0
        self.is_disturbed = False
        self.past: list[bytes] = []
        self.fault: AssertionError | None = None

    def _check_swap(self, swap: Swap) -> None:
        # The store survives a listener's exception, so the fault is kept and raised outside.
        if swap.before and swap.after and swap.before.state is swap.after.state:
            # Flags were forced off or let go: no message of an environment's history does that.
            return
        self.swaps_of_event += 1
        try:
            invariants.i1_monotonic(swap)
            invariants.i2_no_gap(swap)
            invariants.i9_durable(swap, self.authority.history)
            invariants.i3_atomic(swap, self.authority.history)
            invariants.i4_unique(swap)
            invariants.i8_never_unusable(swap)
        except AssertionError as broken:
            self.fault = broken

    @property
    def in_flight(self) -> list[bytes]:
        return [] if self.session is None else self.session.frames

    def connect(self, replica: Replica) -> None:
        self.disconnect()
        text = self.inbox.begin_stream()
        token = None if text is None else parse_token(text)
        self.session = replica.accept(token)
        self.is_disturbed = False
        if self.session is not None:
            sent = [parse_message(event.event, event.data) for event in SseParser().feed(b"".join(self.in_flight))]
            invariants.i5_resumable(token, sent, replica)

    def disconnect(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None
        self.parser = SseParser()

    def disturb(self, fault: str, at: int, to: int) -> None:
        self.is_disturbed |= fault not in HARMLESS_FAULTS
        FAULTS[fault](self.in_flight, self.past, at, to)

    def deliver(self, count: int, chunk_bytes: int) -> None:
        for _ in range(count):
            if not self.in_flight:
                return
            frame = self.in_flight.pop(0)
            self.past = [frame, *self.past[:8]]
            session = self.session
            for start in range(0, len(frame), chunk_bytes):
                if self.session is session:
                    for event in self.parser.feed(frame[start : start + chunk_bytes]):
                        self._take(event)
            assert self.fault is None, self.fault

    def _take(self, event: SseEvent) -> None:
        self.swaps_of_event = 0
        try:
            run(self.inbox.take(event))
        except StreamEnded as end:
            invariants.i5_no_needless_resync(str(end), is_disturbed=self.is_disturbed, refused=len(self.inbox.refusals))
            self.disconnect()
        else:
            message = parse_message(event.event, event.data) if event.event == "bookmark" else None
            if isinstance(message, Bookmark):
                invariants.i6_bookmarked(message, self.store, set(self.inbox.refusals))
                # With nothing more on its way, whatever was disturbed has been made good.
                self.is_disturbed &= bool(self.in_flight)
        if event.event in {"changes", "snapshot"}:
            assert self.swaps_of_event <= 1

    def deliver_invalid(self, frame: bytes) -> None:
        self.is_disturbed = True
        before, refused = self.store.configurations, self.inbox.stats.refused
        for event in self.parser.feed(frame):
            try:
                run(self.inbox.take(event))
            except StreamEnded:
                self.disconnect()
        invariants.i8_last_good(before, refused, self.store, self.inbox.stats.refused)

    def deliver_cut(self, frame: bytes) -> None:
        before = self.store.configurations
        events = self.parser.feed(frame)
        invariants.i10_whole_or_nothing(before, self.store, len(events))
        self.disconnect()


class ChangeStream(RuleBasedStateMachine):
    """Every rule is one thing that can happen; the promises are checked at each, convergence at the end."""

    @initialize()
    def start(self) -> None:
        log.addFilter(_is_no_warning)
        self.clock = HandClock()
        self.authority = Authority()
        self.replicas = [Replica(self.authority), Replica(self.authority)]
        self.followers = [SimulatedFollower(self.authority, self.clock) for _ in range(2)]
        for follower, replica in zip(self.followers, self.replicas, strict=True):
            follower.connect(replica)

    # What happens at the authority

    @rule(environment_id=environment_ids, edits=st.lists(edits, min_size=1, max_size=3), wake=wakes, way=ways)
    def change(self, environment_id: str, edits: list[Edit], wake: tuple[int, ...], way: Way) -> None:
        for edit in edits:
            self.authority.stage(environment_id, edit)
            self.authority.commit()
        for index in wake:
            self.replicas[index].catch_up()
        self._send(way)

    @rule(environment_id=environment_ids, edit=edits)
    def crash_before_commit(self, environment_id: str, edit: Edit) -> None:
        self.authority.stage(environment_id, edit)
        for replica in self.replicas:
            replica.catch_up()
        self.authority.crash()

    @rule(overlay=overlays, way=ways)
    def kill(self, overlay: ForcedOff, way: Way) -> None:
        for replica in self.replicas:
            replica.kill(overlay)
        self._send(way)

    @rule(overlay=overlays, way=ways)
    def release(self, overlay: ForcedOff, way: Way) -> None:
        for replica in self.replicas:
            replica.release(overlay)
        self._send(way)

    @rule(index=which)
    def bookmark(self, index: int) -> None:
        self.replicas[index].bookmark()

    @rule(environment_id=environment_ids, keep=st.integers(0, 3))
    def compact(self, environment_id: str, keep: int) -> None:
        self.authority.compact(environment_id, keep)

    @precondition(lambda self: self.authority.epoch_number < MAX_EPOCHS)
    @rule(age=st.integers(0, 3), way=ways)
    def restore(self, age: int, way: Way) -> None:
        self.authority.restore(age)
        for replica in self.replicas:
            replica.catch_up()
        self._send(way)

    # What happens on the way

    @rule(index=which, replica=which)
    def connect(self, index: int, replica: int) -> None:
        self.followers[index].connect(self.replicas[replica])

    @rule(index=which, count=st.integers(1, 4), chunk_bytes=st.sampled_from([7, 64, 100_000]))
    def deliver(self, index: int, count: int, chunk_bytes: int) -> None:
        self.followers[index].deliver(count, chunk_bytes)

    @rule(way=ways)
    def deliver_all(self, way: Way) -> None:
        self._send(way)

    def _send(self, way: Way) -> None:
        """Do to each follower's messages what the way does, then deliver as many as it lets through."""
        faults, with_bookmark, count, replica_after = way
        for replica in self.replicas:
            if with_bookmark:
                replica.bookmark()
        for follower in self.followers:
            for fault, at, to in faults:
                follower.disturb(fault, at, to)
            follower.deliver(count, 100_000)
            if replica_after is not None:
                follower.connect(self.replicas[replica_after])

    @rule(index=which, share=st.floats(0, 1, exclude_max=True))
    def cut(self, index: int, share: float) -> None:
        follower = self.followers[index]
        if follower.in_flight:
            frame = follower.in_flight[0]
            follower.deliver_cut(frame[: int(share * len(frame))])

    @rule(index=which, kind=st.sampled_from(["json", "type", "hash", "span"]), environment_id=environment_ids)
    def send_invalid(self, index: int, kind: str, environment_id: str) -> None:
        self.followers[index].deliver_invalid(self._invalid_frame(kind, environment_id))

    @rule(seconds=st.sampled_from([0.5, 5, 60]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now_s += seconds

    def _invalid_frame(self, kind: str, environment_id: str) -> bytes:
        head = self.authority.states[environment_id]
        if kind == "hash":
            return encode_event("snapshot", [self._snapshot_with_wrong_hash(environment_id)])
        change = encode_changes(self._empty_change(environment_id), Audience.RELAY)
        broken = {
            "json": change[:-1],
            "type": change.replace(b'"flags":{}', b'"flags":[]'),
            "span": change.replace(b'"to":%d' % (head.revision + 1), b'"to":%d' % (head.revision + 2)),
        }
        return encode_event("changes", [broken[kind]])

    def _empty_change(self, environment_id: str) -> ChangeSet:
        head = self.authority.states[environment_id]
        return change_between(head, replace(head, revision=head.revision + 1), COMMITTED_AT)

    def _snapshot_with_wrong_hash(self, environment_id: str) -> bytes:
        head = self.authority.states[environment_id]
        forged = replace(head, revision=head.revision + 1, content_hash=f"{1:032x}")
        return b"".join(snapshot_lines(forged, "start", Audience.RELAY))

    # What must hold in the end

    def teardown(self) -> None:
        log.removeFilter(_is_no_warning)
        self._heal()
        for _ in range(ROUNDS_TO_CONVERGE):
            self.clock.now_s += 120
            for follower, replica in zip(self.followers, self.replicas, strict=True):
                if follower.session is None:
                    follower.connect(replica)
            for replica in self.replicas:
                replica.bookmark()
            for follower in self.followers:
                follower.deliver(1_000, 100_000)
        for follower in self.followers:
            invariants.i7_convergent(self.authority, follower.store)
        for follower, replica in zip(self.followers, self.replicas, strict=True):
            # No bookmark tells of a lost overlay; the next connection repeats them all.
            follower.connect(replica)
            replica.bookmark()
            follower.deliver(1_000, 100_000)
            invariants.i11_obedient(self.authority, follower.store)

    def _heal(self) -> None:
        """End all faults: what cannot be used is taken back, and every replica reads what there is."""
        for environment_id in self.authority.states:
            self.authority.stage(environment_id, _removes_flag(UNUSABLE_FLAG))
            self.authority.commit()
        for replica in self.replicas:
            replica.catch_up()


TestChangeStream = ChangeStream.TestCase
# Fewer examples than this miss faults that the machine is there to find.
TestChangeStream.settings = settings(max_examples=max(100, settings().max_examples))
