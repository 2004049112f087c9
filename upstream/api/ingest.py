"""`POST /ingest`: a relay hands over a batch of events and counts.

The body is one JSON record per line, usually in gzip; `Batch-Id` names the batch and stays the same when it is sent
again. The answer says `accepted`, or `duplicate` for a batch that is stored already. The route takes relay and server
keys, and checks them before it reads the body.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from relay.errors import Problem
from relay.protocol.keys import Kind
from relay.serve.access import Access
from upstream.ingest import Ingest, Origin
from upstream.settings import UpstreamLimits

TAKES: Final = frozenset({Kind.RELAY, Kind.SERVER})
BATCH_ID: Final = re.compile(r"[A-Za-z0-9_.-]{8,128}")
RELAY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
GZIP_NAMES: Final = frozenset({"gzip", "x-gzip"})


def _header(name: str, schema: Mapping[str, Any], description: str, *, is_required: bool = False) -> dict[str, Any]:
    return {
        "in": "header", "name": name, "required": is_required, "schema": {"type": "string", **schema},
        "description": description,
    }  # fmt: skip


# FastAPI does not see what it must not read.
_DESCRIBED: Final[dict[str, Any]] = {
    "parameters": [
        _header(
            "Batch-Id",
            {"pattern": f"^{BATCH_ID.pattern}$"},
            "Names the batch; the same when it is sent again.",
            is_required=True,
        ),
        _header(
            "Relay-Id",
            {"pattern": f"^{RELAY_ID.pattern}$"},
            "Names the relay, whose batch ids are its own; by default the key stands for it.",
        ),
        _header("Content-Encoding", {"enum": ["gzip", "identity"]}, "How the body is compressed, if it is."),
    ],
    "requestBody": {
        "required": True,
        "description": "One JSON record per line: events and counts, at most 10 000, usually in gzip.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    },
}


def router(access: Access, ingest: Ingest) -> APIRouter:
    """Return the route, working with the given authenticator and store."""
    routes = APIRouter()

    @routes.post(
        "/ingest",
        tags=["relays"],
        summary="Take a batch of events and counts from a relay",
        openapi_extra=_DESCRIBED,
    )
    async def take(request: Request) -> dict[str, Any]:
        """Store a batch of records, one JSON object per line; once, however often it is handed over."""
        grant = access.authenticate(request.scope, kinds=TAKES)
        origin = Origin(
            batch_id=_identifier(request, "Batch-Id", BATCH_ID, is_required=True) or "",
            credential_id=grant.credential.id,
            relay_id=_identifier(request, "Relay-Id", RELAY_ID, is_required=False),
        )
        is_gzip = _is_gzip(request)
        receipt = await ingest.take(origin, await _body(request, ingest.limits), is_gzip=is_gzip)
        return receipt.members()

    return routes


def _identifier(request: Request, name: str, shape: re.Pattern[str], *, is_required: bool) -> str | None:
    value = request.headers.get(name)
    if value is None and not is_required:
        return None
    if value is None or not shape.fullmatch(value):
        raise Problem(400, "invalid_header", f"The header {name} must match {shape.pattern}.")
    return value


def _is_gzip(request: Request) -> bool:
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in GZIP_NAMES | {"identity", ""}:
        raise Problem(415, "unsupported_encoding", "Content-Encoding must be gzip or absent.")
    return encoding in GZIP_NAMES


async def _body(request: Request, limits: UpstreamLimits) -> bytes:
    """Return the body as sent, refusing one that is too long before it is in memory, or too slow."""
    max_bytes = limits.ingest_bytes
    announced = request.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_long(max_bytes)
    try:
        async with asyncio.timeout(limits.body_s):
            return await _whole(request, max_bytes)
    except TimeoutError:
        detail = f"The body was not complete within {limits.body_s:g} s."
        raise Problem(408, "body_timeout", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        # Nobody reads this answer; it keeps a relay that went away from being logged as a fault of this service.
        raise Problem(400, "incomplete_body", "The body ended too early.") from None


async def _whole(request: Request, max_bytes: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_long(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_long(max_bytes: int) -> Problem:
    return Problem(
        413, "batch_too_long", f"The body is longer than {max_bytes} bytes.", headers={"Connection": "close"}
    )
