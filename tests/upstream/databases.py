"""Which database the tests run on: `HALYARD_TEST_DATABASE` is `sqlite` (as it is where it is not set) or `postgresql`.

A database is named by a path: a SQLite file, or a database of that name on the one PostgreSQL of this run. Tests that
are about SQLite's files alone are marked `sqlite_only`, with the reason.
"""

import atexit
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from tests.postgresql import Databases, Server
from upstream.storage.engines import parsed, writing_engine
from upstream.storage.tables import metadata

KIND = os.environ.get("HALYARD_TEST_DATABASE", "sqlite")
IS_POSTGRESQL = KIND == "postgresql"
SERVER = "HALYARD_TEST_POSTGRESQL"
"""The directory of the server that the run has started, told to the workers."""

assert KIND in {"sqlite", "postgresql"}, f"HALYARD_TEST_DATABASE is {KIND!r}; it must be sqlite or postgresql"


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Mark a test that says nothing about PostgreSQL."""
    return _skipped(f"SQLite only: {reason}", where=IS_POSTGRESQL)


def postgresql_only(reason: str) -> pytest.MarkDecorator:
    """Mark a test that says nothing about SQLite."""
    return _skipped(f"PostgreSQL only: {reason}", where=not IS_POSTGRESQL)


def _skipped(reason: str, *, where: bool) -> pytest.MarkDecorator:
    # Tests with this mark are told of in one line a file, those that skip by a condition in one line each.
    return pytest.mark.skip(reason=reason) if where else pytest.mark.skipif(condition=False, reason=reason)


@cache
def databases() -> Databases:
    """Return this process's databases; a process that nobody has given a server starts its own."""
    directory = os.environ.get(SERVER)
    if directory is None:
        server = Server.made()
        atexit.register(server.close)
        directory = str(server.directory)
    return Databases(Path(directory))


def url_of(path: Path) -> str:
    """Return the URL of the database that a path names; an empty one is made on PostgreSQL where there is none."""
    return databases().url_of(path) if IS_POSTGRESQL else f"sqlite:///{path}"


def copy_of(template: Path, folder: Path) -> Path:
    """Copy a database that nobody is connected to."""
    path = folder / "halyard.db"
    if IS_POSTGRESQL:
        databases().copy(template, path)
    else:
        shutil.copy(template, path)
    return path


def is_kept(path: Path) -> bool:
    """Tell whether there is such a database to copy."""
    return databases().is_kept(path) if IS_POSTGRESQL else path.exists()


def keep(path: Path) -> Path:
    """Keep a database, to be copied by later tests."""
    if IS_POSTGRESQL:
        databases().keep(path)
    return path


@contextmanager
def forgetting() -> Iterator[None]:
    """Drop at the end what is made in between; files go with their directory."""
    before = set(databases().made) if IS_POSTGRESQL else set()
    yield
    if IS_POSTGRESQL:
        databases().drop(but=before)


def engine_at(path: Path) -> Engine:
    """Return an engine that writes."""
    return writing_engine(parsed(url_of(path)))


@cache
def _shared_engine() -> tuple[Engine, list[str]]:
    """Return one engine for all tests, with the place that it connects to: compiling statements is what takes long."""
    engine, current = writing_engine(parsed(databases().url("unused") if IS_POSTGRESQL else "sqlite:///unused")), [""]

    def connect_to_current(_dialect: object, _record: object, arguments: list[str], options: dict[str, Any]) -> None:
        if IS_POSTGRESQL:
            options["dbname"] = current[0]
        else:
            arguments[0] = current[0]

    event.listen(engine, "do_connect", connect_to_current)
    if not IS_POSTGRESQL:
        # Nothing here survives a crash of the machine, and need not.
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine, current


def shared_engine_on(path: Path) -> Engine:
    """Return the engine that all tests share, led to this database."""
    engine, current = _shared_engine()
    engine.dispose()
    current[0] = str(parsed(url_of(path)).database)
    return engine


def dump(connection: Connection) -> list[str]:
    """Return everything that is stored, a line each: the table's name and the row."""
    lines: list[str] = []
    for table in metadata.sorted_tables:
        rows = connection.exec_driver_sql(f"SELECT * FROM {table.name}")
        lines += sorted(f"{table.name} {row!r}" for row in rows)
    return lines
