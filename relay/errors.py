"""Every error that Halyard raises on purpose, and the one shape in which a refused request is answered.

    HalyardError
    ├── BadSettings      configuration file or environment variables cannot be used; all problems at once
    └── Problem          a request is refused: RFC 9457 problem details with a machine-readable `code`

The pure packages have their own leaves below this layer: `relay.engine.parse.InvalidConfig`,
`relay.protocol.strict_json.BadJson` and the outcomes of `relay.protocol.changes`.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any


class HalyardError(Exception):
    """Root of what Halyard raises on purpose."""


class BadSettings(HalyardError):
    """Settings cannot be used. `problems` holds one `TOML path: what is wrong and the remedy` line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Problem(HalyardError):
    """A refused request.

    Args:
        status: HTTP status to answer with.
        code: stable snake_case word that programs branch on, such as `flag_not_found`.
        detail: one sentence for people: what is wrong and what to do about it.
        errors: field path -> sentences, where single fields are at fault.
        headers: extra answer headers, such as `Retry-After`.
        extra: further members of the problem body, such as both sides of a version conflict.
    """

    def __init__(  # noqa: PLR0913 - one argument per member of the answer
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Mapping[str, Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = dict(errors or {})
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the members of the `application/problem+json` answer."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
            **self.extra,
        }
        if self.errors:
            members["errors"] = {field: list(reasons) for field, reasons in self.errors.items()}
        return members
