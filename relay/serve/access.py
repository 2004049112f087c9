"""Who is asking, and what they may see: the one authenticator of the relay and of the upstream's evaluation plane.

A raw key is refused by its shape before anything is looked up, then found by fingerprint, compared in constant time,
and checked for expiry, kind, scope and origin. Everything it needs is in the store, so no request waits for anybody.
Why a key was refused is logged and counted, at a bounded rate, with its hint and never with the key.
"""

import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cachetools import TTLCache

from relay.clock import Clock
from relay.errors import Problem
from relay.metrics import RelayMetrics
from relay.protocol.keys import Kind, fingerprint, hint, kind_of
from relay.serve.guard import Scope, header
from relay.serve.problems import unavailable
from relay.serve.query import parameter
from relay.sync.store import Configuration, Credential, Store

logger = logging.getLogger(__name__)

ANY_KIND: Final = frozenset(Kind)
READ: Final = "flags:read"
OF_MANY: Final = frozenset({Kind.RELAY, Kind.TOKEN})
"""Kinds of keys that may open more than one environment."""

# A refused key is logged once a minute, and all of them together not faster than this.
_LOG_SAME_S: Final = 60.0
_LOG_LINES_PER_S: Final = 10
_LOG_REMEMBERED: Final = 1_000
_CHOICES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request asks of its key beside being valid. A stream asks it again whenever its key has changed."""

    kinds: frozenset[Kind] = ANY_KIND
    needs: str = READ
    origin: str | None = None

    def breach(self, credential: Credential) -> str | None:
        """Return which of the terms a key does not meet: `kind`, `scope` or `origin`; None if it meets all."""
        if credential.kind not in self.kinds:
            return "kind"
        if self.needs not in credential.scopes and not (self.needs == READ and "flags:write" in credential.scopes):
            return "scope"
        # Only a public key is bound to its pages; what other keys are answered is merely not shared with a page.
        if (
            credential.kind == Kind.CLIENT
            and self.origin is not None
            and not _is_listed(self.origin, credential.origins)
        ):
            return "origin"
        return None


@dataclass(frozen=True, slots=True)
class Grant:
    """A valid credential and the environments that it opens here and now; at least one."""

    fingerprint: str
    credential: Credential
    configurations: tuple[Configuration, ...]
    terms: Terms = Terms()

    def kept(self, terms: Terms) -> "Grant":
        """Return what a stream keeps: without configurations, which would stay in memory for as long as it lives."""
        return replace(self, configurations=(), terms=terms)

    @property
    def client_side_only(self) -> bool:
        """Whether the key is public and sees client-side flags only."""
        return self.credential.kind == Kind.CLIENT


class Access:
    """Turns requests into grants."""

    def __init__(self, store: Store, clock: Clock, metrics: RelayMetrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._logged: TTLCache[tuple[str, str], None] = TTLCache(_LOG_REMEMBERED, _LOG_SAME_S, clock.monotonic)
        self._log_second = 0
        self._log_lines = 0
        self._origins: tuple[tuple[object, ...], frozenset[str]] = ((), frozenset())

    def authenticate(
        self, scope: Scope, *, kinds: frozenset[Kind] = ANY_KIND, needs: str = READ, key_in_query: bool = False
    ) -> Grant:
        """Return what the request's credential opens.

        Args:
            scope: the ASGI scope; takes note of the origin that the answer may be shared with.
            kinds: kinds of keys that the route takes.
            needs: scope that the key must have.
            key_in_query: whether a client key may stand in `?key=`, where `EventSource` cannot send headers.

        Raises:
            Problem: 401, 403, or 503 while a configuration that may know the key is lacking.
        """
        raw = self._raw_key(scope, key_in_query=key_in_query)
        return self._granted(scope, raw, fingerprint(raw), Terms(kinds, needs, _origin_of(scope)))

    def renew(self, scope: Scope, grant: Grant) -> Grant:
        """Return what the key of a request opens by now, on the same terms.

        Whoever waited for anything since the grant was made must ask this before using it: configurations and keys may
        have changed, and what is told of a configuration that is not the newest is not told of the next one either.

        Raises:
            Problem: as `authenticate`.
        """
        return self._granted(scope, presented_key(scope), grant.fingerprint, grant.terms)

    def choose(
        self, scope: Scope, grant: Grant, environment: str | None, project: str | None
    ) -> tuple[Grant, Configuration]:
        """Return the renewed grant, and from it the one environment that a request is about; see `renew`, `select`.

        Raises:
            Problem: as `renew` and `select`; 503 while the environment that is meant may be one that is lacking.
        """
        renewed = self.renew(scope, grant)
        is_named = environment is not None and bool(matching(renewed, environment, project))
        if renewed.credential.kind in OF_MANY and not is_named:
            self.expect_complete()
        return renewed, select(renewed, environment, project)

    def expect_complete(self) -> None:
        """Do nothing, unless an environment is lacking: then what is not found may be there, and nobody can say.

        Raises:
            Problem: 503.
        """
        if not self._store.is_complete:
            raise unavailable("no_configuration", "This service lacks configuration still; try again.", 1)

    def lookup(self, key_fingerprint: str) -> Grant | None:
        """Return what a key opens, None if it is unknown, revoked or expired. Streams ask this again as time passes."""
        now_ms = self._clock.wall_ms()
        valid = [
            (configuration, credential)
            for configuration, credential in self._store.credential(key_fingerprint)
            if hmac.compare_digest(credential.fingerprint, key_fingerprint)
            and (credential.expires_at_ms is None or now_ms < credential.expires_at_ms)
        ]
        if not valid:
            return None
        return Grant(key_fingerprint, valid[0][1], tuple(configuration for configuration, _ in valid))

    def allows_preflight(self, origin: str) -> bool:
        """Tell whether any client key lists this origin: a preflight carries no key, so no more can be asked."""
        configurations = self._store.configurations.values()
        version = tuple((c.state.ref.id, c.state.credentials_hash) for c in configurations)
        if self._origins[0] != version:
            listed = {
                origin
                for configuration in configurations
                for credential in configuration.credentials.values()
                if credential.kind == Kind.CLIENT
                for origin in credential.origins
            }
            self._origins = (version, frozenset(listed))
        return _is_listed(origin, self._origins[1])

    def check(self, scope: Scope, grant: Grant, terms: Terms, raw: str | None = None) -> Grant:
        """Return the grant on these terms, and decide for `relay.serve.cors` which origin may read the answer.

        Raises:
            Problem: 403, the key does not meet the terms.
        """
        credential, breach = grant.credential, terms.breach(grant.credential)
        if breach is not None:
            wanted = " or ".join(sorted(terms.kinds))
            detail = {
                "kind": f"This route takes a {wanted} key, not a {credential.kind} key.",
                "scope": f"The key lacks the scope {terms.needs}.",
                "origin": "The key does not list this origin.",
            }[breach]
            raise self._refused(scope, raw, breach, 403, detail)
        if terms.origin is not None:
            scope["state"]["shared_with"] = terms.origin if _is_listed(terms.origin, credential.origins) else None
        return replace(grant, terms=terms)

    def _granted(self, scope: Scope, raw: str | None, key_fingerprint: str, terms: Terms) -> Grant:
        grant = self.lookup(key_fingerprint)
        if grant is None:
            # What is lacking may know the key, and a client that is told it does not would give up for good.
            self.expect_complete()
            raise self._refused(scope, raw, "unknown", 401, "The key is not known, or was revoked or has expired.")
        return self.check(scope, grant, terms, raw)

    def _raw_key(self, scope: Scope, *, key_in_query: bool) -> str:
        raw = presented_key(scope)
        if raw is None:
            in_query = parameter(scope, "key")
            if in_query is None or not key_in_query:
                raise self._refused(
                    scope, None, "missing", 401, "Send a key as 'Authorization: Bearer …' or 'X-API-Key: …'."
                )
            raw = in_query
            if kind_of(raw) not in {None, Kind.CLIENT}:
                raise self._refused(
                    scope, raw, "in_url", 401, "Only client keys may stand in a URL; send this one in a header."
                )
        if kind_of(raw) is None:
            raise self._refused(
                scope,
                raw,
                "malformed",
                401,
                "This is no key of Halyard, or it was mistyped or cut short.",
            )
        return raw

    def _refused(self, scope: Scope, raw: str | None, reason: str, status: int, detail: str) -> Problem:
        self._metrics.refused_keys.add(reason)
        shown = "none" if raw is None else hint(raw)
        if self._may_log(reason, shown):
            client = scope.get("client")
            logger.warning(
                "key refused: %s",
                detail,
                extra={"reason": reason, "key": shown, "path": scope["path"], "client": client[0] if client else None},
            )
        headers = {"WWW-Authenticate": 'Bearer realm="halyard"'} if status == 401 else None  # noqa: PLR2004
        return Problem(status, f"key_{reason}", detail, headers=headers)

    def _may_log(self, reason: str, shown: str) -> bool:
        if (reason, shown) in self._logged:
            return False
        second = int(self._clock.monotonic())
        if second != self._log_second:
            self._log_second, self._log_lines = second, 0
        self._log_lines += 1
        if self._log_lines > _LOG_LINES_PER_S:
            return False
        self._logged[reason, shown] = None
        return True


def terms_of(scope: Scope) -> Terms:
    """Return the terms of a request for reading that any kind of key may make."""
    return Terms(origin=_origin_of(scope))


def _origin_of(scope: Scope) -> str | None:
    given = header(scope, b"origin")
    return None if given is None else given.decode("latin-1")


def presented_key(scope: Scope) -> str | None:
    """Return the raw key that a request carries in its headers, unchecked."""
    authorization = header(scope, b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip().decode("latin-1")
    api_key = header(scope, b"x-api-key")
    return None if api_key is None else api_key.strip().decode("latin-1")


def _is_listed(origin: str, listed: frozenset[str] | Sequence[str]) -> bool:
    return "*" in listed or origin in listed


def matching(grant: Grant, environment: str | None, project: str | None) -> list[Configuration]:
    """Return the environments of a grant that bear these names; both may be ids or keys, None = any."""
    return [
        configuration
        for configuration in grant.configurations
        if (environment is None or environment in {configuration.state.ref.id, configuration.state.ref.key})
        and (project is None or project in {configuration.state.ref.project_id, configuration.state.ref.project_key})
    ]


def select(grant: Grant, environment: str | None, project: str | None) -> Configuration:
    """Return the one environment that a request is about; both names may be ids or keys.

    Raises:
        Problem: 422 naming the choices when more than one is meant, or none of them.
    """
    found = matching(grant, environment, project)
    if len(found) == 1:
        return found[0]
    named = "is required for this key" if environment is None else "is not one that this key opens"
    if len(found) > 1 and environment is not None:
        named = "exists in more than one project; name the project, too"
    choices = sorted(f"{c.state.ref.project_key}/{c.state.ref.key}" for c in found or grant.configurations)
    raise Problem(
        422,
        "environment_unclear",
        f"The environment {named}. Choices (project/environment): {', '.join(choices[:_CHOICES_SHOWN])}.",
        errors={"environment": [named]},
        extra={"choices": choices[:_CHOICES_SHOWN]},
    )
