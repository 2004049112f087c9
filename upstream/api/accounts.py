"""How people get and change what they sign in with: the first owner, invited members, forgotten and old passwords.

Every attempt is counted by address (or by person) before anything is looked up, and a one-time token that is unknown,
used or expired gets the same answer. Tokens are kept as hashes only, and passwords hashed outside the transaction.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection

from relay.errors import Problem
from relay.protocol.keys import fingerprint
from relay.serve.guard import Scope
from upstream.api.authenticator import SignInId, member_actor
from upstream.api.passwords import Passwords, check_password
from upstream.api.rate_limit import AttemptLimit
from upstream.authority import Outcome
from upstream.domain.access_commands import (
    ChangePassword,
    ChoosePassword,
    Found,
)
from upstream.domain.commands import (
    Command,
)
from upstream.domain.entities import Member
from upstream.domain.errors import Kind, Rejected
from upstream.domain.joining import TOKEN_UNUSABLE
from upstream.domain.permissions import Actor
from upstream.storage.database import Database
from upstream.storage.records import one
from upstream.storage.view import StoredView, has_members

logger = logging.getLogger(__name__)

Do: TypeAlias = Callable[[Command, Actor], Awaitable[Outcome]]
"""Carries out a command, or tries it (`upstream.api.doing`)."""


@dataclass(frozen=True, slots=True)
class SetupToken:
    """What proves that somebody may be the first owner; `discard` lets go of it when somebody is."""

    text: str
    discard: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOwner:
    """Who founds an organisation."""

    organisation: str
    email: str
    name: str
    password: str


class Accounts:
    """Makes the first owner, takes one-time tokens, changes passwords."""

    def __init__(
        self, *, database: Database, passwords: Passwords, attempts: AttemptLimit, setup: SetupToken | None
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._attempts = attempts
        self._setup = setup

    async def set_up(self, owner: NewOwner, raw: str, address: str, scope: Scope, do: Do) -> Member:
        """Make the first organisation and its owner.

        Raises:
            Problem: 401 for another token than the data directory's, 429 after too many attempts.
            Rejected: somebody is here already, or the fields cannot be used; nothing changed.
        """
        if await self._database.read(has_members):
            raise Problem(409, "already_set_up", "Somebody is here already. Sign in, or have an admin invite you.")
        self._attempts.count(("setup", address))
        if self._setup is None or not hmac.compare_digest(raw.encode(), self._setup.text.encode()):
            detail = "This is not the setup token; it is in the file `setup-token` in the upstream's data directory."
            raise Problem(401, "setup_token_wrong", detail)
        check_password("password", owner.password, owner.email)
        hashed = await self._passwords.hash(owner.password)
        command = Found(organisation=owner.organisation, email=owner.email, name=owner.name, password_hash=hashed)
        founder = Actor(
            type="system",
            id=None,
            name="setup",
            organisation_id="",
            request_id=scope["state"].get("request_id"),
            address=address,
        )
        member = _member(await do(command, founder))
        try:
            self._setup.discard()
        except OSError as error:
            # It opens nothing any more, and the next start tries again.
            logger.warning("the setup token's file cannot be removed", extra={"reason": str(error)})
        return member

    async def accept(self, raw: str, password: str, name: str | None, *, address: str, scope: Scope, do: Do) -> Member:
        """Use an invitation or a reset.

        Raises:
            Problem: 401 for a token that is unknown, used or expired, 429 after too many attempts.
            Rejected: the password or name cannot be used; nothing changed.
        """
        key = ("one-time token", address)
        self._attempts.count(key)
        digest = fingerprint(raw)
        member = await self._database.read(lambda connection: _holder(connection, digest))
        if member is None:
            raise _unusable()
        check_password("password", password, member.email)
        hashed = await self._passwords.hash(password)
        command = ChoosePassword(token_hash=digest, password_hash=hashed, name=name)
        try:
            outcome = await do(command, member_actor(member, scope))
        except Rejected as rejected:
            raise (_unusable() if rejected.code == TOKEN_UNUSABLE else rejected) from None
        self._attempts.forget(key)
        return _member(outcome)

    async def change_password(
        self, member: Member, sign_in: SignInId, current: str, new: str, *, actor: Actor, do: Do
    ) -> None:
        """Replace a person's own password, and end their other sign-ins.

        Raises:
            Problem: 429 after too many attempts.
            Rejected: the current password is wrong, or the new one cannot be used; nothing changed.
        """
        key = ("password", member.id)
        self._attempts.count(key)
        if member.password_hash is None or not await self._passwords.verify(member.password_hash, current):
            sentence = "This is not your password."
            raise Rejected(Kind.INVALID, sentence, {"current": [sentence]}, code="wrong_password")
        check_password("new", new, member.email)
        hashed = await self._passwords.hash(new)
        await do(ChangePassword(verified=member.password_hash, password_hash=hashed, sign_in=sign_in), actor)
        self._attempts.forget(key)


def _holder(connection: Connection, digest: str) -> Member | None:
    token = StoredView(connection).one_time_token(digest)
    return None if token is None else one(connection, Member, id=token.member_id)


def _unusable() -> Problem:
    detail = "This invitation or reset was used before, has expired, or never was; ask for a new one."
    return Problem(401, TOKEN_UNUSABLE, detail)


def _member(outcome: Outcome) -> Member:
    assert isinstance(outcome.entity, Member)  # noqa: S101 - what these commands are about
    return outcome.entity
