"""Tells the other upstreams on the same database of commits, and hears of theirs, through Redis publish/subscribe.

What is said is a hint only ("environment E reached R"), never content: each upstream then looks into the database, as
it does every 2 s anyway. So nothing depends on Redis: absent, killed, slow or lying, it costs those 2 s at most. Nobody
waits for it: `wake` notes, and two tasks of their own speak and listen. Holds at most one note per environment. This
module is imported only where Redis is configured.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from relay.clock import Clock
from upstream.authority import Waker

logger = logging.getLogger(__name__)

MAX_NOTES: Final = 1_000
"""Environments that wait to be spoken of; what is beyond that is found by the others' own look."""
PATIENCE_S: Final = 1.0
"""Longest wait for Redis to do anything. What was to be said then is out of date anyway."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
QUIET_S: Final = 60.0
"""Redis that comes and goes is spoken of in the log once in that time."""
_SILENCE_S: Final = 5.0
_MESSAGE: Final = re.compile(rb"([0-9a-f]{16}) ([0-9a-f-]{36}) ([0-9]{1,19}|-)")


class RedisWakes:
    """Implements `upstream.authority.Waker`: wakes this process's own feed, and those of the others.

    Args:
        redis: what `connect` returns.
        channel: where this installation speaks.
        ours: what wakes the feed of this process.
        clock: for pauses.
    """

    def __init__(self, redis: Redis, channel: str, ours: Waker, clock: Clock) -> None:
        self._redis = redis
        self._channel = channel
        self._ours = ours
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._notes: dict[str, int | None] = {}
        self._noted = asyncio.Event()
        self._spoken_of: float | None = None

    def wake(self, environment_id: str, revision: int | None) -> None:
        """Note that the environment reached `revision`; None: it was created, renamed or deleted."""
        self._ours.wake(environment_id, revision)
        known = self._notes.get(environment_id, 0)
        if environment_id in self._notes or len(self._notes) < MAX_NOTES:
            # That there is another environment is found by a look at all of them, which finds its revision as well.
            self._notes[environment_id] = None if revision is None or known is None else max(revision, known)
        self._noted.set()

    async def run_speaking(self) -> None:
        """Tell the others, until cancelled."""
        await self._again_and_again(self._speak)

    async def run_listening(self) -> None:
        """Hear the others, until cancelled."""
        await self._again_and_again(self._listen)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._redis.aclose()

    async def _speak(self, worked: Callable[[], None]) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            notes, self._notes = self._notes, {}
            pipeline = self._redis.pipeline(transaction=False)
            for environment_id, revision in notes.items():
                reached = "-" if revision is None else revision
                pipeline.publish(self._channel, f"{self._name} {environment_id} {reached}")
            await pipeline.execute()
            worked()

    async def _listen(self, worked: Callable[[], None]) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            is_asked = False
            while True:
                message = await pubsub.get_message(timeout=_SILENCE_S)
                if message is None:
                    # A connection that is cut without a word looks like nothing being said.
                    if is_asked:
                        raise TimeoutError("no answer")
                    await pubsub.ping()
                    is_asked = True
                    continue
                is_asked = False
                worked()
                if message["type"] == "message":
                    self._hear(message["data"])

    def _hear(self, data: bytes) -> None:
        """Wake our own feed. What is no message of an upstream is passed over: others may use the channel."""
        found = _MESSAGE.fullmatch(data)
        if found is not None and found[1].decode() != self._name:
            self._ours.wake(found[2].decode(), None if found[3] == b"-" else int(found[3]))

    async def _again_and_again(self, work: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        pause_s = FIRST_PAUSE_S

        def worked() -> None:
            nonlocal pause_s
            pause_s = FIRST_PAUSE_S

        while True:
            try:
                await work(worked)
            except (RedisError, OSError, TimeoutError) as error:
                self._say(error)
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _say(self, error: Exception) -> None:
        now_s = self._clock.monotonic()
        if self._spoken_of is None or now_s - self._spoken_of >= QUIET_S:
            self._spoken_of = now_s
            text = "Redis cannot be used; the upstreams find each other's changes by looking every 2 s"
            logger.warning(text, extra={"reason": str(error)})


def connect(url: str) -> Redis:
    """Return a client, which connects when it is used.

    Raises:
        ValueError: the URL cannot be meant.
    """
    # The loops above try again; the client itself need not.
    patience: Any = {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **patience)
