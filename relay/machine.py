"""What Linux tells of this process and of the container that it runs in.

Only reads, from any thread, and holds nothing. What is not there is an empty reading, never a guess.
"""

import platform
from collections.abc import Sequence
from pathlib import Path

from relay.metrics import Reading
from relay.version import VERSION

TASKS = Path("/proc/self/task")
# Of cgroup v2, and of v1 as long as it is found.
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# cgroup v1 writes "no limit" as a number near 2**63.
NO_LIMIT_BYTES = 1 << 60


def build() -> Reading:
    """Return the versions of the program and of Python, as labels."""
    return {(VERSION, platform.python_version()): 1.0}


def threads(tasks: Path = TASKS) -> Reading:
    """Return the number of threads, those of native libraries included."""
    try:
        return {(): float(sum(1 for _ in tasks.iterdir()))}
    except OSError:
        return {}


def memory_limit(files: Sequence[Path] = LIMIT_FILES) -> Reading:
    """Return the container's limit in bytes; nothing where there is none."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        limit = int(text) if text.isdecimal() else NO_LIMIT_BYTES
        return {(): float(limit)} if limit < NO_LIMIT_BYTES else {}
    return {}
