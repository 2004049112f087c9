"""What an installation needs before anybody can use it: an organisation with an owner, and a key for its relay.

The owner is made by `halyard up --no-demo` and `halyard upstream init`, or makes themselves at `POST /auth/setup`, with
a token that only who can read the data directory has. The relay's key is kept in a file because the authority only has
its hash, and the owner's password is shown once because nobody has it but the owner.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from relay.protocol.keys import Kind, fingerprint
from upstream.api.accounts import SetupToken
from upstream.api.passwords import Passwords
from upstream.authority import Authority
from upstream.data_dir import write_private
from upstream.domain.access_commands import (
    CreateKey,
    Found,
)
from upstream.domain.entities import Credential
from upstream.domain.permissions import system_actor
from upstream.storage import tables
from upstream.storage.database import Database
from upstream.storage.records import find
from upstream.storage.view import has_members

logger = logging.getLogger(__name__)

SETUP_TOKEN_FILE = "setup-token"  # noqa: S105 - the name of a file
RELAY_KEY_FILE = "relay.key"
EMAIL = "owner@halyard.example"


@dataclass(frozen=True, slots=True)
class Owner:
    """How the first person signs in."""

    email: str
    password: str


async def first_start(
    database: Database,
    authority: Authority,
    passwords: Passwords,
    announce: Callable[[Owner], None] = lambda _: None,
) -> Owner | None:
    """Make an organisation with an owner where nobody is; return the owner when it was made just now.

    Nobody could ever sign in if the password were lost between the database and whoever is to read it. So `announce`
    is told before the owner is made; should that then fail, the next start announces another one.
    """
    if await database.read(has_members):
        return None
    owner = Owner(EMAIL, secrets.token_urlsafe(12))
    hashed = await passwords.hash(owner.password)
    announce(owner)
    founding = Found(organisation="Halyard", email=EMAIL, name="Owner", password_hash=hashed)
    await authority.execute(founding, system_actor())
    return owner


async def setup_token(data_dir: Path, database: Database) -> SetupToken | None:
    """Return what lets the first owner in, kept in a file over restarts; None, and no file, once somebody is there."""
    file = data_dir / SETUP_TOKEN_FILE

    def discard() -> None:
        file.unlink(missing_ok=True)

    if await database.read(has_members):
        discard()
        return None
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    logger.warning(
        "nobody can sign in yet: POST /api/v2/auth/setup takes the token in this file, and so makes the first owner",
        extra={"file": str(file)},
    )
    return SetupToken(file.read_text().strip(), discard)


async def relay_key(data_dir: Path, database: Database, authority: Authority, *, replace: bool) -> None:
    """Keep a relay key in the data directory.

    Args:
        data_dir: where its file is.
        database: of the authority.
        authority: makes the key.
        replace: whether one that was revoked, or whose file is gone, is replaced; else one is made only if there has
            never been any, as whoever revoked it will have meant it.
    """
    file = data_dir / RELAY_KEY_FILE
    known = file.read_text().strip() if file.exists() else ""
    is_wanted = _lacks(known) if replace else _never_had_one
    organisation_id = await database.read(_organisation_id)
    if organisation_id is not None and await database.read(is_wanted):
        made = await authority.execute(CreateKey(kind=Kind.RELAY, name="halyard up"), system_actor(organisation_id))
        write_private(file, made.secret or "")


def _lacks(raw: str) -> Callable[[Connection], bool]:
    return lambda connection: not is_alive(connection, raw)


def _never_had_one(connection: Connection) -> bool:
    return find(connection, Credential, tables.credentials.c.kind == Kind.RELAY) is None


def is_alive(connection: Connection, raw: str) -> bool:
    """Tell whether the authority knows the credential and has not revoked it."""
    credential = find(connection, Credential, tables.credentials.c.hash == fingerprint(raw))
    return credential is not None and credential.revoked_at is None


def _organisation_id(connection: Connection) -> str | None:
    table = tables.organisations
    found: str | None = connection.execute(select(table.c.id).order_by(table.c.created_at).limit(1)).scalar()
    return found
