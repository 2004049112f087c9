"""Passwords: hashed and verified with argon2id, in threads of their own.

One verification costs tens of milliseconds and 64 MiB by intention, so that it never runs on the event loop, at most
`threads` at once, with at most `max_waiting` behind them. An unknown e-mail address costs the same as a known one.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import Field

from relay.serve.problems import unavailable
from upstream.domain.errors import Kind, Rejected

T = TypeVar("T")

MIN_CHARACTERS: Final = 12
MAX_CHARACTERS: Final = 1_000
NewPassword = Annotated[str, Field(min_length=MIN_CHARACTERS, max_length=MAX_CHARACTERS)]


def check_password(field: str, password: str, email: str) -> None:
    """Refuse a password that everybody can guess who knows whose it is; lengths are the body's to check.

    Raises:
        Rejected: INVALID, naming the field.
    """
    if password.strip().lower() == email.strip().lower():
        sentence = "The password must not be the e-mail address."
        raise Rejected(Kind.INVALID, sentence, {field: [sentence]}, code="invalid_body")


class Passwords:
    """Hashes and verifies. `hasher` is a cheaper one in tests."""

    def __init__(self, hasher: PasswordHasher | None = None, *, threads: int = 2, max_waiting: int = 32) -> None:
        self._hasher = hasher or PasswordHasher()
        self._dummy = self._hasher.hash(secrets.token_urlsafe(16))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._max_waiting = max_waiting
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return what is stored of a password.

        Raises:
            Problem: 503 when too many wait.
        """
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether the password is the one that was hashed; None (nobody, or no password) takes the same time.

        Raises:
            Problem: 503 when too many wait.
        """
        is_right = await self._run(lambda: self._matches(stored or self._dummy, password))
        return is_right and stored is not None

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._max_waiting:
            raise unavailable("sign_in_busy", "Too many sign-ins at once; try again in a moment.", 2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
