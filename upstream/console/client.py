"""Requests to one authority: paths below `/api/v2`, JSON both ways, the bearer token and its renewal.

Follows no redirect and sends a token nowhere but to the URL that it belongs to. Every answer that is no success, and
every way to get none, is raised as `Failed` with its exit status.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import orjson

from relay.version import VERSION
from upstream.console import sign_ins
from upstream.console.failures import Exit, Failed, refused
from upstream.console.sign_ins import SignIn

# It takes longer to import than most commands take, and `--help` and the services' commands need none of it.
if TYPE_CHECKING:
    import aiohttp

PREFIX = "/api/v2"
TIMEOUT_S = 30.0
MAX_PAGE = 100
_SOON_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A success: its status, its JSON (`{}` where there is none)."""

    status: int
    body: Any


@dataclass(slots=True)
class Client:
    """One authority.

    Args:
        url: where it is.
        token: an API token that was given for this command; it goes before the sign-in.
        timeout_s: how long one request may take.
    """

    url: str
    token: str | None = None
    timeout_s: float = TIMEOUT_S
    _session: "aiohttp.ClientSession | None" = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at a path."""
        return (await self.call("GET", path, query=query)).body

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; renews a sign-in that has run out.

        Raises:
            Failed: there is no answer, or it is no success.
        """
        bearer = self.token or await self._bearer()
        status, answer = await self.send(method, path, body, bearer, query=query, headers=headers)
        if status == HTTPStatus.UNAUTHORIZED and self.token is None and sign_ins.load().at(self.url).refresh_token:
            bearer = await self._renewed(bearer)
            status, answer = await self.send(method, path, body, bearer, query=query, headers=headers)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise refused(status, answer, self.url)
        return Answer(status, answer)

    async def listed(self, path: str, limit: int, **query: Any) -> dict[str, Any]:
        """Return the first `limit` entries of a list as one page, whatever the API's pages are."""
        page: dict[str, Any] = await self.get(path, **query, limit=min(limit, MAX_PAGE))
        while page["has_more"] and len(page["data"]) < limit:
            more = await self.get(
                path, **query, limit=min(limit - len(page["data"]), MAX_PAGE), offset=len(page["data"])
            )
            if not more["data"]:
                break
            page = {**page, "data": page["data"] + more["data"], "total": more["total"], "has_more": more["has_more"]}
        return {**page, "limit": limit}

    async def send(
        self,
        method: str,
        path: str,
        body: Any,
        bearer: str | None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Send one request as it is, and return the status and JSON of whatever answer there is.

        Raises:
            Failed: there is none.
        """
        import aiohttp  # noqa: PLC0415 - see above

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.timeout_s))
        sent = {
            "User-Agent": f"halyard/{VERSION}",
            "Halyard-Client": "cli",  # what the audit log shows under `via`
            "Accept": "application/json",
            **(headers or {}),
        }
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer}"
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method,
                self.url + PREFIX + path,
                params=_parameters(query or {}),
                data=data,
                headers=sent,
                allow_redirects=False,
            ) as answer:
                return answer.status, _json(await answer.read())
        except TimeoutError:
            raise Failed(Exit.UNAVAILABLE, f"{self.url} did not answer within {self.timeout_s:.0f} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            sentence = f"{self.url} cannot be reached: {_reason(error)}."
            raise Failed(Exit.UNAVAILABLE, f"{sentence} Is it the right --url, and does the upstream run?") from None
        except ValueError as error:
            raise Failed(Exit.USAGE, f"This cannot be sent to {self.url}: {error}.") from None

    async def _bearer(self) -> str | None:
        entry = sign_ins.load().at(self.url)
        if entry.refresh_token is not None and entry.expires_at < time.time() + _SOON_S:
            return await self._renewed(entry.access_token)
        return entry.bearer

    async def _renewed(self, used: str | None) -> str | None:
        """Return a new access token in place of `used`; another command may have fetched it already."""
        with sign_ins.locked():
            entry = sign_ins.load().at(self.url)
            if entry.refresh_token is None or entry.access_token != used:
                return entry.bearer
            status, answer = await self.send("POST", "/auth/refresh", {"refresh_token": entry.refresh_token}, None)
            if status == HTTPStatus.OK:
                entry = entry.renewed(answer, time.time())
                sign_ins.keep(self.url, entry)
                return entry.bearer
            if status == HTTPStatus.UNAUTHORIZED:
                sign_ins.keep(self.url, entry.ended())
                sentence = f"Your sign-in at {self.url} has ended. Sign in again with: halyard login"
                raise Failed(Exit.FORBIDDEN, sentence, answer)
            raise refused(status, answer, self.url)


def _reason(error: Exception) -> str:
    """Return why a connection failed: as the system says it, where it does."""
    inner = getattr(error, "os_error", error)
    number = getattr(inner, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(inner, "strerror", None) or str(error) or type(error).__name__


def path_of(*parts: str) -> str:
    """Return a path of parts that may hold anything; a part that begins with a colon is a verb of the one before."""
    return "".join(part if part.startswith(":") else f"/{quote(part, safe='@')}" for part in parts)


def chosen_url(given: str | None) -> str:
    """Return the authority that is meant: the one that is given, or else the last one that was signed in at.

    Raises:
        Failed: it is no URL.
    """
    url = (given or sign_ins.load().url or sign_ins.DEFAULT_URL).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Failed(Exit.USAGE, f"--url must begin with http:// or https://, which {url!r} does not.")
    return url


def entry_at(url: str) -> SignIn:
    """Return what is kept for an authority."""
    return sign_ins.load().at(url)


def _parameters(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a query as it is sent: nothing for None, a list once for each entry."""
    return [
        (name, str(each).lower() if isinstance(each, bool) else str(each))
        for name, value in query.items()
        for each in (value if isinstance(value, list | tuple) else [value])
        if each is not None
    ]


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        return None
