"""Background tasks never die silently."""

import asyncio
import logging

import pytest

from relay.heartbeat import Heartbeat
from relay.supervise import Patience, Supervisor
from tests.clocks import FakeClock, settle


class Flaky:
    """A task that fails as often as it is told to, and then runs on."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.starts = 0

    async def run(self) -> None:
        self.starts += 1
        if self.left:
            self.left -= 1
            message = "disk on fire"
            raise OSError(message)
        await asyncio.Event().wait()


async def test_a_task_that_raises_is_logged_counted_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """One failure costs one log line, one count and one short wait."""
    clock, failed, flaky = FakeClock(), list[str](), Flaky(failures=1)
    supervisor = Supervisor(clock, failed.append)
    supervisor.start("forward", flaky.run)
    await settle()
    assert (flaky.starts, failed) == (1, ["forward"])
    await clock.advance(0.5)
    assert flaky.starts == 2
    assert supervisor.alive
    assert "disk on fire" in caplog.text
    await supervisor.stop()


async def test_a_task_that_returns_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """To return is as much of a failure as to raise: nobody would do the work any more."""
    clock, starts = FakeClock(), list[int]()

    async def run() -> None:
        starts.append(1)

    supervisor = Supervisor(clock)
    supervisor.start("follow", run)
    await clock.advance(2)
    assert len(starts) >= 2
    assert any(record.levelno == logging.ERROR and "for ever" in record.message for record in caplog.records)
    await supervisor.stop()


async def test_waits_grow_to_their_maximum() -> None:
    """A task that always fails does not spin: its waits double up to the longest."""
    clock = FakeClock()
    supervisor = Supervisor(clock, patience=Patience(wait_min_s=1, wait_max_s=8))
    supervisor.start("follow", Flaky(failures=100).run)
    await clock.advance(100)
    for waited, limit in zip(clock.slept, (1, 2, 4, 8, 8, 8), strict=False):
        assert limit / 2 <= waited <= limit
    await supervisor.stop()


async def test_too_many_failures_in_the_window_make_the_process_not_alive() -> None:
    """What keeps failing is for the orchestrator to replace; it becomes alive again if the task recovers."""
    clock, flaky = FakeClock(), Flaky(failures=3)
    supervisor = Supervisor(clock, patience=Patience(wait_min_s=1, wait_max_s=1, failures=3, window_s=60))
    supervisor.start("spool", flaky.run)
    await clock.advance(10)
    assert not supervisor.alive
    assert supervisor.failing() == {"spool": "OSError: disk on fire"}
    await clock.advance(120)
    assert supervisor.failing() == {}
    await supervisor.stop()


async def test_stop_cancels_in_reverse_order_and_waits() -> None:
    """What was started last, and may use what was started first, ends first."""
    ended: list[str] = []

    def task(name: str) -> "Supervisor":
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(name)

        supervisor.start(name, run)
        return supervisor

    supervisor = Supervisor(FakeClock())
    for name in ("spool", "forward", "follow"):
        task(name)
    await settle()
    await supervisor.stop("forward")
    await supervisor.stop()
    assert ended == ["forward", "follow", "spool"]
    await supervisor.stop("nothing of that name")


async def test_names_are_unique() -> None:
    """Two tasks of one name would hide each other."""
    supervisor = Supervisor(FakeClock())
    supervisor.start("follow", Flaky(0).run)
    with pytest.raises(ValueError, match="'follow' is running already"):
        supervisor.start("follow", Flaky(0).run)
    await supervisor.stop()


async def test_heartbeat_tells_a_turning_loop_from_a_stuck_one() -> None:
    """A loop that is silent for 10 s is alive; beyond that it is not; the lag is how late the last beat came (F43)."""
    clock = FakeClock()
    heartbeat = Heartbeat(clock)
    supervisor = Supervisor(clock)
    supervisor.start("heartbeat", heartbeat.run)
    await clock.advance(5)
    assert heartbeat.alive
    assert heartbeat.lag_s == 0
    await supervisor.stop()
    await clock.advance(9)
    assert heartbeat.alive
    await clock.advance(2)
    assert not heartbeat.alive


async def test_an_idle_process_is_not_woken_for_nothing() -> None:
    """While nobody is connected the heart beats twice a second, and faster from the next beat on that finds one."""
    clock = FakeClock()
    somebody: list[str] = []
    heartbeat, supervisor = Heartbeat(clock, is_needed=lambda: bool(somebody)), Supervisor(clock)
    supervisor.start("heartbeat", heartbeat.run)
    await clock.advance(10)
    assert len(clock.slept) == 21
    somebody.append("a client")
    await clock.advance(0.5)
    clock.slept.clear()
    await clock.advance(1.01)
    assert len(clock.slept) == 50
    await supervisor.stop()


class LateClock(FakeClock):
    """A clock on which every sleep takes longer than was asked for, as on a loop that is busy."""

    late_s = 0.0

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s + self.late_s)


async def test_heartbeat_measures_how_late_the_loop_comes_round() -> None:
    """Every beat is observed; the longest delay stays to be seen for a minute, and is forgotten after two."""
    clock = LateClock()
    lags: list[float] = []
    heartbeat = Heartbeat(clock, lags.append)
    supervisor = Supervisor(clock)
    supervisor.start("heartbeat", heartbeat.run)
    await clock.advance(1.01)
    assert len(lags) == 50
    assert max(lags) == pytest.approx(0, abs=1e-9)
    clock.late_s = 0.5
    await clock.advance(1)
    clock.late_s = 0
    assert heartbeat.longest_lag_s == pytest.approx(0.5)
    await clock.advance(61)
    assert heartbeat.longest_lag_s == pytest.approx(0.5)
    await clock.advance(61)
    assert heartbeat.longest_lag_s == pytest.approx(0, abs=1e-9)
    await supervisor.stop()
