"""The OpenAPI document: what FastAPI knows of the routes, completed with the bodies that are read by `body.JsonBody`.

FastAPI does not see those bodies, because it must not read them. Their models are found on the routes, put into the
document's components, and referred to from each operation. Successful answers are described by `described`, errors
once for all operations. What is not described there is left as it is; a test names it.
"""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic.json_schema import models_json_schema

from upstream.api.attempts import MAX_CHARACTERS
from upstream.api.body import Body, JsonBody
from upstream.api.described.answers import ANSWERS, ANSWERS_BY_PARAMETER, PARAMETERS, SCHEMAS, TAGS
from upstream.api.described.bodies import BODIES, EXPORTED
from upstream.api.paths import takes_idempotency_key
from upstream.api.project_document import ProjectDocument

OPEN_PATHS: Final = ("/api/v2/auth/login", "/api/v2/auth/refresh", "/api/v2/auth/accept", "/api/v2/auth/setup")
"""What takes no credential: it is how one is got."""

PREFIX: Final = "/api/v2"
_REF: Final = "#/components/schemas/{model}"

_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": "^[ -~]+$"},
    "description": (
        "A random text, best a UUID, that names this write: sent again with it, the write has no further effect and is"
        " answered as the first time, with `Idempotent-Replayed: true`. Kept for a day for each caller."
    ),
}

_SUCCESS: Final = {
    "201": "Created.",
    "202": "Taken, to be done later.",
    "204": "Done; there is nothing to say.",
}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "What programs branch on."},
        "detail": {"type": "string", "description": "What is wrong and what to do, for people."},
        "request_id": {"type": "string"},
        "errors": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the document of `app`; made once, when it is first asked for."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        )
        _add_bodies(document, app)
        _add_idempotency(document)
        _add_answers(document)
        _add_errors(document)
        _add_security(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_bodies(document: dict[str, Any], app: FastAPI) -> None:
    operations = list(_operations_with_bodies(app))
    models: list[type[Body]] = list(dict.fromkeys([ProjectDocument, *(reader.model for _, _, reader in operations)]))
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas.get("$defs", {}))
    for path, method, reader in operations:
        name = reader.model.__name__
        content: dict[str, Any] = {"schema": {"$ref": _REF.format(model=name)}}
        if name in BODIES:
            content["example"] = BODIES[name]
        document["paths"][path][method]["requestBody"] = {
            "required": reader.is_required,
            "content": {"application/json": content},
        }


def _operations_with_bodies(app: FastAPI) -> Iterator[tuple[str, str, JsonBody[Any]]]:
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant) and route.path_format is not None:
            for reader in _readers(dependant):
                for method in route.methods or ():
                    yield route.path_format, method.lower(), reader


def _readers(dependant: Dependant) -> Iterator[JsonBody[Any]]:
    if isinstance(dependant.call, JsonBody):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _readers(inner)


def _add_idempotency(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if takes_idempotency_key(method.upper(), path):
                operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)


def _add_answers(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    schemas.update({name: {**each.schema, "examples": [each.example]} for name, each in SCHEMAS.items()})
    schemas["ProjectDocument"]["examples"] = [EXPORTED]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            verb = "PATCH" if method == "put" else method.upper()
            key = f"{verb} {path.removeprefix(PREFIX)}"
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in PARAMETERS:
                    parameter.setdefault("description", PARAMETERS[parameter["name"]])
            if key in ANSWERS:
                _describe_success(operation, ANSWERS[key], schemas)


def _describe_success(operation: dict[str, Any], name: str | None, schemas: dict[str, Any]) -> None:
    """Describe what an operation answers by itself, and what it answers because of a query parameter."""
    responses = operation["responses"]
    status = next(code for code in responses if code.startswith("2"))
    by_status: dict[str, list[str]] = {status: [] if name is None else [name]}
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in ANSWERS_BY_PARAMETER:
            other, shown = ANSWERS_BY_PARAMETER[parameter["name"]]
            by_status.setdefault(other, []).append(shown)
    for code, names in by_status.items():
        responses[code] = {"description": _SUCCESS.get(code, "The answer.")}
        if names:
            refs = [{"$ref": _REF.format(model=each)} for each in names]
            schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
            content = {"schema": schema, "example": schemas[names[0]]["examples"][0]}
            responses[code]["content"] = {"application/json": content}
    if name is not None and "version" in schemas[name].get("properties", {}):
        responses[status]["headers"] = {
            "ETag": {"description": "The version, for If-Match.", "schema": {"type": "string"}}
        }
    if status == "201":
        responses[status].setdefault("headers", {})["Location"] = {
            "description": "Where it is.",
            "schema": {"type": "string"},
        }


def _add_errors(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    components["responses"] = {"Problem": {"description": "The request is refused.", "content": content}}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["4XX"] = {"$ref": "#/components/responses/Problem"}
            operation["responses"]["5XX"] = {"$ref": "#/components/responses/Problem"}


def _add_security(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "API token (hal_token_…) or access token."},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for path in OPEN_PATHS:
        document["paths"][path]["post"]["security"] = []
