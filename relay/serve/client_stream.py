"""The stream of evaluated values for browsers and mobile clients: `put` once, then only what changed for this context.

`patch` carries flags whose value is another one, `delete` those that are gone; rules are never sent. A client that
falls behind owes nothing to history: the keys that moved since its last frame are kept as a set, and it gets their
newest values. Event ids name the configuration; a reconnect begins with `put` again, so nothing is ever replayed.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import orjson

from relay.clock import Clock
from relay.engine.model import Evaluation
from relay.protocol.sse import encode_event
from relay.serve.access import Grant
from relay.serve.answers import Context, Ledger, native
from relay.serve.freshness import position_id
from relay.serve.held import HeldConnection, Offer
from relay.serve.kept_context import KeptContext
from relay.serve.stream import Stream, only
from relay.serve.update import UNKNOWN, Outcome, Owed, Update
from relay.settings import Streams as StreamSettings
from relay.sync.store import Configuration

EVENT_PUT: Final = "put"
EVENT_PATCH: Final = "patch"
EVENT_DELETE: Final = "delete"


class ClientStream(Stream):
    """One client with one context."""

    kind: ClassVar[str] = "client"

    __slots__ = ("_configuration", "_context", "_ledger", "_needs_put", "_owed", "_seen_ms")

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

    def offer(self, now_s: float) -> Offer | None:
        """Return all that the client lacks: one frame always tells it."""
        outlet = self._outlet
        if type(outlet) is not HeldConnection or self._farewell is not None:
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
        self._seen_ms = self._clock.wall_ms()
        evaluations = self._configuration.program.evaluate_all(
            context, self._seen_ms, client_side_only=self.grant.client_side_only
        )
        self._ledger.enter(self._configuration, evaluations, "stream")
        answers = {key: native(evaluation) for key, evaluation in evaluations.items()}
        return b"retry: %d\n%b" % (self.retry_ms(), _event(EVENT_PUT, self._configuration, answers))

    def _newest(self, owed: Owed, context: Context) -> bytes:
        """Tell of what moved more than once meanwhile, or before the newest revision: only this client lacks it."""
        evaluations = self._configuration.program.evaluate_some(sorted(owed.dirty), context, self._seen_ms)
        self._ledger.enter(self._configuration, evaluations, "stream")
        return _frame(self._configuration, evaluations, owed.gone)


def _frame(configuration: Configuration, evaluations: Mapping[str, Evaluation], gone: frozenset[str]) -> bytes:
    frame = _event(EVENT_DELETE, configuration, sorted(gone)) if gone else b""
    if evaluations:
        answers = {key: native(evaluation) for key, evaluation in sorted(evaluations.items())}
        frame += _event(EVENT_PATCH, configuration, answers)
    return frame


def _event(name: str, configuration: Configuration, flags: Any) -> bytes:
    data = orjson.dumps({"flags": flags, "revision": configuration.revision})
    return encode_event(name, (data,), event_id=position_id(configuration))
