"""The document of a whole project as a checked model: what `GET …/export` answers and `POST …/import` takes.

Only shapes are checked here; what the members mean is decided in `upstream.domain.importing`. In paths of problems a
list's entries go by their keys: `flags.checkout.configs.production.enabled`. A newer `format_version` is refused
before anything else is looked at, because its members cannot be known.
"""

import asyncio
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Request
from pydantic import Field, WithJsonSchema

from relay.errors import Problem
from relay.protocol import strict_json
from upstream.api.body import Body, JsonBody, Moment, absent, check_media_type, checked, invalid_body, raw_body
from upstream.api.services import services_of
from upstream.domain.entities import FlagKind, FlagType, NumberFormat
from upstream.domain.transfer import FORMAT_VERSION

M = TypeVar("M", bound=Body)

Key = Annotated[str, Field(min_length=1, max_length=128)]
TypeField = Annotated[FlagType, Field(strict=False)]
KindField = Annotated[FlagKind, Field(strict=False)]
Sort = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
# Looked at one by one where they are used, so that each fault is named.
Objects = list[dict[str, Any]]
Units = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": ["string", "integer"]}})]
Prerequisites = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": ["string", "object"]}})]

_LISTS: Final = ("environments", "segments", "flags")


class ProjectPart(Body):
    """The project itself. Leave it out to keep what the project is called."""

    key: Key = absent()
    name: str = absent()
    description: str | None = absent()
    mau_limit: int | None = absent()


class EnvironmentPart(Body):
    """An environment; its secrets and keys are not in a document."""

    key: Key
    name: str = absent()
    sort: Sort = absent()
    critical: bool = absent()
    require_review: bool = absent()


class SegmentPart(Body):
    """A segment."""

    key: Key
    name: str = absent()
    description: str | None = absent()
    include: Units = absent()
    exclude: Units = absent()
    when: dict[str, Any] | None = absent()


class ConfigPart(Body):
    """A flag in one environment. The salt decides which bucket a unit is in, so it goes along."""

    enabled: bool = absent()
    off: str | None = absent()
    fallthrough: dict[str, Any] = absent()
    rules: Objects = absent()
    targets: Objects = absent()
    salt: Annotated[str, Field(min_length=1, max_length=128)] = absent()


class FlagPart(Body):
    """A flag, with its config in each environment by the environment's key."""

    key: Key
    name: str = absent()
    description: str | None = absent()
    type: TypeField = absent()
    number_format: NumberFormat | None = absent()
    kind: KindField = absent()
    tags: list[str] = absent()
    metadata: dict[str, Any] = absent()
    is_active: bool = absent()
    client_side_enabled: bool = absent()
    analytics_enabled: bool = absent()
    mutual_exclusion_group: str | None = absent()
    owner: str | None = absent()
    expires_at: Moment | None = absent()
    archived: bool = absent()
    prerequisites: Prerequisites = absent()
    variations: Objects = absent()
    configs: dict[str, ConfigPart] = absent()


class ProjectDocument(Body):
    """A whole project. What a part leaves out is kept as it is, or has its usual value where the thing is new."""

    format: Literal["halyard.project"]
    format_version: int = Field(ge=1, description=f"{FORMAT_VERSION} is the newest that this version reads.")
    exported_at: Moment = absent()
    project: ProjectPart = absent()
    environments: list[EnvironmentPart] = absent()
    segments: list[SegmentPart] = absent()
    flags: list[FlagPart] = absent()


class ImportBody(ProjectDocument):
    """A document, with how it is to be imported."""

    prune: bool = Field(default=False, description="Delete the flags and segments that the document does not name.")
    create_environments: bool = Field(default=True, description="Make the environments that are not there yet.")
    confirm_type_change: bool = Field(
        default=False, description="A flag of another type is replaced, with its config in every environment."
    )

    def document(self) -> dict[str, Any]:
        """Return the document as the command takes it: plain JSON, times in epoch milliseconds, only what is named."""
        dumped = self.model_dump(mode="json", exclude_unset=True)
        return {name: value for name, value in dumped.items() if name in ProjectDocument.model_fields}


class NewProjectBody(ProjectDocument):
    """A document of which a new project is made, under the key in it."""

    def document(self) -> dict[str, Any]:
        """Return the document as the command takes it."""
        return self.model_dump(mode="json", exclude_unset=True)


class DocumentBody(JsonBody[M]):
    """Reads a document: longer than other bodies, and so not on the event loop."""

    async def __call__(self, request: Request) -> M:
        """Return the body.

        Raises:
            Problem: 400, 408, 413, 415 or 422, with everything that is wrong.
        """
        limits = services_of(request).limits
        raw = await raw_body(request)
        check_media_type(request.headers.get("content-type"))
        return await asyncio.to_thread(self._read, raw, limits.json_depth)

    def _read(self, raw: bytes, json_depth: int) -> M:
        try:
            value = strict_json.loads(raw, max_depth=json_depth, refuse_duplicates=True)
        except strict_json.BadJson as error:
            raise Problem(400, "malformed_json", f"The body is not valid JSON: {error}.") from None
        _check_version(value)
        try:
            return checked(self.model, value)
        except Problem as problem:
            raise invalid_body({_by_key(path, value): list(found) for path, found in problem.errors.items()}) from None


def _check_version(value: Any) -> None:
    version = value.get("format_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        sentence = (
            f"This document is of format version {version}, and this Halyard reads up to {FORMAT_VERSION}."
            " Update Halyard first."
        )
        raise Problem(422, "format_too_new", sentence, errors={"format_version": [sentence]})


def _by_key(path: str, value: Any) -> str:
    """Return a path with the key of the entry that an index stands for: `flags[3].name` → `flags.checkout.name`."""
    name, bracket, rest = path.partition("[")
    if name not in _LISTS or not bracket:
        return path
    index, _, inner = rest.partition("]")
    entry = value[name][int(index)]
    key = entry.get("key") if isinstance(entry, dict) else None
    return f"{name}.{key}{inner}" if isinstance(key, str) and key else path
