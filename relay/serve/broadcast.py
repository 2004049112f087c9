"""Who is told of a change and when, and how streams are kept alive and sent away.

A change is announced in the store's swap and costs that moment a note in a set; the publisher then goes through the
streams of the environment in slices, so that requests get their turn between them. No stream has a queue or a task
besides its request's own, and no client is waited for: one that takes nothing is cut by the deadline. Two loops,
`run_publisher` and `run_timers`, have to be kept running by the process.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final

from relay.clock import Clock, parse_rfc3339_ms
from relay.engine.evaluate import next_change_at
from relay.errors import Problem
from relay.metrics import RelayMetrics
from relay.serve.access import Access, Grant
from relay.serve.blocked import Blocked
from relay.serve.guard import Receive, Scope, Send
from relay.serve.held import Holding, holding_of
from relay.serve.outlet import Outlet, connection_of, until_disconnected
from relay.serve.problems import unavailable
from relay.serve.registry import SLICE, Registry, slices
from relay.serve.stream import Stream
from relay.serve.telling import tell
from relay.serve.update import Update
from relay.serve.waiting import Arrivals
from relay.settings import Streams as StreamSettings
from relay.sync.slices import in_slices
from relay.sync.store import Store, Swap

logger = logging.getLogger(__name__)

TICK_S: Final = 0.1
_EXPIRY_CHECK_S: Final = 1.0
# After a goodbye has been said to everybody, what the last clients get to take it.
_LINGER_S: Final = 1.0
# Another time for each of those who are sent away, or they would come back together.
_COME_BACK_S: Final = (1, 10)

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Broadcast:
    """All open streams of the process."""

    def __init__(
        self, store: Store, access: Access, settings: StreamSettings, clock: Clock, metrics: RelayMetrics
    ) -> None:
        self.arrivals = Arrivals(store, clock)
        self._store = store
        self._access = access
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._registry = Registry(settings)
        self._blocked = Blocked(settings.send_deadline_s)
        self._timers: list[tuple[float, int, Stream]] = []
        self._flushes: list[tuple[float, int, Stream]] = []
        self._order = count()
        self._stale: dict[str, int | None] = {}
        self._expiry_check_s = 0.0
        self._regrant_now = False
        self._expire_now = False
        self._change_due_ms: dict[str, int | None] = {}
        self._news = asyncio.Event()
        self._preparing = asyncio.Lock()
        self._unsubscribe = store.subscribe(self._on_swap)
        metrics.streams_open.read_from(lambda: {(kind,): n for kind, n in self.counts().items()})

    # --- one stream -------------------------------------------------------------------------------------------------

    async def serve(self, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry a stream until its connection ends. Call with the request's body read.

        Raises:
            Problem: see `admit`; nothing has been sent then.
        """
        if scope["method"] == "HEAD":
            raise Problem(405, "method_not_allowed", "A stream has no HEAD.", headers={"Allow": "GET"})
        self.admit(stream.grant.fingerprint)
        self._begin(stream)
        holding = holding_of(scope)
        if holding is None:
            await self._carry(stream, scope, receive, send)
        else:
            await self._hand_over(stream, holding, send)

    async def _hand_over(self, stream: Stream, holding: Holding, send: Send) -> None:
        """Begin the answer and return: the connection then tells what becomes of it."""
        try:
            holding.limit_send_buffer(self._settings.send_buffer_bytes)
            holding.end_with_connection()
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await self._prepare_first(stream)
            connection = holding.hold(stream, self)
        except ConnectionError:
            self.on_lost(stream)
        except BaseException:
            self.on_lost(stream)
            raise
        else:
            self._guarded(stream, stream.open, connection)

    async def _carry(self, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        """Write through the request, for as long as it lives."""
        try:
            connection = connection_of(scope)
            connection.limit_send_buffer(self._settings.send_buffer_bytes)
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await self._prepare_first(stream)
            stream.open(Outlet(send, connection, partial(self.on_blocked, stream, 0), partial(self.on_ready, stream)))
            await until_disconnected(receive)
        except asyncio.CancelledError:
            # A server that lends no connection can only be left; anybody else's cancellation is not ours to keep.
            if not stream.was_cut:
                raise
        finally:
            self.on_lost(stream)

    async def _prepare_first(self, stream: Stream) -> None:
        """Do the work of a long first frame in slices; call when the stream is registered, so that it misses nothing.

        One stream after the other: of many that did this at once, each would take a slice of every turn of the loop.
        """
        steps = stream.prepare_first()
        if steps is not None:
            async with self._preparing:
                await in_slices(steps)

    def flush_later(self, stream: Stream, delay_s: float) -> None:
        """Let a stream send what it owes after a while, in place of at once."""
        if delay_s < TICK_S:
            self._guarded(stream, stream.flush)
        else:
            heappush(self._flushes, (self._clock.monotonic() + delay_s, next(self._order), stream))

    def admit(self, key_fingerprint: str) -> None:
        """Make sure that one more stream may be opened with this key, before any work is done for it.

        Raises:
            Problem: see `Registry.admit`; 503 while too much waits for clients that have not taken their first frames.
        """
        self._registry.admit(key_fingerprint)
        if self._blocked.waiting_bytes > self._settings.waiting_bytes:
            self._metrics.streams_postponed.add()
            after_s = random.randint(*_COME_BACK_S)  # noqa: S311 - spreads load, protects nothing
            raise unavailable("opening_too_many_streams", "Too many streams are being opened; come back.", after_s)

    def counts(self) -> dict[str, int]:
        """Return how many streams of each kind are open. May be asked from another thread."""
        return self._registry.counts()

    @property
    def blocked(self) -> int:
        """Return how many clients take nothing at the moment."""
        return len(self._blocked)

    def _begin(self, stream: Stream) -> None:
        stream.grant = self._registry.kept(stream.grant)
        self._registry.add(stream)
        due_s = min(self._clock.monotonic() + self._settings.heartbeat_s, stream.ends_at_s)
        heappush(self._timers, (due_s, next(self._order), stream))
        self._metrics.streams_opened.add(stream.kind)

    # --- what the connections tell, see `relay.serve.held.Holder` ---------------------------------------------------

    def on_blocked(self, stream: Stream, waiting_bytes: int) -> None:
        """Give a client that does not take its bytes a deadline."""
        self._blocked.add(stream, self._clock.monotonic(), waiting_bytes)

    def on_ready(self, stream: Stream) -> None:
        """Send what came up while the client was busy."""
        self._blocked.discard(stream)
        self._guarded(stream, stream.flush)

    def on_lost(self, stream: Stream) -> None:
        """Forget a stream."""
        stream.over()
        self._registry.discard(stream)
        self._blocked.discard(stream)

    # --- publishing -------------------------------------------------------------------------------------------------

    def _on_swap(self, swap: Swap) -> None:
        newest = swap.after or swap.before
        if newest is None:
            return
        # First what wakes the streams up: nothing that fails below may cost them a change.
        environment_id = newest.ref.id
        self._stale[environment_id] = None
        self._regrant_now = self._regrant_now or _credentials_differ(swap)
        self._news.set()
        self._change_due_ms.pop(environment_id, None)
        committed_ms = self._stale[environment_id] = _committed_ms(swap)
        self.arrivals.note(environment_id, committed_ms)

    async def run_publisher(self) -> None:
        """Tell the streams of every change, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._tell_news()
            except BaseException:
                # Whoever starts this again, the supervisor after a failure, finds what was not done.
                self._news.set()
                raise

    async def _tell_news(self) -> None:
        await self._look_at_keys()
        while self._stale:
            # The oldest first, and one that failed after the others: it must not keep them from being told.
            environment_id = next(iter(self._stale))
            committed_ms = self._stale.pop(environment_id)
            try:
                await self._publish(environment_id, committed_ms)
            except BaseException:
                self._stale.setdefault(environment_id, committed_ms)
                raise

    async def _publish(self, environment_id: str, committed_ms: int | None) -> None:
        configuration = self._store.get(environment_id)
        streams = self._registry.of_environment(environment_id)
        if configuration is None or not streams:
            return
        update = Update(configuration, self._clock.wall_ms())
        postponed: list[Stream] = []
        written = 0
        try:
            for slice_ in slices(streams):
                # Changes may come faster than they are told; a revoked key does not wait for the last of them.
                await self._look_at_keys()
                written += await tell(slice_, update, self._clock.monotonic(), postponed, self._fail)
            await in_slices(update.settle_steps())
        finally:
            # They have taken note of the change already, so a second pass would leave them out.
            self._spread(postponed)
            update.settle()
            self._metrics.coalesced_updates.add(n=update.coalesced)
        if committed_ms is not None and written:
            self._metrics.change_latency.observe(max(0, self._clock.wall_ms() - committed_ms) / 1000, written)

    def _spread(self, streams: list[Stream]) -> None:
        """Let clients that will answer with a request do so over a window, not all at once."""
        window_s = min(self._settings.refetch_window_s, len(streams) / self._settings.refetch_per_s)
        for stream in streams:
            self.flush_later(stream, random.uniform(0, window_s))  # noqa: S311 - spreads load, protects nothing

    def _guarded(self, stream: Stream, act: Callable[..., object], *args: object) -> object:
        """Do something for one stream, such that its failure is not the failure of all others."""
        try:
            return act(*args)
        except Exception as error:  # noqa: BLE001 - logged there
            self._fail(stream, error)
            return None

    def _fail(self, stream: Stream, error: Exception) -> None:
        logger.error("a stream failed and is cut", exc_info=error, extra={"kind": stream.kind})
        self._cut(stream, "error")

    # --- keys -------------------------------------------------------------------------------------------------------

    async def _look_at_keys(self) -> None:
        """Do what is due about keys, if anything is."""
        if self._regrant_now:
            self._regrant_now = False
            try:
                await self._regrant()
            except BaseException:
                self._regrant_now = True
                raise
        if self._expire_now:
            self._expire_now = False
            await self._expire()

    async def _regrant(self) -> None:
        """Look every key that has streams up again; end those that would not be opened any more."""
        for key_fingerprint in self._registry.key_fingerprints():
            grant = self._access.lookup(key_fingerprint)
            for slice_ in slices(self._registry.of_key(key_fingerprint)):
                for stream in slice_:
                    self._guarded(stream, self._regrant_one, stream, grant)
                await asyncio.sleep(0)

    def _regrant_one(self, stream: Stream, grant: Grant | None) -> None:
        if stream.is_over:
            return
        terms = stream.grant.terms
        opened = grant is not None and terms.breach(grant.credential) is None
        environment_ids = stream.covered_by(grant) if grant is not None and opened else frozenset[str]()
        if grant is None or not environment_ids:
            self._say_goodbye(stream, "revoked")
            return
        self._registry.move(stream, environment_ids)
        stream.regrant(grant.kept(terms))
        stream.flush()

    async def _expire(self) -> None:
        """End the streams of keys whose time has run out; nothing but the clock tells of that."""
        for key_fingerprint in self._registry.key_fingerprints():
            if self._access.lookup(key_fingerprint) is None:
                for slice_ in slices(self._registry.of_key(key_fingerprint)):
                    for stream in slice_:
                        self._say_goodbye(stream, "revoked")
                    await asyncio.sleep(0)

    # --- time -------------------------------------------------------------------------------------------------------

    async def run_timers(self) -> None:
        """Keep streams alive, cut those that take nothing, and notice that time alone changed a value; for ever."""
        while True:
            await self._clock.sleep(TICK_S)
            self._tick(self._clock.monotonic())

    def _tick(self, now_s: float) -> None:
        for stream in self._blocked.overdue(now_s):
            self._cut(stream, "slow")
        while self._flushes and self._flushes[0][0] <= now_s:
            _, _, stream = heappop(self._flushes)
            self._guarded(stream, stream.flush)
        while self._timers and self._timers[0][0] <= now_s:
            _, _, stream = heappop(self._timers)
            self._guarded(stream, self._on_timer, stream, now_s)
        self._notice_time_slices()
        if now_s >= self._expiry_check_s:
            self._expiry_check_s = now_s + _EXPIRY_CHECK_S
            self._expire_now = True
            self._news.set()
        self.arrivals.give_up(now_s)

    def _on_timer(self, stream: Stream, now_s: float) -> None:
        if stream.is_over:
            return
        if now_s >= stream.ends_at_s:
            self._say_goodbye(stream, "lifetime")
            return
        heappush(self._timers, (stream.on_time(now_s), next(self._order), stream))

    def _notice_time_slices(self) -> None:
        now_ms = self._clock.wall_ms()
        for environment_id in self._registry.environments():
            configuration = self._store.get(environment_id)
            if configuration is None or not configuration.environment.ramps:
                continue
            if environment_id not in self._change_due_ms:
                self._change_due_ms[environment_id] = next_change_at(configuration.environment, now_ms)
            due_ms = self._change_due_ms[environment_id]
            if due_ms is not None and now_ms >= due_ms:
                del self._change_due_ms[environment_id]
                self._stale.setdefault(environment_id, None)
                self._news.set()

    # --- ends -------------------------------------------------------------------------------------------------------

    async def goodbye_all(self, reason: str, spread_s: float) -> None:
        """Send every stream away over `spread_s` seconds and admit no new one; return as soon as none is left."""
        self._registry.is_closed = True
        streams = list(self._registry.all())
        random.shuffle(streams)
        started_s = self._clock.monotonic()
        for position, stream in enumerate(streams):
            due_s = started_s + spread_s * position / len(streams)
            while len(self._registry) and self._clock.monotonic() < due_s:
                await self._clock.sleep(min(TICK_S, due_s - self._clock.monotonic()))
            self._say_goodbye(stream, reason)
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        linger_until_s = self._clock.monotonic() + _LINGER_S
        while len(self._registry) and self._clock.monotonic() < linger_until_s:
            await self._clock.sleep(TICK_S / 10)
        for stream in self._registry.all():
            stream.cut()

    def close(self) -> None:
        """Hear no more of the store."""
        self._unsubscribe()

    def _say_goodbye(self, stream: Stream, reason: str) -> None:
        if self._guarded(stream, stream.end, reason):
            self._metrics.goodbyes.add(stream.kind, reason)

    def _cut(self, stream: Stream, reason: str) -> None:
        self._blocked.discard(stream)
        self._metrics.goodbyes.add(stream.kind, reason)
        stream.cut()


def _committed_ms(swap: Swap) -> int | None:
    """Return when a change was made, None where that is not known or cannot be read."""
    if swap.changes is None:
        return None
    try:
        return parse_rfc3339_ms(swap.changes.committed_at)
    except (ValueError, OverflowError):
        return None


def _credentials_differ(swap: Swap) -> bool:
    if swap.before is None or swap.after is None:
        return True
    before, after = swap.before.credentials, swap.after.credentials
    return before is not after and before != after
