"""How a refused request is answered: the one place of this service that renders errors.

Two shapes, told apart by the path: RFC 9457 problem details, and on OFREP routes the body that every published
OFREP client reads (`errorCode`, `errorDetails`, and `key` where one flag was asked for). Never shows a traceback, a
key or anything of the request but the flag key that was asked for.
"""

from collections.abc import MutableMapping
from typing import Any, Final

import orjson

from relay.errors import Problem

Scope = MutableMapping[str, Any]

OFREP_PREFIX: Final = "/ofrep/"
OFREP_SINGLE: Final = "/ofrep/v1/evaluate/flags/"

# Every other code is GENERAL: the closed list of the specification has no word for it.
_OFREP_CODES: Final = {
    "malformed_json": "PARSE_ERROR",
    "invalid_context": "INVALID_CONTEXT",
    "targeting_key_missing": "TARGETING_KEY_MISSING",
    "flag_not_found": "FLAG_NOT_FOUND",
}


def render(problem: Problem, scope: Scope, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the body that answer a refused request."""
    path: str = scope["path"]
    if path.startswith(OFREP_PREFIX):
        content_type, body = b"application/json", _ofrep_body(problem, path)
    else:
        content_type, body = b"application/problem+json", problem.body(request_id)
    raw = orjson.dumps(body)
    headers = [(b"content-type", content_type), (b"content-length", str(len(raw)).encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    return headers, raw


def _ofrep_body(problem: Problem, path: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "errorCode": _OFREP_CODES.get(problem.code, "GENERAL"),
        "errorDetails": problem.detail,
        "metadata": {},
    }
    if path.startswith(OFREP_SINGLE):
        body["key"] = path.removeprefix(OFREP_SINGLE)  # as it was routed: unquoted once, by the server
    return body


def unavailable(code: str, detail: str, retry_after_s: int = 1) -> Problem:
    """Return a 503 that says when to come back, in whole seconds: OFREP clients misread anything else."""
    return Problem(503, code, detail, headers={"Retry-After": str(max(1, retry_after_s))})
