"""Where sign-ins and keys are looked up: chains of refresh tokens, each used once, and API tokens by their hash.

Functions on a connection, called inside a transaction of the database. Only hashes are stored.
"""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, insert, select, update

from upstream.domain.entities import Credential, Member, RefreshToken
from upstream.storage import tables
from upstream.storage.records import locked, one, values_of

_table = tables.refresh_tokens


@dataclass(frozen=True, slots=True)
class Renewal:
    """What came of a refresh token: whose it was, and the token that follows it."""

    member: Member
    token: RefreshToken


def credential_by_hash(connection: Connection, digest: str) -> Credential | None:
    """Return the key or token with that SHA-256, dead or alive."""
    return one(connection, Credential, hash=digest)


def note_use(connection: Connection, credential_id: str, now_ms: int) -> None:
    """Store when a token was last used."""
    table = tables.credentials
    connection.execute(update(table).where(table.c.id == credential_id).values(last_used_at=now_ms))


def add(connection: Connection, token: RefreshToken) -> None:
    """Store a refresh token; the member's expired ones are cleared away with it, so that they never pile up."""
    gone = (_table.c.member_id == token.member_id, _table.c.expires_at <= token.issued_at)
    connection.execute(delete(_table).where(*gone))
    connection.execute(insert(_table), values_of(token))


def begin(connection: Connection, member: Member, token: RefreshToken) -> bool:
    """Store the first token of a sign-in, unless the member's password is not the one that was verified any more.

    Verifying takes long and happens outside the transaction, so the password may have been changed meanwhile; whoever
    knew the old one must not be signed in after the sign-ins have ended.
    """
    # Locked, as is whoever changes the password: it ends the sign-ins that it finds, and must find this one.
    now = locked(connection, Member, id=member.id)
    if now is None or now.password_hash != member.password_hash:
        return False
    add(connection, token)
    return True


def renew(connection: Connection, presented: str, successor: RefreshToken, now_ms: int) -> Renewal | None:
    """Exchange a refresh token (by hash) for `successor`, which takes over its member and family; None = refused.

    One that was used before ends its whole sign-in: two parties hold it.
    """
    seen = one(connection, RefreshToken, hash=presented)
    # The member first, as everybody does who ends sign-ins; then the token, which two may present at once.
    member = None if seen is None else locked(connection, Member, id=seen.member_id)
    held = locked(connection, RefreshToken, hash=presented)
    if held is None or member is None or held.revoked_at is not None or held.expires_at <= now_ms:
        return None
    if held.used_at is not None:
        end(connection, held.family, now_ms)
        return None
    connection.execute(update(_table).where(_table.c.id == held.id).values(used_at=now_ms))
    token = replace(successor, member_id=member.id, family=held.family)
    add(connection, token)
    return Renewal(member, token)


def end(connection: Connection, family: str, now_ms: int) -> None:
    """End a sign-in: none of its tokens is valid any more."""
    members = tables.members
    whose = select(_table.c.member_id).where(_table.c.family == family)
    # So that a renewal of the same sign-in is over, and what it has added is found.
    connection.execute(select(members.c.id).where(members.c.id.in_(whose)).with_for_update(key_share=True))
    mine = (_table.c.family == family, _table.c.revoked_at.is_(None))
    connection.execute(update(_table).where(*mine).values(revoked_at=now_ms))


def is_open(connection: Connection, family: str, member_id: str) -> bool:
    """Tell whether a sign-in of that member has not been ended."""
    mine = (_table.c.family == family, _table.c.member_id == member_id, _table.c.revoked_at.is_(None))
    return connection.execute(select(_table.c.id).where(*mine).limit(1)).first() is not None
