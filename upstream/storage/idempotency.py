"""Answers to writes that may be repeated: claimed and kept in the transaction of the write itself.

A row is one key of one principal; without its write it is never there. What is kept is sealed by whoever brings it: the
answer may hold the text of a new key, which is not to be found in a database.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from upstream.storage import tables
from upstream.storage.errors import KeyTaken

_TABLE = tables.idempotency
# Built once, as building a statement costs more than running it.
_ONE = (_TABLE.c.principal == bindparam("of_principal"), _TABLE.c.key == bindparam("of_key"))
_KEPT = select(_TABLE.c.body_hash, _TABLE.c.status, _TABLE.c.response).where(*_ONE)
_CLAIM = insert(_TABLE)
_KEEP = update(_TABLE).where(*_ONE).values(status=bindparam("new_status"), response=bindparam("new_response"))

UNANSWERED: Final = 0
"""In the place of a status: the write was carried out, and its answer is not known yet."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A key of a principal, and the hash of the request that it stands for."""

    principal: str
    key: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What a request was answered with, or (status `UNANSWERED`) what it did; `response` is for whoever wrote it."""

    request_hash: str
    status: int
    response: bytes

    @property
    def is_answered(self) -> bool:
        """Tell whether this is an answer."""
        return self.status != UNANSWERED


def kept(connection: Connection, principal: str, key: str) -> Kept | None:
    """Return what is kept under a key."""
    row = connection.execute(_KEPT, {"of_principal": principal, "of_key": key}).one_or_none()
    return None if row is None else Kept(row.body_hash, row.status, row.response)


def claim(connection: Connection, wanted: Claim, now_ms: int) -> None:
    """Take the key for the transaction that is under way; whoever wants it too waits for that to end.

    Raises:
        KeyTaken: it is taken already.
    """
    row = {
        "principal": wanted.principal, "key": wanted.key, "body_hash": wanted.request_hash, "status": UNANSWERED,
        "response": b"", "at": now_ms,
    }  # fmt: skip
    try:
        connection.execute(_CLAIM, row)
    except IntegrityError as error:
        raise KeyTaken from error


def keep(connection: Connection, of: Claim, status: int, response: bytes) -> None:
    """Keep this under a claimed key, in the place of what was kept before."""
    row = {"of_principal": of.principal, "of_key": of.key, "new_status": status, "new_response": response}
    connection.execute(_KEEP, row)
