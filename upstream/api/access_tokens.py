"""Access tokens of people: JWT, HS256, one hour by default.

A token says who signed in (`sub`), for which organisation (`org`) and in which sign-in (`sid`), nothing about roles:
these are read afresh with every request, so that a demotion or a sign-out holds at once.
"""

from dataclasses import dataclass
from typing import Final

import jwt
from jwt.types import Options

from relay.clock import Clock

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "halyard"
# The library would ask the machine's clock for the times; ours is asked below.
_OPTIONS: Final[Options] = {
    "require": ["iss", "sub", "org", "sid", "iat", "exp"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}
MIN_KEY_CHARACTERS: Final = 32


class BadToken(Exception):
    """The text is no valid access token; `reason` is one word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a valid token proves."""

    member_id: str
    organisation_id: str
    sign_in: str


class AccessTokens:
    """Issues and reads access tokens."""

    def __init__(self, signing_key: str, clock: Clock, lifetime_s: int) -> None:
        if len(signing_key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"the signing key needs {MIN_KEY_CHARACTERS} characters")
        self._key = signing_key
        self._clock = clock
        self.lifetime_s = lifetime_s

    def issue(self, claims: Claims) -> str:
        """Return a token that is valid from now for `lifetime_s` seconds."""
        now_s = self._clock.wall_ms() // 1000
        payload = {
            "iss": _ISSUER,
            "sub": claims.member_id,
            "org": claims.organisation_id,
            "sid": claims.sign_in,
            "iat": now_s,
            "exp": now_s + self.lifetime_s,
        }
        return jwt.encode(payload, self._key, algorithm=_ALGORITHM)

    def read(self, raw: str) -> Claims:
        """Return what a token proves.

        Raises:
            BadToken: it is malformed, not signed by us, or has expired.
        """
        try:
            payload = jwt.decode(raw, self._key, algorithms=[_ALGORITHM], issuer=_ISSUER, options=_OPTIONS)
        except jwt.InvalidSignatureError:
            raise BadToken("signature") from None
        except jwt.InvalidTokenError:
            raise BadToken("malformed") from None
        texts = [payload["sub"], payload["org"], payload["sid"]]
        expires_s = payload["exp"]
        if not all(isinstance(text, str) for text in texts) or not isinstance(expires_s, int):
            raise BadToken("malformed")
        if self._clock.wall_ms() >= expires_s * 1000:
            raise BadToken("expired")
        return Claims(member_id=texts[0], organisation_id=texts[1], sign_in=texts[2])
