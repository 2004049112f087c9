"""What a request's method and path say about it before any route is found: read or write, and whose business it is."""

from typing import Final

from relay.serve.guard import Scope

PREFIX: Final = "/api/v2"

_SIGN_IN: Final = f"{PREFIX}/auth/"
_OF_RELAYS: Final = frozenset({f"{PREFIX}/ingest", f"{PREFIX}/changes"})
_ASKING: Final = frozenset({f"{PREFIX}/explain"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def is_of_relays(path: str) -> bool:
    """Tell whether relays speak here, with keys, limits and repetitions of their own."""
    return path in _OF_RELAYS


def is_reading(method: str, path: str) -> bool:
    """Tell whether a request changes nothing: by its method, or because it only asks with a body."""
    return method in _READING or path in _ASKING


def takes_idempotency_key(method: str, path: str) -> bool:
    """Tell whether a request is a management write, which may be repeated with its key; signing in is none."""
    is_management = path.startswith(f"{PREFIX}/") and not path.startswith(_SIGN_IN) and not is_of_relays(path)
    return is_management and not is_reading(method, path)


def takes_document(path: str) -> bool:
    """Tell whether a whole project may be sent here, which is longer than other bodies."""
    return path == f"{PREFIX}/projects:import" or (path.startswith(f"{PREFIX}/projects/") and path.endswith("/import"))


def is_write(scope: Scope) -> bool:
    """Tell whether a request is a management write."""
    return takes_idempotency_key(scope["method"], scope["path"])
