"""The stream of evaluated values for browsers and mobile clients: `put` once, then only what changed for this context.

`patch` carries flags whose value is another one, `delete` those that are gone; rules are never sent. A client that
falls behind owes nothing to history: the keys that moved since its last frame are kept as a set, and it gets their
newest values. Event ids name the configuration; a reconnect begins with `put` again, so nothing is ever replayed.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import ClassVar, Final

import orjson

from relay.clock import Clock
from relay.engine.model import Evaluation
from relay.engine.steps import finished
from relay.protocol.sse import encode_event
from relay.serve.access import Grant
from relay.serve.answers import Context, Ledger, native
from relay.serve.freshness import position_id
from relay.serve.held import HeldConnection, Offer
from relay.serve.kept_context import KeptContext
from relay.serve.outcome import Outcome, Owed
from relay.serve.stream import Stream, only
from relay.serve.update import SMALL, UNKNOWN, Update
from relay.settings import Streams as StreamSettings
from relay.sync.store import Configuration

EVENT_PUT: Final = "put"
EVENT_PATCH: Final = "patch"
EVENT_DELETE: Final = "delete"
_WRITTEN_PER_STEP: Final = 256


class ClientStream(Stream):
    """One client with one context."""

    kind: ClassVar[str] = "client"

    __slots__ = ("_configuration", "_context", "_first", "_ledger", "_needs_put", "_owed", "_seen_ms")

    def __init__(  # noqa: PLR0913 - one argument per thing that a client is
        self,
        grant: Grant,
        *,
        configuration: Configuration,
        context: KeptContext,
        ledger: Ledger,
        settings: StreamSettings,
        clock: Clock,
    ) -> None:
        super().__init__(grant, only(configuration.ref.id), settings, clock)
        self._configuration = configuration
        self._context: KeptContext | None = context
        self._ledger = ledger
        self._seen_ms = clock.wall_ms()
        self._needs_put = True
        self._first: _First | None = None
        self._owed: Owed | None = None

    def take(self, update: Update) -> bool:
        """Evaluate what may have changed and note what did."""
        seen, self._configuration = self._configuration, update.after
        seen_ms, self._seen_ms = self._seen_ms, update.now_ms
        if self._needs_put:
            return True
        view = update.view(seen, self.grant, seen_ms)
        outcome = view.to_all
        if outcome is UNKNOWN:
            # Not looked at before: what is not in the processor's cache costs more than all that is computed here.
            outcome = None if self._context is None else view.outcome(seen_ms, self._context)
        if outcome is None:
            return False
        if self._owed is None:
            self._owed = outcome
        else:
            self._owed = self._owed.followed_by(outcome)
            update.coalesced += 1
        return True

    def prepare_first(self) -> Generator[None] | None:
        """Return the steps in which many flags are evaluated and encoded before `open` is called."""
        return None if len(self._configuration.environment.flags) <= SMALL else self._prepare_first()

    def _prepare_first(self) -> Generator[None]:
        if self._context is None:
            return
        now_ms = self._seen_ms = self._clock.wall_ms()
        first = _First(self._configuration, now_ms)
        yield from first.write(self._context.parsed(), client_side_only=self.grant.client_side_only)
        if self._needs_put and first.configuration is self._configuration and self._seen_ms == now_ms:
            self._first = first

    def prepare(self, update: Update) -> Generator[None] | None:
        """Return the steps in which many flags are evaluated and encoded before `take` is called."""
        if self._needs_put or self._context is None:
            return None
        steps = update.prepare(self._configuration, self.grant, self._seen_ms, self._context)
        return None if steps is None else self._prepare(steps)

    def _prepare(self, steps: Generator[None, None, Outcome | None]) -> Generator[None]:
        outcome = yield from steps
        if outcome is not None and self._owed is None:
            yield from outcome.encode_steps(_frame)

    def offer(self, now_s: float) -> Offer | None:
        """Return all that the client lacks: one frame always tells it."""
        outlet = self._outlet
        if type(outlet) is not HeldConnection or not outlet.is_chunked or self._farewell is not None:
            return super().offer(now_s)
        if outlet.is_blocked or not outlet.is_open:
            return None
        owed = self._owed
        if type(owed) is Outcome and owed.configuration is self._configuration and not self._needs_put:
            # What nearly every client is told: the same as others, and nothing else. The context is not asked for it.
            self._owed = None
            frame: bytes | None = owed.frame(self._ledger, _frame)
        else:
            frame = self.next_frame()
        if frame is None:
            return None
        self._sent_at_s = now_s
        return outlet, outlet.descriptor, frame

    def over(self) -> None:
        """Let go of the context: timers may hold on to the stream for a while."""
        super().over()
        self._context = self._owed = None

    def next_frame(self) -> bytes | None:
        """Return the next event that the client lacks."""
        if self._context is None:
            return None
        if self._needs_put:
            self._needs_put, self._owed = False, None
            return self._put(self._context.parsed())
        owed, self._owed = self._owed, None
        if owed is None:
            return None
        if isinstance(owed, Outcome) and owed.configuration is self._configuration:
            return owed.frame(self._ledger, _frame)
        return self._newest(owed, self._context.parsed())

    def _put(self, context: Context) -> bytes:
        first, self._first = self._first, None
        # What was prepared holds only if the client was told of nothing since, neither a revision nor a moment.
        if first is None or first.configuration is not self._configuration or first.now_ms != self._seen_ms:
            self._seen_ms = self._clock.wall_ms()
            first = _First(self._configuration, self._seen_ms)
            finished(first.write(context, client_side_only=self.grant.client_side_only))
        self._ledger.enter(first.configuration, first.evaluations, "stream")
        return b"retry: %d\n%b" % (self.retry_ms(), first.frame)

    def _newest(self, owed: Owed, context: Context) -> bytes:
        """Tell of what moved more than once meanwhile, or before the newest revision: only this client lacks it."""
        evaluations = self._configuration.program.evaluate_some(sorted(owed.dirty), context, self._seen_ms)
        self._ledger.enter(self._configuration, evaluations, "stream")
        return finished(_frame(self._configuration, evaluations, owed.gone))


class _First:
    """What a client is told first: every flag, from one revision and for one moment."""

    __slots__ = ("configuration", "evaluations", "frame", "now_ms")

    def __init__(self, configuration: Configuration, now_ms: int) -> None:
        self.configuration = configuration
        self.now_ms = now_ms
        self.evaluations: Mapping[str, Evaluation] = {}
        self.frame = b""

    def write(self, context: Context, *, client_side_only: bool) -> Generator[None]:
        """Evaluate and encode, pausing (`yield`) after every few hundred flags."""
        program = self.configuration.program
        self.evaluations = yield from program.evaluate_all_steps(
            context, self.now_ms, client_side_only=client_side_only
        )
        flags = yield from _written(list(self.evaluations.items()))
        self.frame = _event(EVENT_PUT, self.configuration, flags)


def _frame(
    configuration: Configuration, evaluations: Mapping[str, Evaluation], gone: frozenset[str]
) -> Generator[None, None, bytes]:
    """Return what tells of some flags, pausing (`yield`) after every few hundred."""
    frame = _event(EVENT_DELETE, configuration, orjson.dumps(sorted(gone))) if gone else b""
    if evaluations:
        flags = yield from _written(sorted(evaluations.items()))
        frame += _event(EVENT_PATCH, configuration, flags)
    return frame


def _written(evaluations: Sequence[tuple[str, Evaluation]]) -> Generator[None, None, bytes]:
    """Return answers as a JSON object, written in portions."""
    portions = []
    for start in range(0, len(evaluations), _WRITTEN_PER_STEP):
        portion = evaluations[start : start + _WRITTEN_PER_STEP]
        portions.append(orjson.dumps({key: native(evaluation) for key, evaluation in portion})[1:-1])
        if len(portion) == _WRITTEN_PER_STEP:
            yield
    return b"{%b}" % b",".join(portions)


def _event(name: str, configuration: Configuration, flags: bytes) -> bytes:
    data = b'{"flags":%b,"revision":%d}' % (flags, configuration.revision)
    return encode_event(name, (data,), event_id=position_id(configuration))
