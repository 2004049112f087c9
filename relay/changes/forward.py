"""Hands kills over to the authority, one by one, until each has its answer.

Only the authority's own word about a kill ends it: a confirmation with revisions, or a refusal as problem details.
Whatever says nothing about the kill (no connection, a proxy's page, a wrong relay key, an upstream that does not know
the route) keeps it, and the flag stays off here meanwhile. The oldest is sent first; one that got no answer goes
behind all others, new ones too, so that a kill which cannot be delivered does not keep others from it.
"""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import aiohttp

from relay.changes.kills import Kills
from relay.changes.outbox import Record
from relay.changes.overlay import Position
from relay.clock import Clock
from relay.metrics import RelayMetrics
from relay.protocol.edge import CHANGES_PATH
from relay.settings import UpstreamLink
from relay.telemetry import NO_TRACING, Tracing
from relay.upstream_call import OF_THE_REQUEST, backoff_s, object_in, problem_code, read_some, retry_after_s

logger = logging.getLogger(__name__)

_REFUSALS: Final = frozenset({400, 403, 404, 409, 413, 415, 422})
# What is wrong with the relay's key, or with the address, says nothing about the kill.
_NOT_ABOUT_THE_KILL: Final = ("key_", "not_found")


class Action(StrEnum):
    """What is to be done after an attempt."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    BUSY = "busy"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to.

    `position` and `superseded` (the flags that stay on, as they were switched on after the kill) come with a
    confirmation, `code` with a refusal; `retry_after_s` is the wait that was asked for.
    """

    action: Action
    reason: str = ""
    code: str = ""
    position: Position | None = None
    superseded: frozenset[str] = frozenset()
    retry_after_s: float | None = None


def judge(status: int, headers: Mapping[str, str], body: bytes, environment_id: str) -> Verdict:
    """Decide what an answer means for a kill in an environment."""
    reason = f"{status}: {body[:1_000].decode(errors='replace')}"
    answer = object_in(body)
    if status == 200:  # noqa: PLR2004 - HTTP statuses are their own names
        position = _position(answer, environment_id)
        action = Action.FAILED if position is None else Action.CONFIRMED
        return Verdict(action, reason, position=position, superseded=_superseded(answer))
    if status in {429, 503}:
        return Verdict(Action.BUSY, reason, retry_after_s=retry_after_s(headers))
    code = problem_code(headers, body)
    if status >= 500 or status in {408, 425} or code in OF_THE_REQUEST:  # noqa: PLR2004 - HTTP statuses are their own names
        return Verdict(Action.FAILED, reason)
    if status in _REFUSALS and code is not None and not code.startswith(_NOT_ABOUT_THE_KILL):
        return Verdict(Action.REFUSED, str(answer.get("detail", reason)), code)
    return Verdict(Action.DENIED, reason)


def _position(answer: Mapping[str, Any], environment_id: str) -> Position | None:
    epoch, revisions = answer.get("epoch"), answer.get("revisions")
    revision = revisions.get(environment_id) if isinstance(revisions, dict) else None
    return Position(epoch, revision) if isinstance(epoch, str) and isinstance(revision, int) else None


def _superseded(answer: Mapping[str, Any]) -> frozenset[str]:
    flags = answer.get("superseded")
    return frozenset(flag for flag in flags if isinstance(flag, str)) if isinstance(flags, list) else frozenset()


class KillForwarder:
    """The way of kills to the authority.

    Args:
        kills: where they come from, and where the answers go.
        session: the HTTP client; the caller closes it.
        link: address, timeouts and waits.
        key: returns the relay key at the moment of sending, so that a changed key file is obeyed.
        clock: for waits.
        metrics: counts attempts.
        jitter: returns a random number between two numbers.
        tracing: told of every attempt.
    """

    def __init__(  # noqa: PLR0913 - wiring
        self,
        kills: Kills,
        session: aiohttp.ClientSession,
        link: UpstreamLink,
        *,
        key: Callable[[], str],
        clock: Clock,
        metrics: RelayMetrics,
        jitter: Callable[[float, float], float] = random.uniform,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self._kills = kills
        self._session = session
        self._link = link
        self._url = link.url + CHANGES_PATH
        self._timeout = aiohttp.ClientTimeout(total=link.request_timeout_s, connect=link.connect_timeout_s)
        self._key = key
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._failures = 0

    async def run(self) -> None:
        """Forward for ever."""
        while True:
            await self._kills.wait_pending()
            while (record := self._kills.next_pending()) is not None:
                pause_s = await self._hand_over(record)
                if pause_s:
                    await self._clock.sleep(pause_s)

    async def _hand_over(self, record: Record) -> float:
        """Make one attempt; return the seconds to wait before the next one."""
        with self._tracing.span("forward kill", kind="client") as span:
            verdict = await self._send(record)
            span.note("halyard.outcome", verdict.action)
        self._metrics.kill_attempts.add(verdict.action)
        if verdict.position is not None:
            self._kills.commit(record, verdict.position, is_superseded=record.overlay.flag in verdict.superseded)
        elif verdict.action is Action.REFUSED:
            self._kills.withdraw(record, verdict.code, verdict.reason)
        else:
            self._kills.postpone(record)
            return self._pause_s(verdict)
        self._failures = 0
        return 0

    async def _send(self, record: Record) -> Verdict:
        headers = {"Authorization": f"Bearer {self._key()}", "Content-Type": "application/json"}
        headers |= self._tracing.headers()
        try:
            async with self._session.post(
                self._url, data=record.body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                body = await read_some(answer.content)
                return judge(answer.status, answer.headers, body, record.overlay.environment_id)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Verdict(Action.FAILED, f"{type(error).__name__}: {error}")

    def _pause_s(self, verdict: Verdict) -> float:
        self._failures += 1
        if verdict.action is Action.DENIED:
            # Trying more often would not make the key or the address right, and only an operator can.
            logger.critical("the authority takes no kills from this relay; they hold here", extra={"reason": verdict.reason})  # fmt: skip  # noqa: E501
            return self._link.backoff_max_s
        if self._failures == 1:
            logger.warning("a kill could not be handed over; trying again", extra={"reason": verdict.reason})
        if verdict.retry_after_s is not None:
            # An hour is more than somebody who switches a flag off has.
            return min(verdict.retry_after_s, self._link.backoff_max_s)
        return backoff_s(self._link, self._failures, self._jitter)
