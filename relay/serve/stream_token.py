"""The token in the URL of an OFREP event stream: which environment, which key, which context.

It keeps the relay stateless: any relay of the environment, and the same one after a restart, can read what another
made, because the secret comes in the stream. AES-SIV is deterministic, so within an hour the same client gets the
same URL and its ETag holds. Grants nothing by itself: the key it names is looked up again whenever it is used.
"""

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import orjson

from relay.protocol.resume import short_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

MAX_CONTEXT_BYTES: Final = 2_048
"""A context that is longer when deflated is left out, and its stream is not filtered by it."""

# Deflating takes ten times as long as sealing and saves a usual context some 30 characters.
_DEFLATED_FROM_BYTES: Final = 256
_MAX_INFLATED_BYTES: Final = 1 << 20
_SHORT_ID_CHARACTERS: Final = 12
_FINGERPRINT_BYTES: Final = 32
_HEAD: Final = Struct(f">I{_FINGERPRINT_BYTES}s")
_KEY_BYTES: Final = 64
_PURPOSE: Final = b"halyard-ofrep"


class BadToken(ValueError):
    """The token was not made with this secret, was changed, or is no token at all."""


@dataclass(frozen=True, slots=True)
class StreamToken:
    """What a token says. `context` is None when it was too large. `slot` is the hour (or other period) of issue."""

    fingerprint: str
    slot: int
    context: dict[str, Any] | None


def issue(token: StreamToken, environment_id: str, secret: str) -> str:
    """Return the text of a token: the short environment id, which tells whose secret opens it, then the ciphertext."""
    short = short_id(environment_id)
    packed = b""
    if token.context is not None:
        packed = orjson.dumps(token.context, option=orjson.OPT_SORT_KEYS)
        if len(packed) > _DEFLATED_FROM_BYTES:
            packed = zlib.compress(packed, 6)
        if len(packed) > MAX_CONTEXT_BYTES:
            packed = b""
    plain = _HEAD.pack(token.slot, bytes.fromhex(token.fingerprint)) + packed
    sealed = _cipher(secret).encrypt(plain, [short.encode()])
    return short + urlsafe_b64encode(sealed).rstrip(b"=").decode()


def short_id_of(text: str) -> str:
    """Return the short id of the environment that a token claims to be for."""
    return text[:_SHORT_ID_CHARACTERS]


def read(text: str, secret: str) -> StreamToken:
    """Open a token.

    Raises:
        BadToken: it cannot be opened with this secret.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see `_cipher`

    short = short_id_of(text)
    try:
        sealed = urlsafe_b64decode(text[_SHORT_ID_CHARACTERS:] + "=" * (-(len(text) - _SHORT_ID_CHARACTERS) % 4))
        plain = _cipher(secret).decrypt(sealed, [short.encode()])
    except (ValueError, InvalidTag):
        raise BadToken("the token cannot be opened") from None
    slot, raw_fingerprint = _HEAD.unpack_from(plain)
    packed = plain[_HEAD.size :]
    context = orjson.loads(packed if packed.startswith(b"{") else _inflate(packed)) if packed else None
    return StreamToken(raw_fingerprint.hex(), slot, context)


def _inflate(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, _MAX_INFLATED_BYTES)


@lru_cache(maxsize=256)
def _cipher(secret: str) -> "AESSIV":
    # Loaded with the first token: the library takes 7 MB, which a relay without OFREP streams need not have.
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415

    # One secret serves several purposes; each gets a key of its own from it.
    return AESSIV(blake2b(secret.encode(), digest_size=_KEY_BYTES, person=_PURPOSE).digest())
