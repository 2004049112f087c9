"""Raw credentials: how they are made, told apart, fingerprinted and shown.

A raw key is `hal_{kind}_`, 32 base62 characters and the CRC-32 of all that in 6 more, so that a mistyped or truncated
key is told from a revoked one without a lookup, and secret scanners can prove a find. Only fingerprints are stored or
sent; only hints are logged.
"""

import re
from enum import StrEnum
from hashlib import sha256
from zlib import crc32

ENTROPY_BYTES = 32
"""How many random bytes `mint` asks for."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 32
_CHECK_CHARACTERS = 6
_SHAPE = re.compile(r"hal_(server|client|relay|token)_[0-9A-Za-z]{38}", re.ASCII)


class Kind(StrEnum):
    """What a credential is for."""

    SERVER = "server"
    CLIENT = "client"
    RELAY = "relay"
    TOKEN = "token"  # noqa: S105 - the word, not a secret


def mint(kind: Kind, entropy: bytes) -> str:
    """Return a new raw key made of `ENTROPY_BYTES` random bytes.

    Raises:
        ValueError: too little entropy was given.
    """
    if len(entropy) < ENTROPY_BYTES:
        raise ValueError(f"a key needs {ENTROPY_BYTES} random bytes, got {len(entropy)}")
    body = f"hal_{Kind(kind)}_{_base62(int.from_bytes(entropy, 'big'), _RANDOM_CHARACTERS)}"
    return body + _check(body)


def kind_of(raw: str) -> Kind | None:
    """Return the kind of a well-formed raw key, None for anything else (a key of ours with a typing error included)."""
    shape = _SHAPE.fullmatch(raw)
    if shape is None or raw[-_CHECK_CHARACTERS:] != _check(raw[:-_CHECK_CHARACTERS]):
        return None
    return Kind(shape[1])


def fingerprint(raw: str) -> str:
    """Return what is stored and looked up instead of the raw key: its SHA-256 in hex."""
    return sha256(raw.encode("utf-8", "surrogateescape")).hexdigest()


def hint(raw: str) -> str:
    """Return what may be logged of a raw key: its prefix and its last four characters, nothing of what is no key."""
    shape = _SHAPE.fullmatch(raw)
    return "not a Halyard key" if shape is None else f"hal_{shape[1]}_…{raw[-4:]}"


def _check(body: str) -> str:
    return _base62(crc32(body.encode()), _CHECK_CHARACTERS)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
