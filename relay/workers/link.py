"""What worker 0 and the others say to each other: how a worker is started and told to end, and the paths it asks.

Commands go down the worker's standard input, one a line; its end means that worker 0 is gone. Requests go up a Unix
socket as HTTP and carry a secret that was made at this start and is in no file, argument or variable. The socket is
in a directory that nobody else can enter.
"""

import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from relay.settings import RelaySettings

SECRET_HEADER: Final = "Worker-Secret"  # noqa: S105 - the name of a header
BATCH_HEADER: Final = "Batch-Id"

TRACK_PATH: Final = "/workers/track"
RECORDS_PATH: Final = "/workers/records"
FIGURES_PATH: Final = "/workers/figures"

DRAIN: Final = b"drain"
HURRY: Final = b"hurry"

REPORT_EVERY_S: Final = 1.0
# AF_UNIX addresses end at 108 bytes.
_LONGEST_PATH: Final = 100


@dataclass(frozen=True, slots=True)
class Start:
    """All that a worker is told before it begins. `instance` is another one after every restart."""

    number: int
    instance: str
    socket: str
    secret: str = field(repr=False)
    settings: RelaySettings

    def encode(self) -> bytes:
        """Return one line. Without what is secret: a worker talks to neither upstream nor collector."""
        told = self.settings.model_dump(mode="json", exclude={"upstream": {"key", "key_file"}, "otel": True})
        return orjson.dumps(
            {
                "number": self.number,
                "instance": self.instance,
                "socket": self.socket,
                "secret": self.secret,
                "settings": told,
            }
        )


def decode_start(line: bytes) -> Start:
    """Read what `Start.encode` gave."""
    told: dict[str, Any] = orjson.loads(line)
    return Start(
        number=told["number"],
        instance=told["instance"],
        socket=told["socket"],
        secret=told["secret"],
        settings=RelaySettings.model_validate(told["settings"]),
    )


class SocketPlace:
    """Where the Unix socket is: in the data directory, or elsewhere if its path is too long for an address."""

    def __init__(self, data_dir: Path) -> None:
        wanted = data_dir.absolute() / "workers" / "worker-0.sock"
        self._temporary: Path | None = None
        if len(bytes(wanted)) > _LONGEST_PATH:
            self._temporary = Path(tempfile.mkdtemp(prefix="halyard-"))
            wanted = self._temporary / wanted.name
        self.path = wanted

    def prepare(self) -> None:
        """Make the directory for this user alone, and take away what a killed process left.

        Raises:
            OSError: the directory cannot be used.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        self.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take the socket away."""
        self.path.unlink(missing_ok=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def new_secret() -> str:
    """Return a secret for one start."""
    return secrets.token_hex(32)
