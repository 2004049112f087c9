"""How the database says no: nothing was stored, and the same call can be tried again. And what its errors mean.

The one exception is a connection that is lost while a commit is on its way: that may have happened or not, and only an
idempotency key tells.
"""

from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

RACES: Final = frozenset({"40001", "40P01", "23505", "23503"})
"""SQLSTATEs with which PostgreSQL ends one of two transactions that met: serialization failure, deadlock, and a row
that another has inserted (or deleted) after this one had looked."""
_REFUSALS: Final = ("08", "25006", "53", "55P03", "57", "58")
"""SQLSTATEs (or their classes) that say: not now. Connection, read-only server, resources, lock timeout, operator
intervention (shutdown, cancelled), system error. Most are OperationalErrors to the driver, some are not."""


class Unavailable(Exception):
    """The database cannot take this now: too many calls wait, the disk is full, or it is locked or away."""


class Stale(Unavailable):
    """Somebody else changed the entity between reading and writing it."""


class KeyTaken(Exception):
    """Another request with the same idempotency key came first. Nothing was stored; its answer can be asked for."""


def is_race(error: Exception) -> bool:
    """Tell whether the same work, done again from the start, may well go through."""
    return isinstance(error, Stale) or (isinstance(error, DBAPIError) and _sqlstate(error) in RACES)


def is_refusal(error: Exception) -> bool:
    """Tell whether the error is about the database and the moment, and not about what was asked of it."""
    if isinstance(error, IntegrityError) or not isinstance(error, DBAPIError):
        return False
    about_now = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return about_now or _sqlstate(error).startswith(_REFUSALS)


def reason_of(error: Exception) -> str:
    """Return what the database itself said, without the statement and its values."""
    return str(error.orig if isinstance(error, DBAPIError) else error).strip()


def _sqlstate(error: DBAPIError) -> str:
    """Return PostgreSQL's code for an error; empty on SQLite, and where the server was not reached."""
    return getattr(error.orig, "sqlstate", None) or ""
