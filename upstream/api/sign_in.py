"""Signing in, staying signed in, signing out.

A sign-in is a family of refresh tokens of which only the newest is valid. One that is presented a second time was
stolen, or its thief's was presented first: either way the whole family ends, and both have to sign in again.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import uuid4

from relay.clock import Clock
from relay.errors import Problem
from upstream.api import sign_in_store
from upstream.api.access_tokens import AccessTokens, Claims
from upstream.api.passwords import Passwords
from upstream.api.rate_limit import AttemptLimit
from upstream.domain.entities import Member, RefreshToken
from upstream.storage.database import Database
from upstream.storage.view import StoredView

_TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a person gets for their password, or for their last refresh token."""

    access_token: str
    refresh_token: str
    expires_in: int


class SignIn:
    """Opens, renews and ends sign-ins."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        passwords: Passwords,
        access_tokens: AccessTokens,
        attempts: AttemptLimit,
        refresh_lifetime_s: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._passwords = passwords
        self._access_tokens = access_tokens
        self._attempts = attempts
        self._refresh_lifetime_ms = refresh_lifetime_s * 1000

    async def open(self, email: str, password: str, address: str) -> Session:
        """Sign a person in.

        Args:
            email: who they say they are.
            password: what they know.
            address: where the request came from; attempts are limited by address and e-mail together.

        Raises:
            Problem: 401 when either is wrong, without saying which; 429 after too many attempts.
        """
        address_of = email.strip().lower()
        key = (address, address_of)
        self._attempts.count(key)
        member = await self._database.read(lambda connection: StoredView(connection).member_by_email(address_of))
        stored = member.password_hash if member is not None else None
        is_right = await self._passwords.verify(stored, password)
        session = await self._opened(member) if member is not None and is_right else None
        if session is None:
            raise Problem(401, "wrong_credentials", "The e-mail address or the password is wrong.")
        self._attempts.forget(key)
        return session

    async def _opened(self, member: Member) -> Session | None:
        """Return a new session; None when the password that was verified is not the member's any more."""
        raw, token = self._new_token(member.id, family=str(uuid4()))
        is_open = await self._database.write(lambda connection: sign_in_store.begin(connection, member, token))
        return self._session(member, raw, token) if is_open else None

    async def begin(self, member: Member) -> Session:
        """Sign a person in who has just chosen the password that `member` holds.

        Raises:
            Problem: 401 when it is not theirs any more.
        """
        session = await self._opened(member)
        if session is None:
            raise Problem(401, "wrong_credentials", "The password was changed meanwhile; sign in with the new one.")
        return session

    async def renew(self, refresh_token: str) -> Session:
        """Exchange a refresh token for a new session.

        Raises:
            Problem: 401 when the token is unknown, expired, ended, or was used before.
        """
        # Whose it is and of which sign-in is known only inside the transaction, which fills it in.
        raw, successor = self._new_token("", family="")
        presented, now_ms = _digest(refresh_token), self._clock.wall_ms()
        renewal = await self._database.write(lambda c: sign_in_store.renew(c, presented, successor, now_ms))
        # Refused outside the transaction: an error inside would take back that a stolen sign-in was ended.
        if renewal is None:
            detail = "This refresh token was used before, has expired, or its sign-in has ended; sign in again."
            raise Problem(401, "refresh_token_invalid", detail)
        return self._session(renewal.member, raw, renewal.token)

    async def close(self, family: str) -> None:
        """Sign out: end every token of the sign-in."""
        now_ms = self._clock.wall_ms()
        await self._database.write(lambda connection: sign_in_store.end(connection, family, now_ms))

    def _new_token(self, member_id: str, family: str) -> tuple[str, RefreshToken]:
        raw, now_ms = secrets.token_urlsafe(_TOKEN_BYTES), self._clock.wall_ms()
        return raw, RefreshToken(
            id=str(uuid4()),
            member_id=member_id,
            family=family,
            hash=_digest(raw),
            issued_at=now_ms,
            expires_at=now_ms + self._refresh_lifetime_ms,
        )

    def _session(self, member: Member, raw: str, token: RefreshToken) -> Session:
        claims = Claims(member_id=member.id, organisation_id=member.organisation_id, sign_in=token.family)
        return Session(
            access_token=self._access_tokens.issue(claims),
            refresh_token=raw,
            expires_in=self._access_tokens.lifetime_s,
        )


def _digest(raw: str) -> str:
    return sha256(raw.encode()).hexdigest()
