"""A worker's process: `python -m relay.workers`, started by worker 0 and by nobody else.

What it is told comes on standard input: one line to begin with, then commands. When that ends, worker 0 is gone, and
this process goes at once: it must not hold a share of a port that belongs to nobody any more.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator

import uvloop

from relay import logs
from relay.clock import SystemClock
from relay.errors import BadSettings
from relay.workers.child import Child
from relay.workers.link import DRAIN, HURRY, Start, decode_start

_STDIN = 0
_CHUNK = 1 << 16


def lines() -> Iterator[bytes]:
    """Yield what worker 0 says, line by line, until it says no more."""
    # Not through sys.stdin: a thread that waits in it holds a lock that the interpreter wants when it ends.
    held = b""
    while chunk := os.read(_STDIN, _CHUNK):
        *whole, held = (held + chunk).split(b"\n")
        yield from whole


def obey(commands: Iterator[bytes], loop: asyncio.AbstractEventLoop, child: Child) -> None:
    """Pass commands on to the loop until worker 0 is gone; a thread, so that a stuck loop does not outlive it."""
    for command in commands:
        if command in {DRAIN, HURRY}:
            loop.call_soon_threadsafe(lambda hurry: child.drain.begin(hurry=hurry), command == HURRY)
    os._exit(1)


async def run(start: Start, commands: Iterator[bytes]) -> None:
    """Be a worker until it is told to end."""
    child = Child(start, SystemClock())
    loop = asyncio.get_running_loop()
    # A service manager may signal every process of a service; worker 0 says what is to be done about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, child.drain.begin)
    threading.Thread(target=obey, args=(commands, loop, child), name="commands", daemon=True).start()
    await child.start()
    await child.drain.asked()
    await child.stop()


def main() -> int:
    """Run one worker; return the exit status."""
    commands = lines()
    first = next(commands, None)
    if first is None:
        print("halyard-relay starts this by itself: use `halyard-relay --workers N`", file=sys.stderr)  # noqa: T201
        return 2
    start = decode_start(first)
    logs.configure(start.settings.log.level, start.settings.log.format)
    _name_worker_in_logs(start.number)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(start, commands))
    except BadSettings as error:
        logging.getLogger(__name__).error("the worker cannot start", extra={"problems": error.problems})  # noqa: TRY400
        return 2
    return 0


def _name_worker_in_logs(number: int) -> None:
    make = logging.getLogRecordFactory()

    def named(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.worker = number
        return record

    logging.setLogRecordFactory(named)


if __name__ == "__main__":
    sys.exit(main())
