"""Validators of evaluated answers, computed from what an answer depends on and not from the answer.

They are weak, for an answer has the same one gzipped and not. What a whole slice of time has in common is hashed once
by who keeps it (`etag_base`); the rest is a context.
"""

from hashlib import blake2b
from typing import Any

import orjson

from relay.sync.store import Configuration

EtagBase = blake2b
_DIGEST_BYTES = 16


def etag_base(
    route: str, configuration: Configuration, next_change_ms: int | None, *, client_side_only: bool, streams_at: str
) -> EtagBase:
    """Return the hash of what all answers of one route have in common until a revision or time changes a value.

    Args:
        route: which answer it is.
        configuration: what is served.
        next_change_ms: the moment at which time alone will next change a value; stands for the slice of time.
        client_side_only: whose answers they are.
        streams_at: what stands before the token in the URL of an event stream; empty without one.
    """
    state = configuration.state
    secret = configuration.stream_secret if streams_at else None
    parts = [route, state.ref.id, state.ref.key, state.epoch, state.revision, configuration.overlay_version,
             next_change_ms, client_side_only, streams_at, secret]  # fmt: skip
    return blake2b(orjson.dumps(parts), digest_size=_DIGEST_BYTES)


def etag_of(base: EtagBase, *rest: Any) -> str:
    """Return the ETag of one answer; `rest` is whatever else it depends on, as JSON."""
    hashed = base.copy()
    hashed.update(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS))
    return f'W/"{hashed.hexdigest()}"'


def is_named(etag: str, if_none_match: bytes | None) -> bool:
    """Tell whether `If-None-Match` names this ETag: in a list, weakly or strongly, or as `*`."""
    if if_none_match is None:
        return False
    listed = [name.strip().removeprefix("W/").strip('"') for name in if_none_match.decode("latin-1").split(",")]
    return "*" in listed or etag.removeprefix("W/").strip('"') in listed
