"""The order in which a service goes."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from relay.drain import Drain, Phase
from tests.clocks import FakeClock, settle


def phases(drain: Drain, log: list[tuple[str, float]]) -> list[Phase]:
    def note(name: str) -> Callable[[float], Awaitable[None]]:
        async def run(limit_s: float) -> None:
            log.append((name, limit_s))

        return run

    return [
        Phase("accept", 5, drain.wait),
        Phase("close", 0, note("close")),
        Phase("streams", 30, note("streams")),
        Phase("forward", 10, note("forward"), hurried_s=1),
    ]


async def test_sigterm_goes_through_the_phases_in_order() -> None:
    """Accepting goes on for its time; only then the listener closes, streams end, and events are handed over."""
    clock, log = FakeClock(), list[tuple[str, float]]()
    drain = Drain(clock)
    drain.begin()
    await drain.asked()
    running = asyncio.create_task(drain.run(phases(drain, log)))
    await clock.advance(4.9)
    assert (drain.is_draining, drain.phase, log) == (True, "accept", [])
    await clock.advance(0.2)
    await running
    assert log == [("close", 0), ("streams", 30), ("forward", 10)]
    assert drain.phase == "done"


async def test_ctrl_c_does_not_wait() -> None:
    """In a hurry no phase gets time to spread its work; handing over gets a second."""
    clock, log = FakeClock(), list[tuple[str, float]]()
    drain = Drain(clock)
    drain.begin(hurry=True)
    await drain.run(phases(drain, log))
    assert log == [("close", 0), ("streams", 0), ("forward", 1)]
    assert clock.monotonic() == 0


async def test_hurry_ends_a_wait_that_is_under_way() -> None:
    """What begins slowly can be hurried on."""
    clock, log = FakeClock(), list[tuple[str, float]]()
    drain = Drain(clock)
    drain.begin()
    running = asyncio.create_task(drain.run(phases(drain, log)))
    await clock.advance(1)
    drain.begin(hurry=True)
    await running
    assert log[-1] == ("forward", 1)


async def test_a_phase_that_fails_or_hangs_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """The spool is synced even if the streams could not be ended."""
    log: list[str] = []

    async def fail(_limit_s: float) -> None:
        message = "broken pipe"
        raise OSError(message)

    async def hang(_limit_s: float) -> None:
        await asyncio.Event().wait()

    async def last(_limit_s: float) -> None:
        log.append("last")

    drain = Drain(FakeClock(), grace_s=0.01)
    await drain.run([Phase("fails", 1, fail), Phase("hangs", 0, hang), Phase("last", 1, last)])
    assert log == ["last"]
    assert "broken pipe" in caplog.text
    assert "hangs took longer than it may" in caplog.text


@pytest.mark.parametrize(("number", "hurried"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
async def test_signals(number: signal.Signals, *, hurried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first signal begins the drain, Ctrl-C in a hurry; the same one again ends the process at once."""
    exits: list[int] = []
    monkeypatch.setattr("relay.drain.os._exit", exits.append)
    clock = FakeClock()
    drain = Drain(clock)
    drain.own_signals()
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(drain.asked(), 5)
        waiting = asyncio.create_task(drain.wait(5))
        await settle()
        assert waiting.done() == hurried
        os.kill(os.getpid(), number)
        await settle()
        assert exits == [128 + number]
        await clock.advance(5)
        await waiting
    finally:
        drain.disown_signals()


async def test_ctrl_c_hurries_a_drain_that_sigterm_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sits before the terminal need not wait for the load balancer's sake, and nothing is cut short for it."""
    exits: list[int] = []
    monkeypatch.setattr("relay.drain.os._exit", exits.append)
    drain = Drain(FakeClock())
    drain.own_signals()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(drain.asked(), 5)
        waiting = asyncio.create_task(drain.wait(5))
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(waiting, 5)
        assert exits == []
    finally:
        drain.disown_signals()


async def test_ctrl_c_cuts_a_phase_short_that_is_under_way() -> None:
    """What takes thirty seconds for the sake of others ends at once; what it leaves behind is cancelled."""
    ends: list[str] = []

    async def spread(_limit_s: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("spread")

    async def last(_limit_s: float) -> None:
        ends.append("last")

    drain = Drain(FakeClock(), grace_s=0.01)
    drain.begin()
    running = asyncio.create_task(drain.run([Phase("spread", 30, spread), Phase("last", 1, last)]))
    await settle()
    assert drain.phase == "spread"
    drain.begin(hurry=True)
    await asyncio.wait_for(running, 5)
    assert ends == ["spread", "last"]
