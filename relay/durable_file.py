"""Files that are on the disk when a call returns, and whole or not there at all.

The few lines that every part with a directory of its own needs: write and synchronise, rename, synchronise the name.
Knows nothing of what is written; decides nothing when the disk refuses (`OSError`). All functions block.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal


def write_synced(path: Path, pieces: Iterable[bytes], mode: Literal["wb", "ab"] = "wb") -> None:
    """Write a file, or append to it, for its owner's eyes only; its bytes are on the disk then, its name may not be."""
    with open(path, mode, opener=_private) as file:
        os.fchmod(file.fileno(), 0o600)
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Give a file a new content: after a crash it has the old one or the new one, and after this call the new one."""
    temporary = path.with_suffix(".tmp")
    write_synced(temporary, pieces)
    temporary.replace(path)
    sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file, if it is there, so that no crash brings it back."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in the directory durable: without it a power loss can take a new file away, data and all."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
