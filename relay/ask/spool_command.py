"""`halyard-relay spool`: what waits on the disk of a relay, whether it is whole, and sending it without the relay.

`inspect` and `verify` only read, also beside a running relay. `drain` takes the directory as a relay would, so never
beside one. Exit status: 0, 1 where `verify` found damage or `drain` left something, 2 where the command cannot be done.
"""

import argparse
import asyncio
import sys

import aiohttp
import orjson

from relay import data_dir
from relay.ask import spool_text as text
from relay.clock import Clock
from relay.errors import BadSettings
from relay.events.forward import Forwarder
from relay.events.inspection import inspect
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import RelaySettings, relay_key

MAX_FAILURES = 5
PROGRESS_S = 1.0


def run(options: argparse.Namespace, settings: RelaySettings, clock: Clock) -> int:
    """Do what was asked, print what came of it, and return the exit status.

    Raises:
        BadSettings: the directory, or what is needed to send, cannot be used.
    """
    directory = settings.data.dir / "spool"
    if not directory.is_dir():
        raise BadSettings([f"relay.data.dir: there is no spool in {settings.data.dir}; no relay has run there"])
    if options.verb == "drain":
        return asyncio.run(_drain(settings, clock))
    try:
        found = inspect(directory)
    except OSError as error:
        raise BadSettings([f"relay.data.dir: {directory} cannot be read: {error.strerror or error}"]) from error
    in_words, as_members = (
        (text.inspection, text.inspection_members)
        if options.verb == "inspect"
        else (text.verification, text.verification_members)
    )
    _say(orjson.dumps(as_members(directory, found)).decode() if options.json else in_words(directory, found))
    return 1 if options.verb == "verify" and found.damage else 0


async def _drain(settings: RelaySettings, clock: Clock) -> int:
    key = relay_key(settings)
    metrics = RelayMetrics()
    relay_id, spool = await data_dir.take(settings.data.dir, settings.events, clock, metrics)
    progress = _Progress(spool, clock)
    try:
        async with aiohttp.ClientSession() as session:
            forwarder = Forwarder(
                spool,
                session,
                settings.upstream,
                key=lambda: key,
                relay_id=relay_id,
                settings=settings.events,
                clock=clock,
                metrics=metrics,
            )
            ended = await forwarder.drain(MAX_FAILURES, progress)
        refused = round(metrics.events_quarantined.value("rejected"))
        _say(
            f"{progress.sent(refused):,} records sent, {refused:,} refused and put into the quarantine, "
            f"{spool.stats().records:,} left"
        )
    finally:
        await spool.close()
    if ended is None:
        return 0
    print(f"halyard-relay: not everything could be sent; the last answer: {ended.reason}", file=sys.stderr)  # noqa: T201
    return 1


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._at_first = spool.stats().records
        self._said_at = clock.monotonic()

    def __call__(self) -> None:
        now = self._clock.monotonic()
        if now - self._said_at >= PROGRESS_S:
            self._said_at = now
            left = self._spool.stats().records
            print(f"{left:,} of {self._at_first:,} records waiting", file=sys.stderr)  # noqa: T201 - beside the answer

    def sent(self, refused: int) -> int:
        """Return how many records have left but for those that were refused."""
        return self._at_first - self._spool.stats().records - refused


def _say(line: str) -> None:
    print(line.encode("utf-8", "backslashreplace").decode())  # noqa: T201 - the answer
