"""Follows upstream's change stream: one connection at a time, resumed where the store stands, for as long as we run.

Owns the connection and when to try again; what the events mean is `relay.sync.inbox`. Whatever ends a connection, the
next one follows after a backoff with full jitter, and not before upstream asks for it. The key is never logged, and
never sent to where a redirect points.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from yarl import URL

from relay.clock import Clock
from relay.protocol import keys
from relay.protocol.sse import EventTooLarge, SseParser
from relay.sync.backoff import Backoff, retry_after_s
from relay.sync.inbox import FollowStats, Inbox, Refusal, StreamEnded
from relay.sync.store import Store
from relay.telemetry import NO_TRACING, Tracing

__all__ = ["FollowSettings", "FollowStats", "Follower", "Refusal"]

log = logging.getLogger(__name__)

STREAM_PATH = "api/v2/stream"

_KEY_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """Where to follow, and every limit of it."""

    upstream_url: str
    relay_key: str = field(repr=False)
    backoff: Backoff = field(default_factory=Backoff)
    dead_after_s: float = 45.0
    key_refused_retry_s: float = 60.0
    retry_after_max_s: float = 600.0
    connect_timeout_s: float = 5.0
    max_message_bytes: int = 64 << 20


class Follower:
    """Keeps one store in step with one upstream.

    Attributes:
        connected: whether a stream is open now.
        last_error: why the last stream ended or did not open; None while one is open.
    """

    def __init__(  # noqa: PLR0913 - wiring
        self,
        settings: FollowSettings,
        store: Store,
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        fraction: Callable[[], float] = random.random,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.connected = False
        self.last_error: str | None = None
        self._settings = settings
        self._session = session
        self._clock = clock
        self._fraction = fraction
        self._inbox = Inbox(store, clock, settings.backoff, fraction, tracing)
        self._url = URL(settings.upstream_url) / STREAM_PATH
        self._failures = 0  # connections in a row on which nothing good was heard
        self._heard_at = 0.0
        self._reported: str | None = None

    @property
    def first_sync(self) -> asyncio.Event:
        """Set once upstream has confirmed every environment that the key covers and that can be used."""
        return self._inbox.first_sync

    @property
    def refusals(self) -> Mapping[str | None, Refusal]:
        """The configurations that cannot be used, by environment id; None = in a message too broken to name one."""
        return self._inbox.refusals

    def authority_ms(self) -> int | None:
        """Return the authority's wall time, None as long as nobody knows it; see `Inbox.authority_ms`."""
        return self._inbox.authority_ms()

    @property
    def stats(self) -> FollowStats:
        """Counters since the start."""
        return self._inbox.stats

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._connection()
            except StreamEnded as end:
                await self._pause(end)
            finally:
                self.connected = False

    async def _pause(self, end: StreamEnded) -> None:
        self.connected = False
        delay_s = max(end.at_least_s, self._settings.backoff.delay_s(self._failures, self._fraction()))
        # Only news is worth a warning: an upstream that is away for a day must not fill the log.
        level = logging.WARNING if end.reason != self._reported else logging.DEBUG
        log.log(level, "change stream %s: %s; next attempt in %.1f s", self._url, end.reason, delay_s)
        self.last_error = self._reported = end.reason
        self._failures += 1
        await self._clock.sleep(delay_s)

    async def _connection(self) -> None:
        """Run one connection to its end, which is `StreamEnded`; anything else is a defect, for the supervisor."""
        self.stats.connections += 1
        self._heard_at = self._clock.monotonic()
        tasks = (asyncio.create_task(self._exchange()), asyncio.create_task(self._watch()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamEnded(f"connection failed: {type(error).__name__}: {error}") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """End the connection once nothing has been heard on it for too long, half-open TCP included."""
        dead_after_s = self._settings.dead_after_s
        while (left_s := self._heard_at + dead_after_s - self._clock.monotonic()) > 0:
            await self._clock.sleep(left_s)
        raise StreamEnded(f"nothing heard for {dead_after_s:g} s")

    async def _exchange(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s)
        request = self._session.get(self._url, headers=self._headers(), timeout=timeout, allow_redirects=False)
        async with request as response:
            self._admit(response)
            self.connected, self.last_error = True, None
            log.info("change stream %s: connected", self._url)
            parser = SseParser(self._settings.max_message_bytes)
            async for chunk in response.content.iter_any():
                await self._take(parser, chunk)
        raise StreamEnded("upstream closed the stream")

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "text/event-stream",
            # Whoever compresses a stream also holds it back.
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {self._settings.relay_key}",
        }
        token = self._inbox.begin_stream()
        return headers if token is None else headers | {"Last-Event-ID": token}

    def _admit(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in _KEY_REFUSED:
            hint = keys.hint(self._settings.relay_key)
            reason = f"the relay key {hint} is refused ({status}); it may be revoked, expired or of another kind"
            raise StreamEnded(reason, self._settings.key_refused_retry_s)
        if status != HTTPStatus.OK:
            asked_s = retry_after_s(response.headers.get("Retry-After"), self._clock.wall_ms()) or 0.0
            raise StreamEnded(f"the answer is {status}", min(asked_s, self._settings.retry_after_max_s))
        if response.content_type != "text/event-stream":
            raise StreamEnded(f"the answer is {response.content_type} and no stream; is the address right?")

    async def _take(self, parser: SseParser, chunk: bytes) -> None:
        heard = parser.field_bytes
        try:
            events = parser.feed(chunk)
        except EventTooLarge as error:
            raise self._inbox.refuse_stream("message", str(error)) from None
        if events or parser.field_bytes != heard:
            # Comments alone do not count: a proxy, or a server whose publisher is stuck, can send those.
            self._heard_at = self._clock.monotonic()
        for event in events:
            if await self._inbox.take(event):
                self._failures = 0
