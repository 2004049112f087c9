"""The one error with which the domain refuses a command.

The API layer turns it into an answer: INVALID 422, CONFLICT 409, NOT_FOUND 404, PRECONDITION 412, FORBIDDEN 403.
Validation collects every problem first (`Problems`), so that one answer names them all.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from upstream.domain.entities import Entity, Json


class Kind(StrEnum):
    """Why a command was refused."""

    INVALID = "invalid"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    PRECONDITION = "precondition"
    FORBIDDEN = "forbidden"


class Rejected(Exception):
    """A command that the authority does not carry out.

    Args:
        kind: the class of refusal.
        detail: one sentence for people.
        errors: field path -> sentences, where single fields are at fault.
        code: stable snake_case word for programs; the kind itself unless given.
        expected: the version that the caller named (PRECONDITION only).
        current: the entity as it is now (PRECONDITION only).
        extra: further members of the answer, such as the list of flags that stand in the way.
    """

    def __init__(  # noqa: PLR0913 - each of them is needed
        self,
        kind: Kind,
        detail: str,
        errors: Mapping[str, Sequence[str]] | None = None,
        *,
        code: str | None = None,
        expected: int | None = None,
        current: Entity | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(f"{kind}: {detail} {dict(errors or {})}" if errors else f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.errors = {path: tuple(sentences) for path, sentences in (errors or {}).items()}
        self.code = code or str(kind)
        self.expected = expected
        self.current = current
        self.extra = dict(extra or {})


class Problems:
    """Collects what is wrong with a command, by field path; at most `limit` sentences."""

    def __init__(self, limit: int = 100) -> None:
        self._found: dict[str, list[str]] = {}
        self._limit = limit
        self._prefix = ""

    def under(self, prefix: str) -> "Problems":
        """Return a view of these problems whose paths begin with `prefix`."""
        inner = Problems(self._limit)
        inner._found, inner._prefix = self._found, f"{self._prefix}{prefix}."
        return inner

    def add(self, path: str, sentence: str) -> None:
        """Note one problem of the field at `path`; `.name` is a member of the whole body."""
        whole = self._prefix + path.removeprefix(".") if path else self._prefix.rstrip(".")
        is_full = sum(map(len, self._found.values())) >= self._limit
        if not is_full and sentence not in self._found.get(whole, ()):
            self._found.setdefault(whole, []).append(sentence)

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was noted here, that is under this view's prefix."""
        return not any(path.startswith(self._prefix) for path in self._found)

    def check(self, detail: str) -> None:
        """Refuse the command if any problem was noted.

        Raises:
            Rejected: INVALID with everything noted.
        """
        if self._found:
            raise Rejected(Kind.INVALID, detail, self._found)


def not_found(thing: str, reference: str) -> Rejected:
    """Return the refusal for a thing that does not exist, or is another organisation's."""
    return Rejected(
        Kind.NOT_FOUND,
        f"There is no {thing} {reference!r} here.",
        code=f"{thing.replace(' ', '_')}_not_found",
    )
