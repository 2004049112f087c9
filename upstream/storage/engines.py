"""How a database is connected to: SQLite and PostgreSQL engines, whose connections write or only read.

Every transaction of a reading engine sees one moment. A writing one takes the whole SQLite file; on PostgreSQL it is
READ COMMITTED and takes the locks of `upstream.storage.locks`. Nothing here waits longer than it is told to.
"""

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from upstream.storage.errors import Unavailable

POSTGRESQL: Final = "postgresql"
CONNECT_S: Final = 3
"""Longest wait for a new connection, so that a database that has come back is found within 5 s."""
_DRIVER: Final = "postgresql+psycopg"
_IDLE_MS: Final = 20_000
"""A transaction whose process does nothing for so long (it is stopped, or cut off) is ended by the server."""
_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}


def parsed(url: str) -> URL:
    """Read a database URL; `postgres://` and `postgresql://` get the driver that is used.

    Raises:
        ValueError: it is no URL of a database that Halyard can use. The text holds no password.
    """
    try:
        found = make_url(url)
    except ArgumentError:
        raise ValueError("not a database URL; write sqlite:///path/to/halyard.db or postgresql://…") from None
    if found.drivername in {"postgres", POSTGRESQL, _DRIVER}:
        return found.set(drivername=_DRIVER)
    if found.get_backend_name() == "sqlite" and found.database:
        return found
    raise ValueError(f"not a SQLite file or PostgreSQL: {shown(found)!r}; write sqlite:///path/to/halyard.db")


def shown(url: URL | str) -> str:
    """Return a URL without its password."""
    found = make_url(url) if isinstance(url, str) else url
    hidden = found.update_query_dict({"password": "***"}) if "password" in found.query else found
    text = hidden.render_as_string(hide_password=True)
    return text.replace(_DRIVER, POSTGRESQL, 1)


def is_postgresql(url: URL) -> bool:
    """Tell which of the two it is."""
    return url.get_backend_name() == POSTGRESQL


def file_of(url: URL) -> Path | None:
    """Return the file of a SQLite database; None for PostgreSQL."""
    return None if is_postgresql(url) else Path(str(url.database))


def writing_engine(url: URL, *, size: int = 1, patience_s: float = 10.0) -> Engine:
    """Return an engine whose transactions write; none waits longer than `patience_s` for somebody else's lock."""
    if is_postgresql(url):
        return _postgresql_engine(url, size=size, patience_s=patience_s, isolation_level="READ COMMITTED")
    return sqlite_engine(url, begin="BEGIN IMMEDIATE", size=size, busy_timeout_s=patience_s)


def reading_engine(url: URL, *, size: int = 1, patience_s: float = 10.0) -> Engine:
    """Return an engine whose transactions only read, and see one moment from their first statement on."""
    if is_postgresql(url):
        return _postgresql_engine(
            url, size=size, patience_s=patience_s, isolation_level="REPEATABLE READ", read_only=True
        )
    return sqlite_engine(url, begin="BEGIN", size=size, busy_timeout_s=patience_s, query_only=True)


def sqlite_engine(
    url: URL | str,
    *,
    begin: str,
    size: int = 1,
    busy_timeout_s: float = 10.0,
    query_only: bool = False,
) -> Engine:
    """Return an engine on a SQLite file whose transactions start with `begin`."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would begin transactions on its own, before DML only; they are begun below instead.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if query_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql_engine(
    url: URL, *, size: int, patience_s: float, isolation_level: str, read_only: bool = False
) -> Engine:
    try:
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            # A connection that a restart of the server has cut is replaced before anybody's work is tried on it.
            pool_pre_ping=True,
            isolation_level=isolation_level,
            execution_options={"postgresql_readonly": read_only},
            connect_args={"connect_timeout": CONNECT_S, "application_name": "halyard", **_KEEPALIVE, **url.query},
        )
    except ImportError as error:
        raise Unavailable(
            f"PostgreSQL needs the driver psycopg, which cannot be loaded ({error}): pip install 'halyard[upstream]'"
        ) from error
    limits = {"lock_timeout": round(patience_s * 1000), "idle_in_transaction_session_timeout": _IDLE_MS}

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.adapters.register_dumper(str, _dumper())
        # By statements rather than start-up options, which connection poolers refuse.
        with connection.cursor() as cursor:
            cursor.execute("; ".join(f"SET {name} = {value}" for name, value in limits.items()))
        connection.commit()

    return engine


def _dumper() -> type:
    """Return how texts are sent: PostgreSQL has no NUL, so that what is looked for with one is not found.

    Texts that are stored have been checked for it before.
    """
    from psycopg.types.string import StrDumper  # noqa: PLC0415 - there need be no driver where there is no PostgreSQL

    class Text(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\x00", "\ufffd") if "\x00" in obj else obj)

    return Text
