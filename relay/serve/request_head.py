"""The strict form of an evaluation request's head: the only one of which the hot lane answers a request.

Reads the bytes up to the blank line. A head is either certain, so that the server's parser and the app behind it could
not read it in any other way, or None, and then they decide. So nothing here is ever refused, and leaving a head to
them is always right.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relay.serve.packing import Form, takes_gzip
from relay.settings import Limits

LONGEST: Final = 2_048
"""Bytes of a head that is looked at, the blank line not included."""
END: Final = b"\r\n\r\n"


class Route(StrEnum):
    """The routes that the hot lane serves."""

    SINGLE = "single"
    BULK = "bulk"
    EVALUATE = "evaluate"
    BOOTSTRAP = "bootstrap"


OF_ALL: Final = frozenset({Route.BULK, Route.BOOTSTRAP})
"""Those that answer for all flags."""
READ: Final = frozenset({
    b"authorization", b"x-api-key", b"if-none-match", b"content-length", b"connection", b"accept-encoding",
})  # fmt: skip
"""Fields that change the answer and that are understood here."""
LEFT: Final = frozenset({
    b"transfer-encoding", b"expect", b"upgrade", b"origin", b"x-request-id", b"content-encoding", b"proxy-connection",
    b"http2-settings", b"access-control-request-method",
})  # fmt: skip
"""Fields that something behind the server's parser may act on. Nobody reads any that is not named here or above."""

_LINE: Final = re.compile(
    rb"POST (?P<path>/ofrep/v1/evaluate/flags(?:/(?P<flag>[A-Za-z0-9._~-]+))?|/api/v2/evaluate|/api/v2/bootstrap)"
    rb" HTTP/1\.1"
)
_FIELD: Final = re.compile(rb"([A-Za-z0-9-]+): ?((?:[!-~](?:[ -~]*[!-~])?)?)")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,8}")
_PATHS: Final = {b"/api/v2/evaluate": Route.EVALUATE, b"/api/v2/bootstrap": Route.BOOTSTRAP}


@dataclass(frozen=True, slots=True)
class Head:
    """What a head says; the raw key is checked by nobody yet.

    `flag` is empty on the routes that name none. `form` is the answer's for who is offered packed ones.
    """

    route: Route
    flag: str
    content_length: int
    raw_key: str | None
    if_none_match: bytes | None
    form: Form


def parse(raw: bytes, limits: Limits) -> Head | None:
    """Read a head, given without its blank line."""
    line, *rest = raw.split(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None or len(found["path"]) > limits.path_bytes:
        return None
    fields = _fields(rest, limits)
    if fields is None or fields.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = fields.get(b"content-length", b"")
    if _LENGTH.fullmatch(length) is None or int(length) > limits.context_bytes:
        return None
    route = _PATHS.get(found["path"]) or (Route.BULK if found["flag"] is None else Route.SINGLE)
    flag, named = (found["flag"] or b"").decode(), fields.get(b"if-none-match")
    form = Form.BARE
    if route in OF_ALL:
        form = Form.PACKED if takes_gzip(fields.get(b"accept-encoding")) else Form.PLAIN
    return Head(route, flag, int(length), _raw_key(fields), named, form)


def _fields(lines: list[bytes], limits: Limits) -> dict[bytes, bytes] | None:
    """Return the header fields by lowercase name, unless one is odd, stands twice, or is left to others."""
    fields: dict[bytes, bytes] = {}
    size = 0
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            return None
        name = found[1].lower()
        if name in LEFT or name in fields:
            return None
        fields[name] = found[2]
        size += len(found[1]) + len(found[2]) + 4
    return None if len(fields) > limits.header_count or size > limits.header_bytes else fields


def _raw_key(fields: dict[bytes, bytes]) -> str | None:
    """Return the key as `relay.serve.access.presented_key` does."""
    authorization = fields.get(b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip().decode("ascii")
    api_key = fields.get(b"x-api-key")
    return None if api_key is None else api_key.decode("ascii")
