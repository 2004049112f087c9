"""The one authenticator of the management API: API tokens and people's access tokens.

A credential is refused by its shape before anything is looked up. What a member or token may do is read with every
request, so that a revocation, a demotion or a sign-out holds at once. Environment keys are turned away with the reason:
they are in the hands of applications. Why a credential was refused is logged at a bounded rate, with its hint, never
with the credential.
"""

import hmac
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from cachetools import LRUCache
from sqlalchemy import Connection

from relay.clock import Clock
from relay.errors import Problem
from relay.protocol.keys import Kind, fingerprint, hint, kind_of
from relay.serve.guard import Scope, header
from upstream.api import sign_in_store
from upstream.api.access_tokens import AccessTokens, BadToken, Claims
from upstream.api.refusals import RefusalLog
from upstream.domain.entities import Credential, Member
from upstream.domain.permissions import Actor
from upstream.storage.database import Database, Unavailable
from upstream.storage.view import StoredView

_USE_NOTED_EVERY_S: Final = 60.0
_USES_REMEMBERED: Final = 10_000
_CHALLENGE: Final[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="halyard"'}
_SHOWN_CHARACTERS: Final = 4

# What speaks this API on behalf of people says so in the header Halyard-Client.
_SAID_DOORS: Final = ("dashboard", "mcp", "cli")

SignInId: TypeAlias = str


class Authenticator:
    """Turns requests into actors."""

    def __init__(self, database: Database, clock: Clock, access_tokens: AccessTokens, refusals: RefusalLog) -> None:
        self._database = database
        self._clock = clock
        self._access_tokens = access_tokens
        self._refusals = refusals
        self._uses: LRUCache[str, float] = LRUCache(_USES_REMEMBERED)

    async def authenticate(self, scope: Scope) -> Actor:
        """Return whoever sent the request.

        Raises:
            Problem: 401 without a valid credential, 403 for one that does not open the management API.
        """
        raw = self._raw_credential(scope)
        if raw.startswith("hal_"):
            return await self._token(scope, raw)
        member, _ = await self.member(scope, raw)
        return member_actor(member, scope)

    async def member(self, scope: Scope, raw: str | None = None) -> tuple[Member, SignInId]:
        """Return the person whose access token the request carries, and their sign-in.

        Raises:
            Problem: 401 without a valid credential, 403 for one that is no person's.
        """
        raw = self._raw_credential(scope) if raw is None else raw
        if raw.startswith("hal_"):
            await self._token(scope, raw)
            detail = "This is about a person and their sign-in, which an API token does not have; sign in."
            raise self._refused(scope, raw, "not_a_person", detail, status=403)
        try:
            claims = self._access_tokens.read(raw)
        except BadToken as bad:
            raise self._refused(scope, raw, bad.reason, _JWT_DETAILS[bad.reason]) from None
        found = await self._database.read(lambda connection: _signed_in(connection, claims))
        if found is None:
            raise self._refused(scope, raw, "ended", "This sign-in has ended; sign in again.")
        return found, claims.sign_in

    def note_refusal(self, scope: Scope, actor: Actor, reason: str) -> None:
        """Log that somebody known was not permitted something."""
        self._refusals.note("permission", f"{actor.type} {actor.id}", reason, scope)

    async def _token(self, scope: Scope, raw: str) -> Actor:
        kind = kind_of(raw)
        if kind is None:
            raise self._refused(scope, raw, "malformed", "This is no key, or it was mistyped or cut.")
        if kind is not Kind.TOKEN:
            detail = f"A {kind} key opens no management route. Use an API token (hal_token_…) or sign in."
            raise self._refused(scope, raw, "kind", detail, status=403)
        digest = fingerprint(raw)
        found = await self._database.read(lambda connection: sign_in_store.credential_by_hash(connection, digest))
        if found is None or not hmac.compare_digest(found.hash, digest):
            raise self._refused(scope, raw, "unknown", "This API token is not known here.")
        if found.revoked_at is not None:
            raise self._refused(scope, raw, "revoked", "This API token has been revoked.")
        if not found.is_alive(self._clock.wall_ms()):
            raise self._refused(scope, raw, "expired", "This API token has expired.")
        await self._note_use(found)
        return Actor(
            type="token",
            id=found.id,
            name=found.name,
            organisation_id=found.organisation_id,
            scopes=frozenset(found.scopes),
            projects=None if found.projects is None else frozenset(found.projects),
            expires_at=found.expires_at,
            **_circumstances(scope),
        )

    async def _note_use(self, credential: Credential) -> None:
        """Store when a token was last used; at most once a minute, and the request goes on if that cannot be stored."""
        now = self._clock.monotonic()
        if now - self._uses.get(credential.id, -_USE_NOTED_EVERY_S) < _USE_NOTED_EVERY_S:
            return
        self._uses[credential.id] = now
        now_ms = self._clock.wall_ms()
        try:
            await self._database.write(lambda connection: sign_in_store.note_use(connection, credential.id, now_ms))
        except Unavailable as unavailable:
            self._refusals.note_failure("the use of a token was not stored", unavailable)

    def _raw_credential(self, scope: Scope) -> str:
        authorization, api_key = header(scope, b"authorization"), header(scope, b"x-api-key")
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            raw = authorization[7:].strip().decode("latin-1")
        elif api_key is not None:
            raw = api_key.strip().decode("latin-1")
        else:
            detail = "Send an API token or access token as 'Authorization: Bearer …' or 'X-API-Key: …'."
            raise self._refused(scope, None, "missing", detail)
        return raw

    def _refused(self, scope: Scope, raw: str | None, reason: str, detail: str, *, status: int = 401) -> Problem:
        self._refusals.note(reason, _shown(raw), detail, scope)
        return Problem(status, f"key_{reason}", detail, headers=_CHALLENGE if status == 401 else None)  # noqa: PLR2004


_JWT_DETAILS: Final[Mapping[str, str]] = {
    "malformed": "This is neither an API token (hal_token_…) nor an access token.",
    "signature": "This access token was not issued here, or the signing key has changed; sign in again.",
    "expired": "This access token has expired; refresh it or sign in again.",
}


def _shown(raw: str | None) -> str:
    if raw is None:
        return "none"
    if raw.startswith("hal_"):
        return hint(raw)
    return f"access token …{raw[-_SHOWN_CHARACTERS:]}" if raw.count(".") == 2 else "not a Halyard key"  # noqa: PLR2004


def _signed_in(connection: Connection, claims: Claims) -> Member | None:
    member = StoredView(connection).member(claims.organisation_id, claims.member_id)
    if member is None or not sign_in_store.is_open(connection, claims.sign_in, member.id):
        return None
    return member


def member_actor(member: Member, scope: Scope) -> Actor:
    """Return a person as the one who asks."""
    return Actor(
        type="member",
        id=member.id,
        name=member.name or member.email,
        organisation_id=member.organisation_id,
        role=member.role,
        projects=None if member.projects is None else frozenset(member.projects),
        **_circumstances(scope),
    )


def _circumstances(scope: Scope) -> dict[str, Any]:
    """Return what the audit keeps of the request itself."""
    return {"request_id": scope["state"].get("request_id"), "address": client_address(scope), "via": _door(scope)}


def client_address(scope: Scope) -> str | None:
    """Return the network address that a request came from; a trusted proxy's word for it is in the scope already."""
    client = scope.get("client")
    return client[0] if client else None


def _door(scope: Scope) -> str:
    """Return the door that the client says it is; it is a hint for readers of the audit, and opens nothing."""
    said = header(scope, b"halyard-client")
    return next((door for door in _SAID_DOORS if said == door.encode()), "api")
