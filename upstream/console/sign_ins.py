"""What `halyard login` and `halyard use` keep: `credentials.json`, for its owner only.

One entry per authority, by its URL, so that a token is never sent to another one than it is for. Refresh tokens are
good once: whoever exchanges one holds the lock, so that two commands at a time do not end the sign-in.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from upstream.console.failures import Exit, Failed

DEFAULT_URL = "http://127.0.0.1:8700"
FILE = "credentials.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """How to sign in at one authority, and what is meant there when nothing is named.

    Either `token` (an API token) or the pair of a person's sign-in; `expires_at` is epoch seconds by our own clock.
    """

    email: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_at: float = 0.0
    token: str | None = None
    project: str | None = None
    environment: str | None = None

    @property
    def bearer(self) -> str | None:
        """Return what opens the API."""
        return self.token or self.access_token

    def renewed(self, answer: Mapping[str, Any], now: float) -> "SignIn":
        """Return this with the tokens of an answer of `/auth/login` or `/auth/refresh`."""
        return replace(
            self,
            token=None,
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires_at=now + answer["expires_in"],
        )

    def ended(self) -> "SignIn":
        """Return this without anything that opens the API; what was chosen with `use` stays."""
        return SignIn(project=self.project, environment=self.environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The file: the authority that is meant when none is named, and the sign-ins by URL."""

    url: str | None = None
    sign_ins: Mapping[str, SignIn] = field(default_factory=dict)

    def at(self, url: str) -> SignIn:
        """Return the sign-in at one authority, which may be empty."""
        return self.sign_ins.get(url, SignIn())


def directory() -> Path:
    """Return where the file is: `halyard` in the user's directory for configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "halyard"


def load() -> Kept:
    """Return what is kept; nothing, if there is no file.

    Raises:
        Failed: the file cannot be read or used.
    """
    path = directory() / FILE
    try:
        raw = orjson.loads(path.read_bytes())
        return Kept(url=raw["url"], sign_ins={url: SignIn(**entry) for url, entry in raw["sign_ins"].items()})
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise Failed(Exit.USAGE, f"{path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(Exit.USAGE, f"{path} cannot be used; remove it and sign in again: halyard login") from error


def keep(url: str, entry: SignIn, *, is_chosen: bool = False) -> None:
    """Keep one sign-in; with `is_chosen` it is the one that is meant from now on. The caller holds the lock.

    Raises:
        Failed: the file cannot be written.
    """
    path = directory() / FILE
    known = load()
    document = {
        "url": url if is_chosen or known.url is None else known.url,
        "sign_ins": {place: asdict(each) for place, each in {**known.sign_ins, url: entry}.items()},
    }
    try:
        _write_private(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise Failed(Exit.USAGE, f"{path}: {error.strerror}.") from error


@contextmanager
def locked() -> Iterator[None]:
    """Keep other commands from changing the file meanwhile.

    Raises:
        Failed: the directory cannot be written.
    """
    path = directory() / "lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failed(Exit.USAGE, f"{path}: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
