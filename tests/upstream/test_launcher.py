"""Two processes under one terminal: started in order, kept alive, stopped in reverse order."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from upstream import launcher
from upstream.launcher import GaveUp, Launcher, Service

DEADLINE_S = 10.0

# Answers every probe with 200, says what happens to it, and ends with the status that a file names.
PROGRAM = """
import signal, socket, sys, time
name, port = sys.argv[1], int(sys.argv[2])
def end(*_):
    print("ending", flush=True)
    if name == "stubborn":
        return
    sys.exit(0)
signal.signal(signal.SIGINT, end)
door = socket.create_server(("127.0.0.1", port))
print("started", flush=True)
while True:
    peer, _ = door.accept()
    peer.recv(1000)
    peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    peer.close()
"""


class Program(Service):
    """A service that is a few lines of Python."""

    def command(self) -> list[str]:
        """Return the command line of the stand-in."""
        return [sys.executable, "-I", "-c", *self.arguments]


def program(name: str, text: str = PROGRAM) -> Program:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Program(name, [text, name, str(port)], ("127.0.0.1", port, "/livez"))


class Terminal:
    """Remembers what was shown and what became ready, and lets a test wait for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.ready: list[str] = []
        self._news = asyncio.Event()

    def show(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._news.set()

    def on_ready(self, service: Service) -> None:
        self.ready.append(service.name)
        self._news.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_true():
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(launcher, "RESTART_S", 0.01)
    return Terminal()


async def test_starts_in_order_and_stops_in_reverse(terminal: Terminal) -> None:
    """The second starts when the first is ready; at the end the second goes first, so that its words still arrive."""
    running = Launcher(terminal.show)
    task = asyncio.create_task(running.run([program("upstream"), program("relay")], terminal.on_ready))
    await terminal.until(lambda: terminal.ready == ["upstream", "relay"])
    running.stop()
    await asyncio.wait_for(task, DEADLINE_S)
    assert terminal.lines == [
        ("upstream", "started"), ("relay", "started"), ("relay", "ending"), ("upstream", "ending"),
    ]  # fmt: skip


async def test_what_dies_is_started_again(terminal: Terminal) -> None:
    """A killed service comes back, with a line that says so."""
    running, service = Launcher(terminal.show), program("relay")
    task = asyncio.create_task(running.run([service], terminal.on_ready))
    await terminal.until(lambda: terminal.ready == ["relay"])
    assert service.process is not None
    service.process.kill()
    await terminal.until(lambda: terminal.lines.count(("relay", "started")) == 2)
    assert ("", "relay ended unexpectedly (signal SIGKILL); starting it again") in terminal.lines
    running.stop()
    await asyncio.wait_for(task, DEADLINE_S)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(2, "relay cannot start; see what it said above"), (3, "relay ended 5 times within a minute")],
)
async def test_what_cannot_run_is_given_up(terminal: Terminal, status: int, sentence: str) -> None:
    """Settings that cannot be used are not tried again; anything else is, five times. The other service is stopped."""
    running, first = Launcher(terminal.show), program("upstream")
    bad = program("relay", f"import sys; print('no'); sys.exit({status})")
    with pytest.raises(GaveUp, match=sentence) as caught:
        await asyncio.wait_for(running.run([first, bad], terminal.on_ready), DEADLINE_S)
    assert caught.value.status == (2 if status == 2 else 1)
    assert ("relay", "no") in terminal.lines
    assert terminal.lines[-1] == ("upstream", "ending")


async def test_what_does_not_stop_is_killed(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than two seconds for the terminal."""
    monkeypatch.setattr(launcher, "STOP_FIRST_S", 0.05)
    running = Launcher(terminal.show)
    task = asyncio.create_task(running.run([program("stubborn")], terminal.on_ready))
    await terminal.until(lambda: terminal.ready == ["stubborn"])
    running.stop()
    await asyncio.wait_for(task, DEADLINE_S)
    assert terminal.lines[-1][1].startswith("stubborn took too long and is killed")


async def test_a_second_signal_kills_at_once(terminal: Terminal) -> None:
    """Whoever presses Ctrl-C twice means it."""
    running, service = Launcher(terminal.show), program("stubborn")
    running.own_signals()
    task = asyncio.create_task(running.run([service], terminal.on_ready))
    await terminal.until(lambda: terminal.ready == ["stubborn"])
    os.kill(os.getpid(), signal.SIGINT)
    await terminal.until(lambda: ("stubborn", "ending") in terminal.lines)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, DEADLINE_S)
    assert service.process is not None
    assert service.process.returncode == -signal.SIGKILL


async def test_a_service_that_is_not_up_yet_ends_without_a_word(terminal: Terminal) -> None:
    """Ctrl-C while a service starts shows no traceback of what it interrupted."""
    running = Launcher(terminal.show)
    starting = program("upstream", "import time; print('importing', flush=True); time.sleep(60)")
    task = asyncio.create_task(running.run([starting], terminal.on_ready))
    await terminal.until(lambda: ("upstream", "importing") in terminal.lines)
    running.stop()
    await asyncio.wait_for(task, DEADLINE_S)
    assert terminal.lines == [("upstream", "importing")]


async def test_a_stop_while_a_process_is_being_made_ends_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that could not be told, because there was none yet, is told when it is there."""
    running, made = Launcher(terminal.show), []
    create = asyncio.create_subprocess_exec

    async def slow(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await create(*command, **options)
        made.append(process)
        running.stop()
        for _ in range(10):
            await asyncio.sleep(0)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
    service = program("upstream", "import time; time.sleep(60)")
    task = asyncio.create_task(running.run([service], terminal.on_ready))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await task
        assert made[0].returncode == -signal.SIGTERM
    finally:
        with suppress(ProcessLookupError):
            made[0].kill()


async def test_what_a_service_leaves_behind_does_not_hold_the_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own that keeps its output open is not waited for."""
    monkeypatch.setattr(launcher, "STOP_FIRST_S", 0.05)
    running = Launcher(terminal.show)
    left = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    leaver = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {left!r}]); time.sleep(60)"
    service = program("upstream", leaver)
    task = asyncio.create_task(running.run([service], terminal.on_ready))
    await terminal.until(lambda: terminal.lines != [])
    try:
        running.stop()
        await asyncio.wait_for(task, DEADLINE_S)
    finally:
        os.kill(int(terminal.lines[0][1]), signal.SIGKILL)
    assert service.process is not None
    assert service.process.stdout is not None
    assert await service.process.stdout.read() == b""


def test_services_end_with_a_killed_launcher(tmp_path: Path) -> None:
    """No orphan keeps the ports when the launcher itself is killed."""
    pid_file = tmp_path / "pid"
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-m', 'upstream.child', str(os.getpid()), sys.executable, '-c', {child!r}, "
        f"{str(pid_file)!r}])\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
        pid = int(pid_file.read_text())
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not is_running(pid))


def wait_for(is_true: Callable[[], bool]) -> None:
    """Look until it is true; what is waited for is another process, which gives no event."""
    deadline = os.times().elapsed + DEADLINE_S
    while not is_true():
        assert os.times().elapsed < deadline


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    return False
