"""The query string of a request, parsed once and only when somebody asks."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from relay.errors import Problem
from relay.serve.guard import Scope

_MAX_FIELDS = 64


def parameters(scope: Scope) -> Mapping[str, str]:
    """Return the query's parameters; of repeated ones the first counts.

    Raises:
        Problem: 400 when there are too many, or a name or value is not UTF-8.
    """
    state = scope.setdefault("state", {})
    found: Mapping[str, str] | None = state.get("query")
    if found is None:
        found = state["query"] = _parse(scope["query_string"])
    return found


def parameter(scope: Scope, name: str) -> str | None:
    """Return one parameter of the query, None if it is absent or empty."""
    return parameters(scope).get(name) or None if scope["query_string"] else None


def _parse(raw: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Problem(400, "malformed_query", "The query is not valid UTF-8, or has too many parameters.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found
