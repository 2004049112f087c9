"""What an installation needs before anybody can use it: an organisation with an owner, and a key for its relay.

Used by `halyard up --no-demo`. Made once; the relay's key is kept in a file because the authority only has its hash,
and the owner's password is shown once because nobody has it but the owner.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from relay.protocol.keys import Kind, fingerprint
from upstream.api.passwords import Passwords
from upstream.authority import Authority
from upstream.data_dir import write_private
from upstream.domain.commands import CreateKey, CreateMember, CreateOrganisation
from upstream.domain.entities import Credential, Organisation, Role
from upstream.domain.permissions import system_actor
from upstream.storage import tables
from upstream.storage.database import Database
from upstream.storage.records import find

RELAY_KEY_FILE = "relay.key"
EMAIL = "owner@halyard.example"


@dataclass(frozen=True, slots=True)
class Owner:
    """How the first person signs in."""

    email: str
    password: str


async def first_start(data_dir: Path, database: Database, authority: Authority, passwords: Passwords) -> Owner | None:
    """Make what is missing; return the owner when it was made just now."""
    organisation_id, owner = await database.read(_organisation_id), None
    if organisation_id is None:
        founded = (await authority.execute(CreateOrganisation(name="Halyard"), system_actor())).entity
        assert isinstance(founded, Organisation)  # noqa: S101 - what the command makes
        organisation_id, owner = founded.id, Owner(EMAIL, secrets.token_urlsafe(12))
        hashed = await passwords.hash(owner.password)
        member = CreateMember(email=EMAIL, name="Owner", role=Role.OWNER, password_hash=hashed)
        await authority.execute(member, system_actor(organisation_id))
    file = data_dir / RELAY_KEY_FILE
    known = file.read_text().strip() if file.exists() else ""
    if not await database.read(lambda connection: is_alive(connection, known)):
        made = await authority.execute(CreateKey(kind=Kind.RELAY, name="halyard up"), system_actor(organisation_id))
        write_private(file, made.secret or "")
    return owner


def is_alive(connection: Connection, raw: str) -> bool:
    """Tell whether the authority knows the credential and has not revoked it."""
    credential = find(connection, Credential, tables.credentials.c.hash == fingerprint(raw))
    return credential is not None and credential.revoked_at is None


def _organisation_id(connection: Connection) -> str | None:
    table = tables.organisations
    found: str | None = connection.execute(select(table.c.id).order_by(table.c.created_at).limit(1)).scalar()
    return found
