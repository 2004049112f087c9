"""Changes that were made at a relay, as they travel to the authority, and the proof of who made them.

A relay never keeps the operator's token. It keeps a keyed hash over the whole change, made with `edge_key`, which only
the token's holder and the authority can have; so neither the change nor its time can be altered on the way, and a relay
cannot make up changes of its own. The body is canonical JSON, the same bytes whenever it is sent again.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from relay.protocol.hashing import canonical

KILL_PATH = "/api/v2/projects/{p}/flags/{f}:kill"
CHANGES_PATH = "/api/v2/changes"
OP_KILL = "kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Switch a flag off in one environment. All three are ids (or keys, where a person wrote them)."""

    project: str
    environment: str
    flag: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeChange:
    """What was done at which relay, with which token (by its id), and when (RFC 3339).

    The time is the authority's, as far as the relay knows how far the clocks are apart.
    """

    idempotency_key: str
    ops: tuple[Kill, ...]
    relay: str
    at: str
    credential: str


def edge_key(raw_token: str) -> str:
    """Return the key of a token's proofs in hex; the authority has it, streams and relays never do."""
    return sha256(f"edge:{raw_token}".encode()).hexdigest()


def proof_of(key: str, change: EdgeChange) -> str:
    """Return the proof of a change in hex: HMAC-SHA256 over its canonical JSON without the proof."""
    return hmac.new(bytes.fromhex(key), canonical(members_of(change)), sha256).hexdigest()


def is_proven(key: str, change: EdgeChange, proof: str) -> bool:
    """Tell, in constant time, whether the holder of the token made this very change."""
    return hmac.compare_digest(proof_of(key, change).encode(), proof.encode())


def members_of(change: EdgeChange) -> dict[str, Any]:
    """Return the JSON members of a change; what is not given is left out."""
    return {
        "idempotency_key": change.idempotency_key,
        "ops": [_op(kill) for kill in change.ops],
        "origin": {"relay": change.relay, "at": change.at, "credential": change.credential},
    }


def encode(change: EdgeChange, proof: str) -> bytes:
    """Return the body of the request that hands a change over."""
    members = members_of(change)
    members["origin"]["proof"] = proof
    return canonical(members)


def _op(kill: Kill) -> Mapping[str, str]:
    op = {"op": OP_KILL, "project": kill.project, "environment": kill.environment, "flag": kill.flag}
    return op if kill.reason is None else {**op, "reason": kill.reason}
