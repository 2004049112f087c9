"""Exit statuses of the commands, and the one error that ends a command with one of them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from relay.errors import HalyardError


class Exit(IntEnum):
    """What a command's exit status says; documented in `docs/cli.md`."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    FORBIDDEN = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNAVAILABLE = 6


class Failed(HalyardError):
    """Ends a command.

    Args:
        status: what it exits with.
        sentence: what happened, where, and what to do about it.
        problem: what the API answered, where it did.
    """

    def __init__(self, status: Exit, sentence: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.problem = problem


_BY_STATUS: Mapping[int, Exit] = {
    401: Exit.FORBIDDEN,
    403: Exit.FORBIDDEN,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    429: Exit.UNAVAILABLE,
    502: Exit.UNAVAILABLE,
    503: Exit.UNAVAILABLE,
    504: Exit.UNAVAILABLE,
}


def refused(status: int, body: Any, url: str) -> Failed:
    """Return how an answer that is no success ends a command."""
    exit_status = _BY_STATUS.get(status, Exit.REFUSED)
    if not isinstance(body, dict) or not isinstance(body.get("detail"), str):
        return Failed(exit_status, f"{url} answered {status}, without the reasons that Halyard gives: is it Halyard?")
    sentence: str = body["detail"]
    match status, body.get("code"):
        case 401, _:
            sentence += " Sign in with: halyard login"
        case 404, "not_found":
            sentence = f"{url} does not know this request: it may be an older Halyard than this command line."
        case 409, "review_required":
            sentence = sentence.partition(";")[0] + ": propose it with --propose TITLE."
        case 412, _:
            sentence += " Look at it again before you change it."
    return Failed(exit_status, sentence, body)
