"""Successful answers: JSON by orjson, with ETag, Location and warnings where they belong."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import Response

from upstream.api.etags import etag
from upstream.api.shapes import shape
from upstream.authority import Outcome
from upstream.domain.entities import Entity


class Json(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Render as compact UTF-8."""
        return orjson.dumps(content)


def one(entity: Entity, extra: Mapping[str, Any] | None = None, status: int = 200) -> Json:
    """Return the answer that shows one thing."""
    return Json({**shape(entity), **(extra or {})}, status, {"ETag": etag(entity)})


def changed(outcome: Outcome, extra: Mapping[str, Any] | None = None) -> Json:
    """Return the answer to a change: the thing as it now is, with warnings if there are any."""
    return one(outcome.entity, {**(extra or {}), **warnings_of(outcome)})


def created(outcome: Outcome, location: str, extra: Mapping[str, Any] | None = None) -> Json:
    """Return the answer to a creation: 201 and where the new thing is."""
    answer = one(outcome.entity, {**(extra or {}), **warnings_of(outcome)}, 201)
    answer.headers["Location"] = location
    return answer


def whole(data: Sequence[Mapping[str, Any]], entity: Entity | None = None) -> Json:
    """Return the answer that shows a list which is never cut into pages; `entity` is what it belongs to."""
    listed = {"data": data, "total": len(data), "limit": len(data), "offset": 0, "has_more": False}
    return Json(listed, headers=None if entity is None else {"ETag": etag(entity)})


def gone() -> Response:
    """Return the answer to a deletion."""
    return Response(status_code=204)


def warnings_of(outcome: Outcome) -> dict[str, Any]:
    """Return what the caller should know beside the answer."""
    return {"warnings": outcome.warnings} if outcome.warnings else {}
