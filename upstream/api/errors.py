"""Every refusal of the management API into RFC 9457 problem details.

The domain's refusals, the router's, and a database that cannot answer each get their status here; rendering is the
relay's (`relay.serve.problems`), and what nobody expected is answered by `relay.serve.guard` around the app.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from relay.errors import Problem
from relay.serve.problems import render, unavailable
from upstream.api.attempts import in_use
from upstream.api.body import sentence_of
from upstream.api.doing import Diverted
from upstream.api.etags import etag
from upstream.api.shapes import shape
from upstream.domain.errors import Kind, Rejected
from upstream.storage.database import Unavailable
from upstream.storage.errors import KeyTaken

logger = logging.getLogger(__name__)

_STATUS: Final[Mapping[Kind, int]] = {
    Kind.INVALID: 422,
    Kind.CONFLICT: 409,
    Kind.NOT_FOUND: 404,
    Kind.PRECONDITION: 412,
    Kind.FORBIDDEN: 403,
}
_RETRY_AFTER_S: Final = 2


def install(app: FastAPI) -> None:
    """Make `app` answer every refusal as problem details."""
    app.add_exception_handler(Diverted, _on_diverted)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(Rejected, _on_rejected)
    app.add_exception_handler(Unavailable, _on_unavailable)
    app.add_exception_handler(KeyTaken, _on_key_taken)
    app.add_exception_handler(RequestValidationError, _on_bad_parameters)
    app.add_exception_handler(HTTPException, _on_router)


def problem_of(rejected: Rejected) -> Problem:
    """Return how a refusal of the domain is answered; a version conflict shows both sides."""
    extra: dict[str, Any] = dict(rejected.extra)
    headers: dict[str, str] = {}
    if rejected.kind is Kind.PRECONDITION:
        extra["expected_version"] = rejected.expected
        if rejected.current is not None:
            extra["current"] = shape(rejected.current)
            headers["ETag"] = etag(rejected.current)
    return Problem(
        _STATUS[rejected.kind], rejected.code, rejected.detail, errors=rejected.errors, headers=headers, extra=extra
    )


def answer(problem: Problem, request: Request) -> Response:
    """Return the response that refuses a request."""
    headers, body = render(problem, request.scope, str(request.state.request_id))
    response = Response(body, problem.status)
    response.raw_headers = headers
    return response


async def _on_diverted(_request: Request, diverted: Exception) -> Response:
    assert isinstance(diverted, Diverted)  # noqa: S101 - registered for this class alone
    return diverted.response


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - registered for this class alone
    return answer(error, request)


async def _on_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)  # noqa: S101 - registered for this class alone
    return answer(problem_of(error), request)


async def _on_unavailable(request: Request, error: Exception) -> Response:
    logger.warning("database unavailable: %s", error, extra={"request_id": request.state.request_id})
    detail = "The database cannot take this now; nothing was changed. Try again."
    return answer(unavailable("database_unavailable", detail, _RETRY_AFTER_S), request)


async def _on_key_taken(request: Request, _taken: Exception) -> Response:
    return answer(in_use(), request)


async def _on_bad_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    errors: dict[str, list[str]] = {}
    for fault in error.errors():
        errors.setdefault(".".join(str(part) for part in fault["loc"][1:]), []).append(sentence_of(fault))
    detail = f"These parameters cannot be used: {', '.join(errors)}."
    return answer(Problem(422, "invalid_parameters", detail, errors=errors), request)


async def _on_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    if error.status_code == 405:  # noqa: PLR2004 - the status itself
        allowed = ", ".join(sorted(_methods_of(request)))
        detail = f"This path takes {allowed}, not {request.method}."
        return answer(Problem(405, "method_not_allowed", detail, headers={"Allow": allowed}), request)
    if error.status_code == 404:  # noqa: PLR2004 - the status itself
        return answer(Problem(404, "not_found", "There is nothing at this path."), request)
    return answer(Problem(error.status_code, "refused", str(error.detail)), request)


def _methods_of(request: Request) -> set[str]:
    """Return what all routes of this path take together; the router itself knows the first one only."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        shape_of_path = getattr(route, "path_regex", None)
        if shape_of_path is not None and shape_of_path.match(request.scope["path"]):
            methods |= route.methods or set()
    return methods
