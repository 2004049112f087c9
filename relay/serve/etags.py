"""Strong validators of evaluated answers, computed from what an answer depends on and not from the answer."""

from hashlib import blake2b
from typing import Any

import orjson

from relay.sync.store import Configuration


def etag_of(route: str, configuration: Configuration, next_change_ms: int | None, *rest: Any) -> str:
    """Return the ETag of an answer from this configuration.

    `next_change_ms`, the moment at which time alone will next change a value, stands for the slice of time; `rest` is
    whatever else the answer depends on, as JSON.
    """
    state = configuration.state
    version = configuration.overlay_version
    parts = [route, state.ref.id, state.epoch, state.revision, version, next_change_ms, rest]
    return f'"{blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()}"'


def is_named(etag: str, if_none_match: bytes | None) -> bool:
    """Tell whether `If-None-Match` names this ETag: in a list, weakly, or as `*`."""
    if if_none_match is None:
        return False
    listed = [name.strip().removeprefix("W/").strip('"') for name in if_none_match.decode("latin-1").split(",")]
    return "*" in listed or etag.strip('"') in listed
