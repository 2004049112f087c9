"""Request bodies into checked models: size, media type, JSON, members and types, each with its own clear refusal.

FastAPI's own reading of bodies is never used: it fails on NaN and lone surrogates, and takes duplicate keys. A body is
read only after the caller was permitted, never beyond the limit, and every fault of it is reported at once with its
path; an unknown member names the nearest known one.
"""

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Final, Generic, Self, TypeVar, get_args, get_origin

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from relay.clock import parse_rfc3339_ms
from relay.errors import Problem
from relay.protocol import strict_json
from relay.serve.bodies import read_body
from relay.serve.guard import Scope
from upstream.api.paths import takes_document
from upstream.api.services import services_of
from upstream.domain.nearest import SHOWN_NAME, no_such_field
from upstream.domain.unset import (
    UNSET,
)

M = TypeVar("M", bound="Body")

_SHOWN_FAULTS: Final = 100
# 9999-12-31T23:59:59.999Z: later moments cannot be written as RFC 3339.
_LAST_MOMENT_MS: Final = 253_402_300_799_999


class Body(BaseModel):
    """Base of every body: JSON types as they are, nothing converted, nothing unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def given(self, *but: str) -> dict[str, Any]:
        """Return the members that the request names, except `but`."""
        return {name: getattr(self, name) for name in self.model_fields_set if name not in but}


class NewBody(Body):
    """Base of what creates something with a key; the key is made from the name when it is left out."""

    name: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.name is None and self.key is None:
            raise ValueError("Give a `name`, or a `key`, or both.")
        return self


def absent() -> Any:
    """Return the default of a member that is kept as it is when it is not named."""
    return Field(default_factory=lambda: UNSET)


def _moment(value: Any) -> int:
    try:
        wall_ms = parse_rfc3339_ms(value)
    except (TypeError, ValueError, OverflowError):
        wall_ms = -1
    if not 0 <= wall_ms <= _LAST_MOMENT_MS:
        raise ValueError("This must be an RFC 3339 time such as 2026-11-21T06:30:00Z.")
    return wall_ms


Moment = Annotated[int, BeforeValidator(_moment, json_schema_input_type=str)]
"""A time: RFC 3339 in JSON, epoch milliseconds in code."""


BaseVersion = Annotated[
    int | None,
    Field(
        description="The version that you started from, instead of If-Match: what others changed since is kept, and"
        " only a field that both changed to different values is refused."
    ),
]


_FAULTS: Final = "body_faults"


def faults_of(scope: Scope) -> Problem | None:
    """Return what is wrong with the form of a body whose rest was let through, so that all faults are told at once."""
    found: Problem | None = scope["state"].get(_FAULTS)
    return found


class JsonBody(Generic[M]):
    """FastAPI dependency that reads a body into a model. An optional body may be empty, which equals `{}`.

    With `is_judged_whole`, members that are unknown or of the wrong type are noted for `Doing`, which refuses the
    request with these faults and with those that the command finds in the rest. For routes that end in `doing(…)` only.
    """

    def __init__(self, model: type[M], *, is_required: bool = True, is_judged_whole: bool = False) -> None:
        self.model = model
        self.is_required = is_required
        self.is_judged_whole = is_judged_whole

    async def __call__(self, request: Request) -> M:
        """Return the body.

        Raises:
            Problem: 400, 408, 413, 415 or 422, with everything that is wrong.
        """
        limits = services_of(request).limits
        raw = await raw_body(request)
        if not raw and not self.is_required:
            return checked(self.model, {})
        check_media_type(request.headers.get("content-type"))
        try:
            value = strict_json.loads(raw, max_depth=limits.json_depth, refuse_duplicates=True)
        except strict_json.BadJson as error:
            raise Problem(400, "malformed_json", f"The body is not valid JSON: {error}.") from None
        try:
            return checked(self.model, value)
        except Problem as problem:
            rest = self._rest(value, problem) if self.is_judged_whole else None
            if rest is None:
                raise
            request.scope["state"][_FAULTS] = problem
            return rest

    def _rest(self, value: Any, problem: Problem) -> M | None:
        """Return the body without its faulty members; None when it is none without them."""
        if not isinstance(value, dict):
            return None
        faulty = {re.split(r"[.\[]", path, maxsplit=1)[0] for path in problem.errors}
        try:
            return self.model.model_validate({name: one for name, one in value.items() if name not in faulty})
        except ValidationError:
            return None


async def raw_body(request: Request) -> bytes:
    """Return the body as it came; read once, however often it is asked for.

    Raises:
        Problem: 408, 413 or 415.
    """
    state = request.scope["state"]
    if "raw_body" not in state:
        limits = services_of(request).limits
        most = limits.import_bytes if takes_document(request.scope["path"]) else limits.flag_bytes
        state["raw_body"] = await read_body(request.scope, request.receive, most, limits.body_s)
    raw: bytes = state["raw_body"]
    return raw


def check_media_type(content_type: str | None) -> None:
    """Refuse a body that says it is no JSON.

    Raises:
        Problem: 415.
    """
    if content_type is None:
        return
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type.startswith("application/") and media_type.endswith(("/json", "+json"))
    if not is_json:
        raise Problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json.")


def checked(model: type[M], value: Any) -> M:
    """Return a JSON value as a model.

    Raises:
        Problem: 422 `invalid_body` with every fault by field path.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)[:_SHOWN_FAULTS]
    errors: dict[str, list[str]] = {}
    for fault in faults:
        sentences = errors.setdefault(_path(fault["loc"]), [])
        sentence = _sentence(model, fault)
        if sentence not in sentences:
            sentences.append(sentence)
    raise invalid_body(errors)


def invalid_body(errors: dict[str, list[str]]) -> Problem:
    """Return the refusal of a body for what is wrong at each path."""
    named = ", ".join(path or "the whole body" for path in list(errors)[:10])
    return Problem(422, "invalid_body", f"The body cannot be used as it is; look at: {named}.", errors=errors)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        name = str(part)
        shown = name if len(name) <= SHOWN_NAME else name[:SHOWN_NAME] + "…"
        path += f"[{part}]" if isinstance(part, int) else f".{shown}" if path else shown
    return path


_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "This is required.",
    "string_type": "This must be a text.",
    "bool_type": "This must be true or false.",
    "bool_parsing": "This must be true or false.",
    "int_type": "This must be a whole number.",
    "int_parsing": "This must be a whole number.",
    "int_from_float": "This must be a whole number.",
    "float_type": "This must be a number.",
    "list_type": "This must be a list.",
    "tuple_type": "This must be a list.",
    "dict_type": "This must be an object.",
    "model_type": "This must be an object.",
    "model_attributes_type": "This must be an object.",
}


def _sentence(model: type[BaseModel], fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return no_such_field(str(fault["loc"][-1]), _members(model, fault["loc"][:-1]))
    return sentence_of(fault)


def sentence_of(fault: ErrorDetails) -> str:
    """Return what is wrong with one value, of a body or a parameter, as a sentence."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in {"enum", "literal_error"}:
        return f"This must be one of {context['expected']}."
    return _SENTENCES.get(kind) or f"{fault['msg']}."


def _members(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the names of the fields of the model that stands at `location` inside `model`."""
    inner: Any = model
    for part in location:
        if _is_model(inner):
            found = inner.model_fields.get(part)
            inner = found.annotation if found is not None else None
        else:
            inner = get_args(inner)[-1] if get_args(inner) else None
        inner = _without_null(inner)
    return [found.alias or name for name, found in inner.model_fields.items()] if _is_model(inner) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _without_null(kind: Any) -> Any:
    if isinstance(kind, UnionType) or get_origin(kind) is Annotated:
        return next(part for part in get_args(kind) if part is not type(None))
    return kind
