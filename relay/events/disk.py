"""The seam between the spool and the operating system, and the errors in which its refusals are told.

    HalyardError
    └── SpoolError
        ├── SpoolFull     no room now, by the limit or on the disk; goes away by itself
        ├── SpoolFailed   the disk did not keep what it was given; nothing more is taken until a restart
    ├── SpoolClosed   the process is about to end
        └── SpoolLocked   another process works on the directory

`Disk` holds the two calls that can lose data, so that tests can make them fail as real disks do.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from relay.errors import HalyardError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolError(HalyardError):
    """The spool refuses."""


class SpoolFull(SpoolError):
    """There is no room now."""


class SpoolFailed(SpoolError):
    """The disk failed; what it holds beyond the last confirmed byte is unknown."""


class SpoolClosed(SpoolError):
    """The spool has been closed."""


class SpoolLocked(SpoolError):
    """Another process works on this directory."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What the operating system is asked for."""

    write: Callable[[int, bytes | memoryview], int] = os.write
    sync: Callable[[int], None] = os.fdatasync


def write_all(disk: Disk, descriptor: int, data: bytes) -> None:
    """Write every byte; a disk may take a part of what it is given."""
    view = memoryview(data)
    while view:
        view = view[disk.write(descriptor, view) :]


def lock_directory(path: Path) -> int:
    """Take the directory for this process; the lock goes when the returned descriptor is closed or the process dies.

    Raises:
        SpoolLocked: another process has it.
    """
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SpoolLocked(f"{path} is used by another process; give each relay a data directory of its own") from error
    return descriptor
