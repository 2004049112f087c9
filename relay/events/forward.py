"""Sends what waits in the spool to the authority, batch by batch, until it is confirmed.

Nothing leaves the spool but by a confirmation, or into the quarantine when the authority refuses a single record in so
many words: with a problem document, which no proxy writes. A batch that is refused as a whole is halved until the bad
record stands alone; everything else is tried again: at the time that the authority names, slowly when the key or the
address is wrong (with an alarm), and with growing random waits when nobody answers. What an outage has piled up is
sent at a capped rate.
"""

import asyncio
import gzip
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import aiohttp

from relay.clock import Clock
from relay.events.reader import Batch
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import Events, UpstreamLink
from relay.telemetry import NO_TRACING, Tracing
from relay.upstream_call import OF_THE_REQUEST, backoff_s, object_in, problem_code, read_some, retry_after_s

logger = logging.getLogger(__name__)

INGEST_PATH = "/api/v2/ingest"
CONFIRMED = ("accepted", "duplicate")


class Action(StrEnum):
    """What is to be done with a batch after an attempt."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    TOO_LONG = "too_long"
    BUSY = "busy"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to. `reason` is for people; `retry_after_s` is the wait that the authority asked for."""

    action: Action
    reason: str = ""
    retry_after_s: float | None = None


def judge(status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
    """Decide what an answer means."""
    reason = f"{status}: {body[:1_000].decode(errors='replace')}"
    if status == 200:  # noqa: PLR2004 - HTTP statuses are their own names
        # A proxy or a captive portal also answers 200; only the authority says what became of the batch.
        return Verdict(Action.CONFIRMED if object_in(body).get("status") in CONFIRMED else Action.FAILED, reason)
    if status in {400, 413, 422}:
        return Verdict(_refusal(status, problem_code(headers, body)), reason)
    if status in {429, 503}:
        return Verdict(Action.BUSY, reason, retry_after_s(headers))
    if status >= 500 or status in {408, 425}:  # noqa: PLR2004 - HTTP statuses are their own names
        return Verdict(Action.FAILED, reason)
    return Verdict(Action.DENIED, reason)


def _refusal(status: int, code: str | None) -> Action:
    """Decide what a status that speaks of the batch means, given the code by which the authority shows itself."""
    if code in OF_THE_REQUEST:
        # Setting records aside would not make it right.
        return Action.FAILED
    if code is not None:
        return Action.REFUSED
    # A proxy's "400 Bad Request" must not send good events to the quarantine. Its 413 is true, and halves may pass it.
    return Action.TOO_LONG if status == 413 else Action.DENIED  # noqa: PLR2004 - HTTP statuses are their own names


class Forwarder:
    """The spool's one reader.

    Args:
        spool: where batches come from.
        session: the HTTP client; the caller closes it.
        link: address, timeouts and waits.
        key: returns the relay key at the moment of sending, so that a changed key file is obeyed.
        relay_id: tells the authority which relay this is.
        settings: wait and rate.
        clock: for waits.
        metrics: counts attempts and forwarded records.
        jitter: returns a random number between two numbers.
        tracing: told of every attempt.
    """

    def __init__(  # noqa: PLR0913 - wiring
        self,
        spool: Spool,
        session: aiohttp.ClientSession,
        link: UpstreamLink,
        *,
        key: Callable[[], str],
        relay_id: str,
        settings: Events,
        clock: Clock,
        metrics: RelayMetrics,
        jitter: Callable[[float, float], float] = random.uniform,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self._spool = spool
        self._session = session
        self._link = link
        self._url = link.url + INGEST_PATH
        self._timeout = aiohttp.ClientTimeout(total=link.request_timeout_s, connect=link.connect_timeout_s)
        self._key = key
        self._relay_id = relay_id
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._sending = asyncio.Lock()
        self._failures = 0

    async def run(self) -> None:
        """Forward for ever."""
        while True:
            await self._spool.wait_readable()
            await self._clock.sleep(self._settings.forward_wait_s)
            while (pause_s := await self._step()) is not None:
                await self._clock.sleep(pause_s)

    async def flush(self, deadline_s: float) -> int:
        """Send what waits, without a rate, until nothing is left, an attempt fails or the time is over.

        Returns the number of records that stay on disk.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while await self._step() is not None and not self._failures:
                    pass
        except TimeoutError:
            logger.warning("not everything was forwarded in time; the rest stays on disk")
        return self._spool.stats().records

    async def _step(self) -> float | None:
        """Send one batch; return the seconds to wait before the next one, or None when nothing waits."""
        async with self._sending:
            started = self._clock.monotonic()
            try:
                batch = await self._spool.peek()
                if batch is None:
                    return None
                with self._tracing.span(
                    "forward events", {"halyard.records": len(batch.records)}, kind="client"
                ) as span:
                    verdict = await self._send(batch)
                    span.note("halyard.outcome", verdict.action)
                await self._act(batch, verdict)
            except OSError as error:
                logger.exception("the spool could not be read, or its cursor not be written")
                verdict = Verdict(Action.FAILED, f"spool: {error}")
                batch = None
            self._metrics.forward_attempts.add(verdict.action)
            took_s = self._clock.monotonic() - started
            return self._pause_s(verdict, 0 if batch is None else len(batch.records), took_s)

    async def _send(self, batch: Batch) -> Verdict:
        body = await asyncio.to_thread(gzip.compress, b"\n".join(batch.records) + b"\n", 1)
        headers = {
            "Authorization": f"Bearer {self._key()}",
            "Batch-Id": batch.id,
            "Relay-Id": self._relay_id,
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "gzip",
            **self._tracing.headers(),
        }
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                return judge(answer.status, answer.headers, await read_some(answer.content))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Verdict(Action.FAILED, f"{type(error).__name__}: {error}")

    async def _act(self, batch: Batch, verdict: Verdict) -> None:
        records = len(batch.records)
        if verdict.action is Action.CONFIRMED:
            await self._spool.acknowledge(batch)
            self._metrics.events_forwarded.add(n=records)
        elif verdict.action in {Action.REFUSED, Action.TOO_LONG} and records > 1:
            await self._spool.split(batch)
        elif verdict.action is Action.REFUSED:
            logger.error("the authority refuses a record; it is in the quarantine", extra={"reason": verdict.reason})
            await self._spool.reject(batch, verdict.reason)

    def _pause_s(self, verdict: Verdict, records: int, took_s: float) -> float:
        # What was too long has been halved; a single record cannot be, and waits for an operator like what is denied.
        is_denied = verdict.action is Action.DENIED or (verdict.action is Action.TOO_LONG and records == 1)
        if verdict.action in {Action.CONFIRMED, Action.REFUSED, Action.TOO_LONG} and not is_denied:
            if self._failures:
                logger.info("forwarding goes on", extra={"failures": self._failures})
            self._failures = 0
            return max(0.0, records / self._settings.forward_per_s - took_s)
        self._failures += 1
        if is_denied:
            # Trying more often would not make the key or the address right, and only an operator can.
            logger.critical("the authority denies forwarding; events are kept", extra={"reason": verdict.reason})
            return self._link.backoff_max_s
        if self._failures == 1:
            logger.warning("forwarding failed; trying again", extra={"reason": verdict.reason})
        if verdict.retry_after_s is not None:
            return verdict.retry_after_s
        return backoff_s(self._link, self._failures, self._jitter)
