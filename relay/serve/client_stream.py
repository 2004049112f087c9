"""The stream of evaluated values for browsers and mobile clients: `put` once, then only what changed for this context.

`patch` carries flags whose value is another one, `delete` those that are gone; rules are never sent. A client that
falls behind owes nothing to history: the keys that moved since its last frame are kept as a set, and it gets their
newest values. Event ids name the configuration; a reconnect begins with `put` again, so nothing is ever replayed.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

import orjson

from relay.clock import Clock
from relay.engine.model import Evaluation
from relay.protocol.sse import encode_event
from relay.serve.access import Grant
from relay.serve.answers import Context, Ledger, SharedFrames, native
from relay.serve.freshness import position_id
from relay.serve.kept_context import KeptContext
from relay.serve.relevance import COMPILED_AT_MOST, Update, is_visible
from relay.serve.stream import Stream
from relay.settings import Streams as StreamSettings
from relay.sync.store import Configuration

EVENT_PUT: Final = "put"
EVENT_PATCH: Final = "patch"
EVENT_DELETE: Final = "delete"


class ClientStream(Stream):
    """One client with one context."""

    kind: ClassVar[str] = "client"

    __slots__ = ("_configuration", "_context", "_dirty", "_frames", "_gone", "_ledger", "_needs_put", "_seen_ms")

    def __init__(  # noqa: PLR0913 - one argument per thing that a client is
        self,
        grant: Grant,
        *,
        configuration: Configuration,
        context: KeptContext,
        ledger: Ledger,
        frames: SharedFrames,
        settings: StreamSettings,
        clock: Clock,
    ) -> None:
        super().__init__(grant, frozenset({configuration.ref.id}), settings, clock)
        self._configuration = configuration
        self._context: KeptContext | None = context
        self._ledger = ledger
        self._frames = frames
        self._seen_ms = clock.wall_ms()
        self._needs_put = True
        self._dirty: set[str] | None = None
        self._gone: set[str] | None = None

    def take(self, update: Update) -> bool:
        """Evaluate what may have changed and note what did."""
        seen, seen_ms = self._configuration.program, self._seen_ms
        self._configuration, self._seen_ms = update.after, update.now_ms
        if self._needs_put:
            return True
        if self._context is None or not update.candidates(seen.environment):
            return False
        only = self.grant.client_side_only
        changed = update.changed(seen, seen_ms, self._context.parsed(), client_side_only=only)
        if not changed:
            return False
        flags = update.after.environment.flags
        gone = {key for key in changed if not is_visible(flags.get(key), client_side_only=only)}
        self._dirty = ((self._dirty or set()) | changed) - gone
        self._gone = ((self._gone or set()) - changed) | gone
        return True

    def over(self) -> None:
        """Let go of the context: timers may hold on to the stream for a while."""
        super().over()
        self._context = None

    def next_frame(self) -> bytes | None:
        """Return the next event that the client lacks."""
        if self._context is None:
            return None
        if self._needs_put:
            self._needs_put = False
            return self._put(self._context.parsed())
        if self._gone:
            keys, self._gone = sorted(self._gone), None
            return _event(EVENT_DELETE, self._configuration, keys)
        if self._dirty:
            keys, self._dirty = sorted(self._dirty), None
            return self._patch(keys, self._context.parsed())
        return None

    def _put(self, context: Context) -> bytes:
        self._seen_ms = self._clock.wall_ms()
        evaluations = self._configuration.program.evaluate_all(
            context, self._seen_ms, client_side_only=self.grant.client_side_only
        )
        self._ledger.enter(self._configuration, evaluations, "stream")
        answers = {key: native(evaluation) for key, evaluation in evaluations.items()}
        return b"retry: %d\n%b" % (self.retry_ms(), _event(EVENT_PUT, self._configuration, answers))

    def _patch(self, keys: Collection[str], context: Context) -> bytes:
        program, few = self._configuration.program, len(keys) <= COMPILED_AT_MOST
        evaluations = {key: program.evaluate(key, context, self._seen_ms, may_compile=few) for key in keys}
        self._ledger.enter(self._configuration, evaluations, "stream")
        return self._frames.get(self._configuration, evaluations, _patch_event)


def _patch_event(configuration: Configuration, evaluations: Mapping[str, Evaluation]) -> bytes:
    answers = {key: native(evaluation) for key, evaluation in evaluations.items()}
    return _event(EVENT_PATCH, configuration, answers)


def _event(name: str, configuration: Configuration, flags: Any) -> bytes:
    data = orjson.dumps({"flags": flags, "revision": configuration.revision})
    return encode_event(name, (data,), event_id=position_id(configuration))
