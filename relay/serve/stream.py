"""The life of one open stream: it is told what is new, sends when it can, keeps itself alive, and says why it ends.

What a stream owes its client is state (`next_frame` makes bytes of it when the client can take them), never a list of
messages, so a slow client costs no memory and skips to the newest. Subclasses know what is sent; this module knows
when. Never waits: `relay.serve.outlet` does what has to be done later.
"""

import random
from collections.abc import Generator
from functools import lru_cache
from typing import ClassVar

from relay.clock import Clock
from relay.protocol.changes import Goodbye, MessageName
from relay.protocol.encode import encode_goodbye
from relay.protocol.sse import encode_event
from relay.serve.access import Grant
from relay.serve.held import HeldConnection, Offer
from relay.serve.outlet import Outlet
from relay.serve.update import Update
from relay.settings import Streams as StreamSettings

HEARTBEAT = b":\n"
"""A comment alone: the blank line after one is taken for an event without data by some readers."""


class Stream:
    """One open stream of any kind. All its methods run on the event loop and return at once."""

    kind: ClassVar[str]
    has_a_lifetime: ClassVar[bool] = True
    makes_client_ask: ClassVar[bool] = False
    """Whether a client answers each frame with a request, so that frames are spread over time."""

    __slots__ = (
        "_clock", "_ends_at_s", "_farewell", "_outlet", "_sent_at_s", "_settings",
        "environment_ids", "grant", "is_over", "was_cut",
    )  # fmt: skip

    def __init__(self, grant: Grant, environment_ids: frozenset[str], settings: StreamSettings, clock: Clock) -> None:
        self.grant = grant
        self.environment_ids = environment_ids
        self.is_over = False
        self.was_cut = False
        self._settings = settings
        self._clock = clock
        self._outlet: Outlet | HeldConnection | None = None
        self._farewell: str | None = None
        self._sent_at_s = clock.monotonic()
        spread = random.uniform(-settings.lifetime_jitter, settings.lifetime_jitter)  # noqa: S311 - spreads load
        self._ends_at_s = self._sent_at_s + settings.lifetime_s * (1 + spread)

    def next_frame(self) -> bytes | None:
        """Return the next bytes that the client lacks, None if it lacks nothing. What is returned counts as sent."""
        raise NotImplementedError

    def take(self, update: Update) -> bool:
        """Take note of a new configuration, or of time having passed. Return whether the client is concerned."""
        raise NotImplementedError

    def prepare_first(self) -> Generator[None, None, object] | None:
        """Return the steps of what can be done for the first frame before `open` is called; None for nothing."""
        return None

    def prepare(self, update: Update) -> Generator[None, None, object] | None:  # noqa: ARG002 - for those who have much to do
        """Return the steps of what can be done for a new configuration before `take` is called; None for nothing."""
        return None

    def covered_by(self, grant: Grant) -> frozenset[str]:
        """Return the environments that this stream is about under a renewed grant; none means that it must end."""
        return self.environment_ids & {configuration.ref.id for configuration in grant.configurations}

    def regrant(self, grant: Grant) -> None:
        """Take note that what the stream's key opens may have changed; it still opens something."""
        self.grant = grant

    def beat(self) -> bytes:
        """Return what keeps the connection alive when there is nothing to say."""
        return HEARTBEAT

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        """Return the last bytes."""
        return encode_event(MessageName.GOODBYE, (encode_goodbye(Goodbye(reason, retry_ms)),), retry_ms=retry_ms)

    @property
    def is_between_messages(self) -> bool:
        """Whether a new message may begin now."""
        return True

    def open(self, outlet: Outlet | HeldConnection) -> None:
        """Begin to send."""
        self._outlet = outlet
        self.flush()

    def flush(self) -> None:
        """Send all that the client lacks, as far as it takes it now."""
        outlet = self._outlet
        while outlet is not None and outlet.is_open and not outlet.is_blocked:
            if self._farewell is not None and (self.is_between_messages or self._farewell == "revoked"):
                last = self.farewell(self._farewell, self.retry_ms()) if self.is_between_messages else b""
                outlet.write(last, is_last=True)
                return
            frame = self.next_frame()
            if frame is None:
                return
            self._sent_at_s = self._clock.monotonic()
            outlet.write(frame)

    def offer(self, now_s: float) -> Offer | None:  # noqa: ARG002 - for those who have something to offer
        """Send all that the client lacks, or return it, for whoever writes many at once in this very turn."""
        self.flush()
        return None

    def end(self, reason: str) -> bool:
        """End the stream with a reason, as soon as the client takes it. Return whether this is news."""
        if self._farewell is not None or self.is_over:
            return False
        self._farewell = reason
        self.flush()
        return True

    @property
    def waiting_bytes(self) -> int:
        """Return how much was written that the client has not taken, as far as that is known."""
        return self._outlet.waiting_bytes if isinstance(self._outlet, HeldConnection) else 0

    def cut(self) -> None:
        """End the stream now, whatever the client has not taken."""
        self.was_cut = True
        if self._outlet is not None:
            self._outlet.cut()

    def over(self) -> None:
        """Take note that the connection has ended."""
        self.is_over = True
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None

    def on_time(self, now_s: float) -> float:
        """Keep the connection alive; return when to ask again. Ending at `ends_at_s` is the registry's business."""
        outlet = self._outlet
        if outlet is not None and outlet.is_open and not outlet.is_blocked and self.is_between_messages:
            if now_s - self._sent_at_s >= self._settings.heartbeat_s:
                self._sent_at_s = now_s
                outlet.write(self.beat())
            return min(self._sent_at_s + self._settings.heartbeat_s, self.ends_at_s)
        return now_s + self._settings.heartbeat_s

    @property
    def ends_at_s(self) -> float:
        """When the stream's lifetime is over, by the monotonic clock."""
        return self._ends_at_s if self.has_a_lifetime else float("inf")

    def retry_ms(self) -> int:
        """Return a reconnection time that is another one for each client, so that they do not come back in step."""
        return random.randint(self._settings.retry_min_ms, self._settings.retry_max_ms)  # noqa: S311 - spreads load


@lru_cache(maxsize=1_024)
def only(environment_id: str) -> frozenset[str]:
    """Return the set of one environment, one object for all of its streams."""
    return frozenset({environment_id})
