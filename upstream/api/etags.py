"""Versions in headers: `ETag: "v7"` on every answer that shows one thing, `If-Match: "v7"` on what changes it."""

import re
from typing import Annotated, Final

from fastapi import Depends, Header

from relay.errors import Problem
from upstream.domain.entities import Entity

# A proxy that compresses makes tags weak; the version in them is as exact as before.
_TAG: Final = re.compile(r'(?:W/)?"v([0-9]{1,18})"')


def etag(entity: Entity) -> str:
    """Return the entity tag of a thing as it now is."""
    return f'"v{entity.version}"'


async def expected_version(
    if_match: Annotated[str | None, Header(description='Version that you saw, as its ETag: `"v7"`.')] = None,
) -> int | None:
    """Return the version that the caller saw; None when they do not care.

    Raises:
        Problem: 400 for a header that is no tag of ours.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _TAG.fullmatch(if_match.strip())
    if tag is None:
        raise Problem(400, "invalid_if_match", 'If-Match takes one ETag as it was answered, such as "v7", or *.')
    return int(tag[1])


IfMatch = Annotated[int | None, Depends(expected_version)]
