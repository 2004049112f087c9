"""A terminal in which `halyard` is typed, and servers that run beside the test in a thread of their own."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
import typer
from aiohttp import web
from typer.main import get_command
from typer.testing import CliRunner

from upstream.cli import app

T = TypeVar("T")
Handler = Callable[["Request"], Any]


@dataclass(frozen=True)
class Typed:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def done(self) -> "Typed":
        """Return this, which must have exited with 0."""
        assert self.status == 0, self
        return self


@cache
def whole_command(program: typer.Typer) -> Any:
    """Return all commands; made once, as that takes most of what a command takes in a test."""
    return get_command(program)


def halyard(*words: str, stdin: str = "") -> Typed:
    """Run one command in this process."""
    result = CliRunner().invoke(app, words, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Typed(result.exit_code, result.stdout, result.stderr)


class Beside:
    """An event loop in another thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @contextmanager
    def open(self, context: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Hold a context open in the other thread. Enters and leaves in one task, as cancel scopes must."""
        opened: asyncio.Future[T] = self._loop.create_future()
        leave = asyncio.Event()

        async def hold() -> None:
            async with context as inside:
                opened.set_result(inside)
                await leave.wait()

        held = asyncio.run_coroutine_threadsafe(hold(), self._loop)

        async def entered() -> T:
            whole = asyncio.wrap_future(held)
            both: set[asyncio.Future[Any]] = {opened, whole}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                await whole
            return opened.result()

        yield self.run(entered())
        self._loop.call_soon_threadsafe(leave.set)
        held.result(60)


@dataclass(frozen=True)
class Request:
    """One request that a stand-in got."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class StandIn:
    """Answers in place of an upstream: what the routes say, by method and path below /api/v2.

    A route is a body, a `(status, body)`, or a function of the request that returns one of these; bytes are sent raw.
    """

    url: str = ""
    routes: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def asked(self, method: str, path: str) -> list[Request]:
        """Return the requests to one route."""
        return [each for each in self.requests if (each.method, each.path) == (method, path)]

    async def answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        path = request.raw_path.partition("?")[0].removeprefix("/api/v2")
        headers = {name.lower(): value for name, value in request.headers.items()}
        got = Request(
            request.method, path, dict(parse_qsl(request.query_string)), headers, orjson.loads(raw) if raw else None
        )
        self.requests.append(got)
        found = self.routes.get(
            f"{got.method} {path}", (404, {"code": "not_found", "detail": "There is nothing here."})
        )
        if callable(found):
            found = found(got)
        status, body = found if isinstance(found, tuple) else (200, found)
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        extra = {"Location": "http://127.0.0.1:9/"} if 300 <= status < 400 else {}
        return web.Response(body=sent, status=status, headers={"Content-Type": "application/json", **extra})


@contextmanager
def standing_in(beside: Beside) -> Iterator[StandIn]:
    """Start a stand-in on a port of its own."""
    stand_in = StandIn()
    served = web.Application()
    served.router.add_route("*", "/{path:.*}", stand_in.answer)
    runner = web.AppRunner(served)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    beside.run(start())
    try:
        yield stand_in
    finally:
        beside.run(runner.cleanup())


def page(*rows: Any, total: int | None = None) -> dict[str, Any]:
    """Return a list as the API answers it."""
    whole = len(rows) if total is None else total
    return {"data": list(rows), "total": whole, "limit": 100, "offset": 0, "has_more": whole > len(rows)}
