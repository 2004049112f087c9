"""Passwords: hashed and verified with argon2id, in threads of their own.

One verification costs tens of milliseconds and 64 MiB by intention, so that it never runs on the event loop, at most
`threads` at once, with at most `max_waiting` behind them. An unknown e-mail address costs the same as a known one.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from relay.serve.problems import unavailable

T = TypeVar("T")

MIN_CHARACTERS: Final = 10
MAX_CHARACTERS: Final = 1_000


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
