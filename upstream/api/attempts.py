"""Under which key a write is carried out, and its answer as it is kept: encrypted, with a key made from that key.

Only a hash of an Idempotency-Key is stored, so whoever has the database alone cannot read an answer, which may hold the
text of a new API key, nor guess at a request, which may hold a password. Knows nothing of routes and transactions.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256, sha512
from typing import Final

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from fastapi import Response

from relay.errors import Problem
from upstream.api.kept_outcome import decoded, encoded
from upstream.authority import Once, Outcome
from upstream.storage.idempotency import Claim, Kept

MAX_CHARACTERS: Final = 255
REPLAYED: Final = "Idempotent-Replayed"
_RETRY_AFTER_S: Final = 1
_KEPT_HEADERS: Final = frozenset({b"content-type", b"etag", b"location"})


@dataclass(slots=True)
class Attempt:
    """A request with a key, while it is under way.

    `claim` is set when its write was carried out under the key; `outcome` where that was an earlier request whose
    answer was not kept, as the process died.
    """

    principal: str
    raw_key: str
    claim: Claim | None = None
    outcome: Outcome | None = None

    @property
    def key(self) -> str:
        """Return what is stored of the key."""
        return sha256(f"{self.principal}\n{self.raw_key}".encode()).hexdigest()

    def digest(self, request: bytes) -> str:
        """Return what is stored of a request; keyed, as passwords may be in it, and a plain hash is soon guessed."""
        # Said what for, since HMAC hashes long keys, and the hash of principal and key alone is stored.
        secret = f"halyard kept request 1\n{self.principal}\n{self.raw_key}".encode()
        return hmac.new(secret, request, sha256).hexdigest()

    def once(self, request_hash: str) -> Once:
        """Return how the authority keeps what it did."""
        if self.claim is not None:
            raise RuntimeError("a request carries out one command, or one batch: what it did is kept with that")
        claim = Claim(self.principal, self.key, request_hash)

        def keeping(outcome: Outcome) -> bytes:
            self.claim = claim
            return self._sealed(encoded(outcome))

        return Once(claim, keeping)

    def resume(self, found: Kept) -> None:
        """Go on where an earlier request ended before it was answered."""
        self.claim = Claim(self.principal, self.key, found.request_hash)
        self.outcome = decoded(self._opened(found.response))

    def sealed(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Return an answer as it is stored: the headers that matter, and the body."""
        shown = {name.decode(): value.decode("latin-1") for name, value in headers if name.lower() in _KEPT_HEADERS}
        return self._sealed(orjson.dumps(shown) + b"\n" + body)

    def opened(self, kept: Kept) -> Response:
        """Return the answer that was kept."""
        headers, _, body = self._opened(kept.response).partition(b"\n")
        return Response(body, kept.status, {**orjson.loads(headers), REPLAYED: "true"})

    @property
    def _cipher(self) -> AESSIV:
        return AESSIV(sha512(f"halyard kept answer 1\n{self.principal}\n{self.raw_key}".encode()).digest())

    def _sealed(self, plain: bytes) -> bytes:
        return self._cipher.encrypt(plain, [self.key.encode()])

    def _opened(self, sealed: bytes) -> bytes:
        return self._cipher.decrypt(sealed, [self.key.encode()])


def checked_key(raw: bytes) -> str:
    """Return the key that a request brings.

    Raises:
        Problem: 400 when it cannot be one.
    """
    key = raw.decode("latin-1")
    if not key or len(key) > MAX_CHARACTERS or not key.isascii() or not key.isprintable():
        detail = f"Idempotency-Key takes 1 to {MAX_CHARACTERS} printable ASCII characters, best a random UUID."
        raise Problem(400, "invalid_idempotency_key", detail)
    return key


def in_use() -> Problem:
    """Return how a repetition is refused while the first request is under way."""
    detail = "The first request with this Idempotency-Key is still being carried out; send it again in a moment."
    return Problem(409, "idempotency_key_in_use", detail, headers={"Retry-After": str(_RETRY_AFTER_S)})


class Running:
    """The keys whose first request is under way in this process; as many as there are requests."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, str]] = set()

    def take(self, attempt: Attempt) -> None:
        """Note a request.

        Raises:
            Problem: 409 while another one with its key is under way.
        """
        name = attempt.principal, attempt.raw_key
        if name in self._keys:
            raise in_use()
        self._keys.add(name)

    def let_go(self, attempt: Attempt) -> None:
        """Note that the request is answered."""
        self._keys.discard((attempt.principal, attempt.raw_key))
