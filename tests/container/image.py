"""The images without an engine: the same trees, run with what an engine would give them.

`container/build-tree.sh` makes a tree, as in the Dockerfile. `Image.start` runs a command of the Dockerfile as its
numeric user, with its variables and nothing else of this machine's, in a mount namespace where every file system but
the data directory is read-only.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.container.dockerfile import ROOT, Stage
from tests.stack import Process

USER = 65532
PREFIX = "/opt/halyard"
BUILD_DEADLINE_S = 300.0
# The data directory becomes a mount of its own and stays writable. A bound mount's flags are those of this namespace.
SEAL = """
mount --bind "$1" "$1"
for each in $(awk -v keep="$1" '$2 != keep && $3 !~ /^(proc|sysfs|devpts|cgroup2?|mqueue)$/ {print $2}' \
    /proc/self/mounts | sort -u); do
  mount -o remount,bind,ro "$each"
done
shift
exec setpriv $BECOME sh -c 'exec "$0" "$@"' "$@"
"""
# The shell between is what loses the rights: setpriv itself could still start what the user may not.
BECOME = f"--reuid={USER} --regid={USER} --clear-groups --no-new-privs --bounding-set=-all"


def lacking() -> str | None:
    """Return why images cannot be tried on this machine."""
    if os.geteuid() != 0:
        return "only root can start processes as the image's user"
    for program in ("unshare", "setpriv", "strip", "bash"):
        if shutil.which(program) is None:
            return f"{program} is not on this machine"
    if interpreter() is None:
        return f"there is no Python with pip here that user {USER} can run"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-o", "remount,bind,ro", "/"], check=False, capture_output=True, text=True
    )
    return f"mounts cannot be changed here: {tried.stderr.strip()}" if tried.returncode else None


def interpreter() -> str | None:
    """Return a Python of this machine that can make a tree and that the image's user can run."""
    probe = "import pip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    for path in (str(Path(sys.executable).resolve()), "/usr/local/bin/python3", "/usr/bin/python3"):
        become = ["setpriv", *BECOME.split(), "sh", "-c", 'exec "$0" -Ic "$1"', path, probe]
        if subprocess.run(become, check=False, capture_output=True, cwd="/").returncode == 0:
            return path
    return None


def build(target: str, prefix: Path) -> "subprocess.Popen[bytes]":
    """Begin to make the tree of a target."""
    return subprocess.Popen(
        ["sh", "container/build-tree.sh", target, str(prefix)],
        cwd=ROOT,
        env={**os.environ, "PYTHON": interpreter() or ""},
    )


@dataclass
class Image:
    """A target's tree with a data directory of its own."""

    stage: Stage
    tree: Path
    data: Path
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data.mkdir(mode=0o700)
        os.chown(self.data, USER, USER)

    def here(self, text: str) -> str:
        """Return a text of the Dockerfile with the places on this machine."""
        return text.replace(PREFIX, str(self.tree)).replace("/data", str(self.data))

    def start(self, command: list[str], environ: Mapping[str, str] | None = None) -> Process:
        """Run a command as a container would."""
        output = self.data.with_name(f"{self.data.name}-{len(self.processes)}.txt")
        variables = {name: self.here(value) for name, value in self.stage.pairs("ENV").items()}
        # The mounts are made by root's shell, which finds its programs by the path that the image sets.
        variables["PATH"] += ":/usr/sbin:/sbin"
        words = [self.here(word) for word in command]
        with output.open("wb") as sink:
            popen = subprocess.Popen(
                ["unshare", "-m", "bash", "-ec", SEAL, "seal", str(self.data), *words],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**variables, "HOME": "/", "BECOME": BECOME, **(environ or {})},
                cwd="/",
            )
        process = Process(popen, output)
        self.processes.append(process)
        return process

    def run(self, *command: str, environ: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a command to its end; return exit status and output."""
        process = self.start(list(command), environ)
        status = process.popen.wait(60)
        return status, process.text()

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.stop(signal.SIGKILL)
