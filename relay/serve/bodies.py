"""Request bodies into checked values: size, time, JSON, member names and types, each with its own clear refusal.

Sizes are refused before they are read wherever the request announces them. Every fault of a body is reported at
once, with the path of the field. Knows shapes, never meanings: what a flag or an environment is, the handlers know.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from starlette.requests import ClientDisconnect

from relay.errors import Problem
from relay.protocol import strict_json
from relay.serve.guard import Receive, Scope, header
from relay.settings import Limits

# Names that a caller made up may be long and many; what is echoed stays readable.
_ECHOED_CHARACTERS: Final = 64
_ECHOED_FIELDS: Final = 20


async def read_body(scope: Scope, receive: Receive, limit_bytes: int, deadline_s: float) -> bytes:
    """Return the whole body.

    Raises:
        Problem: 413 over the limit, 415 when it is compressed, 408 when it is not complete in time.
        ClientDisconnect: the client has gone.
    """
    if header(scope, b"content-encoding") not in {None, b"", b"identity"}:
        raise Problem(415, "unsupported_encoding", "Send the body without Content-Encoding.")
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit_bytes:
        raise _too_long(limit_bytes)
    try:
        async with asyncio.timeout(deadline_s):
            return await _read_all(receive, limit_bytes)
    except TimeoutError:
        raise Problem(408, "body_timeout", f"The body was not complete within {deadline_s:g} s.") from None


async def _read_all(receive: Receive, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise _too_long(limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_long(limit_bytes: int) -> Problem:
    # The rest of the body is not read, so the connection cannot be used again.
    return Problem(
        413, "body_too_long", f"The body is longer than {limit_bytes} bytes.", headers={"Connection": "close"}
    )


def parse_json(raw: bytes, limits: Limits) -> Any:
    """Return the JSON value of a body.

    Raises:
        Problem: 400 `malformed_json`, with the reason.
    """
    try:
        return strict_json.loads(raw, max_depth=limits.json_depth)
    except strict_json.BadJson as error:
        raise Problem(400, "malformed_json", f"The body is not valid JSON: {error.reason}.") from None


@dataclass(frozen=True, slots=True)
class Field:
    """One member that a body may have. `kind` is `str`, `dict` or `list`."""

    kind: type
    required: bool = False
    max_length: int = 512


_KIND_NAMES: Final[Mapping[type, str]] = {str: "a string", dict: "an object", list: "a list"}


def check_members(body: Any, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the body as an object with the members that `fields` allows.

    Raises:
        Problem: 422 `invalid_body` with every fault by field path; unknown members name the nearest known one.
    """
    if not isinstance(body, dict):
        raise Problem(422, "invalid_body", "The body must be a JSON object.", errors={"": ["must be an object"]})
    errors: dict[str, list[str]] = {}
    for name in [name for name in body if name not in fields][:_ECHOED_FIELDS]:
        errors[name[:_ECHOED_CHARACTERS]] = [_unknown(name, fields)]
    for name, expected in fields.items():
        if name not in body:
            if expected.required:
                errors[name] = ["is required"]
        elif (fault := _fault(body[name], expected)) is not None:
            errors[name] = [fault]
    if errors:
        raise Problem(422, "invalid_body", f"{len(errors)} fields of the body cannot be used: {', '.join(errors)}.",
                      errors=errors)  # fmt: skip
    return body


def _unknown(name: str, fields: Mapping[str, Field]) -> str:
    nearest = get_close_matches(name[:_ECHOED_CHARACTERS], fields, n=1, cutoff=0.5)
    return f"is not known; did you mean {nearest[0]!r}?" if nearest else f"is not known; known are {', '.join(fields)}"


def _fault(value: Any, expected: Field) -> str | None:
    if not isinstance(value, expected.kind):
        return f"must be {_KIND_NAMES[expected.kind]}"
    if isinstance(value, str) and len(value) > expected.max_length:
        return f"must not be longer than {expected.max_length} characters"
    return None
