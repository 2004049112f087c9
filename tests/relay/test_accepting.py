"""The paced accept loop: few connections in a turn, all of them in the end, and none lost for want of descriptors."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from relay.serve import accepting
from relay.serve.accepting import PER_TURN, Acceptor
from relay.serve.server import listen

CLIENTS = 5 * PER_TURN + 1


class Greeting(asyncio.Protocol):
    """Says one byte to whoever comes, and counts."""

    def __init__(self, made: list["Greeting"]) -> None:
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"!")
        transport.close()


@pytest.fixture(name="listener")
def listener_fixture() -> Iterator[socket.socket]:
    """A listener that holds what nobody accepts."""
    with listen("127.0.0.1", 0, 64, "test.port") as listener:
        yield listener


def clients(listener: socket.socket, number: int) -> list[socket.socket]:
    made = [socket.create_connection(listener.getsockname()) for _ in range(number)]
    for each in made:
        each.settimeout(5)
    return made


async def greeted(waiting: list[socket.socket]) -> None:
    """Read what each of them is told, and its end."""
    for each in waiting:
        assert await asyncio.to_thread(each.recv, 2) == b"!"
        each.close()


async def test_a_storm_is_taken_in_a_few_at_a_time(listener: socket.socket) -> None:
    """No turn of the loop takes more than `PER_TURN`; all that had come before are greeted in the end."""
    made: list[Greeting] = []
    acceptor = Acceptor(listener, lambda: Greeting(made))
    waiting = clients(listener, CLIENTS)
    acceptor.start()
    seen = 0
    while len(made) < CLIENTS:
        await asyncio.sleep(0)
        assert len(made) - seen <= PER_TURN
        seen = len(made)
    await greeted(waiting)
    acceptor.stop()


async def test_whoever_gave_up_costs_the_others_nothing(listener: socket.socket) -> None:
    """A connection that was reset before it was accepted is passed over."""
    made: list[Greeting] = []
    first, *others = clients(listener, 3)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    first.close()
    acceptor = Acceptor(listener, lambda: Greeting(made))
    acceptor.start()
    await greeted(others)
    acceptor.stop()


class Exhausted:
    """A listener of a process that has no descriptor left for a while."""

    def __init__(self, listener: socket.socket, errors: list[int]) -> None:
        self.fileno = listener.fileno
        self._listener = listener
        self._errors = errors

    def accept(self) -> object:
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._listener.accept()


async def test_without_descriptors_it_waits_and_goes_on(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once for each wait, does not spin meanwhile, and loses nobody."""
    monkeypatch.setattr(accepting, "EXHAUSTED_S", 0.01)
    made: list[Greeting] = []
    acceptor = Acceptor(
        Exhausted(listener, [errno.ECONNABORTED, errno.EMFILE, errno.ENFILE]),  # type: ignore[arg-type]
        lambda: Greeting(made),
    )
    waiting = clients(listener, 3)
    acceptor.start()
    await greeted(waiting)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    acceptor.stop()


async def test_what_was_accepted_is_opened_before_the_end(listener: socket.socket) -> None:
    """After `stop` and `settled` nobody new is taken, and nobody is left half open."""
    made: list[Greeting] = []
    acceptor = Acceptor(listener, lambda: Greeting(made))
    waiting = clients(listener, 10 * PER_TURN)
    acceptor.start()
    while not made:  # noqa: ASYNC110 - turns of the loop are what is counted
        await asyncio.sleep(0)
    acceptor.stop()
    await acceptor.settled()
    taken = len(made)
    assert taken % PER_TURN == 0
    assert taken < len(waiting)
    assert not acceptor.is_accepting
    await greeted(waiting[:taken])
    for each in waiting[taken:]:
        each.close()
    assert len(made) == taken
