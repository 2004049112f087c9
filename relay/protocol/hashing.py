"""Canonical bytes and the incremental hash by which two holders of an environment know that they agree.

The hash of a set of objects is the sum modulo 2^128 of one BLAKE2b-128 per object, so that a change costs the objects
it touches and not the environment. Kinds are `flag` and `segment` for the content hash; `credential` (key = its id),
`limits` and `secrets` (key empty) for the credentials hash. Hashes travel as 32 lowercase hex digits.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import orjson

EMPTY_HASH = "0" * 32
"""The hash of no objects at all."""

_MODULUS = 1 << 128
_SEPARATOR = b"\x1f"


def canonical(obj: Any) -> bytes:
    """Return the bytes of a JSON value that are stored, sent and hashed: compact, keys sorted."""
    raw = orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    # What orjson returns keeps the room that it was written in: 4 KiB for an object of 500 bytes. These bytes stay in
    # memory for as long as a flag does, so they are copied to where they fit.
    return bytes(memoryview(raw))


def object_hash(kind: str, key: str, raw: bytes) -> int:
    """Return the 128-bit hash of one object given as canonical bytes."""
    digest = blake2b(_SEPARATOR.join((kind.encode(), key.encode(), raw)), digest_size=16)
    return int.from_bytes(digest.digest(), "big")


def shift_hash(before: str, *, removed: Iterable[int] = (), added: Iterable[int] = ()) -> str:
    """Return the hash of a set after objects (given by their `object_hash`) left and joined it."""
    return f"{(int(before, 16) - sum(removed) + sum(added)) % _MODULUS:032x}"


def content_hash(flags: Mapping[str, bytes], segments: Mapping[str, bytes]) -> str:
    """Return the hash over all flags and segments of an environment."""
    hashes = [object_hash("flag", key, raw) for key, raw in flags.items()]
    hashes += [object_hash("segment", key, raw) for key, raw in segments.items()]
    return shift_hash(EMPTY_HASH, added=hashes)


def credentials_hash(credentials: Mapping[str, bytes], limits: bytes | None, secrets: bytes | None) -> str:
    """Return the hash over all credentials of an environment, its limits and its secrets."""
    hashes = [object_hash("credential", key, raw) for key, raw in credentials.items()]
    if limits is not None:
        hashes.append(object_hash("limits", "", limits))
    if secrets is not None:
        hashes.append(object_hash("secrets", "", secrets))
    return shift_hash(EMPTY_HASH, added=hashes)


def diff_objects(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return what must be upserted and what removed to turn `before` into `after`."""
    upsert = {key: raw for key, raw in after.items() if before.get(key) != raw}
    return upsert, tuple(key for key in before if key not in after)
