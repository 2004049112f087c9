"""The relay's directory: one process works in it, and it knows which relay it belongs to.

relay-id      random, made at the first start
snapshot      newest configuration (`.old`: the one before)
spool/        events on their way, and the lock
outbox/       kills on their way
"""

import secrets
from pathlib import Path

from relay.changes.outbox import Outbox
from relay.clock import Clock
from relay.errors import BadSettings
from relay.events.disk import SpoolLocked
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import Changes, Events


async def take(path: Path, events: Events, clock: Clock, metrics: RelayMetrics) -> tuple[str, Spool]:
    """Return the relay's id and its opened spool; the directory is this process's from now on.

    Raises:
        BadSettings: the directory cannot be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything is served
        spool = await Spool.open(path / "spool", events, clock, metrics)
        return _relay_id(path / "relay-id"), spool
    except SpoolLocked as error:
        raise BadSettings([f"relay.data.dir: {path} is used by another relay that is running"]) from error
    except OSError as error:
        raise BadSettings([f"relay.data.dir: {path} cannot be used: {error.strerror or error}"]) from error


async def open_outbox(path: Path, changes: Changes, spool: Spool) -> Outbox:
    """Return the kills that are kept in a directory that has been taken with this spool.

    Raises:
        BadSettings: they cannot be read; the spool is closed then.
    """
    try:
        return Outbox.open(path / "outbox", changes.max_kills)
    except OSError as error:
        await spool.close()
        raise BadSettings([f"relay.data.dir: {path} cannot be used: {error.strerror or error}"]) from error


def _relay_id(file: Path) -> str:
    if not file.exists():
        temporary = file.with_suffix(".tmp")
        temporary.write_text(secrets.token_hex(16))
        temporary.replace(file)
    return file.read_text().strip()
