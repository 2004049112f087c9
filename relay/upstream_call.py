"""What every request to the authority needs: reading its answer within bounds, and knowing how long to wait.

What an answer means is decided by whoever sent the request.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import orjson

from relay.settings import UpstreamLink

PROBLEM: Final = "application/problem+json"
MAX_ANSWER_BYTES: Final = 64 * 1_024
MAX_RETRY_AFTER_S: Final = 3_600.0
OF_THE_REQUEST: Final = frozenset({"bad_request", "invalid_header", "incomplete_body"})
"""Codes of a 400 that is about the request and not about what it brought, which may be good."""


async def read_some(content: aiohttp.StreamReader) -> bytes:
    """Return the beginning of an answer; the rest, if any, is not worth the memory."""
    parts, size = [], 0
    while size < MAX_ANSWER_BYTES and (part := await content.read(MAX_ANSWER_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object that an answer is; an empty one when it is none, as a proxy's page."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def problem_code(headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the code of a problem document, which only the authority writes; None: somebody else has answered."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    code = object_in(body).get("code") if media_type == PROBLEM else None
    return code if isinstance(code, str) and code else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that was asked for, within reason."""
    value = headers.get("Retry-After", "")
    return min(float(value), MAX_RETRY_AFTER_S) if value.isascii() and value.isdigit() else None


def backoff_s(link: UpstreamLink, failures: int, jitter: Callable[[float, float], float]) -> float:
    """Return a random wait, of which the upper end grows with every failure in a row."""
    doublings = min(failures - 1, 32)
    return jitter(0, min(link.backoff_max_s, link.backoff_min_s * 2**doublings))
