"""Runs one ASGI app on one listener: uvicorn's machinery, with our start, our stop and our limits.

Signals, sockets and the order of ending belong to the process (`relay.drain`), so uvicorn's own handling of them is
not used: the socket is bound before anything else is started, so that a port in use is found at once and port 0 is
known; `stop_accepting` and `stop` are separate steps. The internals of uvicorn that this relies on are pinned in
pyproject.toml and named in tests/relay/test_server.py.
"""

import asyncio
import functools
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

import uvicorn

from relay.errors import BadSettings
from relay.metrics import Tally
from relay.serve.accepting import Acceptor
from relay.serve.hot_lane import HotProtocol
from relay.serve.http_limits import LimitedProtocol
from relay.serve.lane import Lane
from relay.serve.turnstile import Turnstile
from relay.settings import Serve

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

TICK_S = 0.1


def listen(host: str, port: int, backlog: int, setting: str, *, is_shared: bool = False) -> socket.socket:
    """Bind and listen; `is_shared` joins those who listen there already and have let it be shared.

    Raises:
        BadSettings: nobody can listen there, naming `setting`, such as `relay.serve.port`.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for TIME_WAIT
        if is_shared:
            share(listener)
        try:
            listener.bind(address)
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        message = f"{setting}: cannot listen on {host}:{port}: {error.strerror or error}"
        raise BadSettings([message]) from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener


def share(listener: socket.socket) -> None:
    """Let other processes of this user listen on the same port.

    Done after `listen`, the port has been somebody's alone at one moment: two services that were given the same port by
    mistake are refused as ever, which sharing from the start would let pass.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


class HttpServer:
    """One app on one listening socket, in the event loop that `start` is called in.

    Args:
        app: what answers.
        listener: a socket made by `listen`; owned from now on.
        settings: limits and time-outs of the listener.
        refused: counts connections ended for breaking a limit.
        lane: answers evaluations that come in strict form; without one, the app answers everything.
    """

    def __init__(
        self, app: App, listener: socket.socket, settings: Serve, refused: Tally, lane: Lane | None = None
    ) -> None:
        self._turnstile = Turnstile()
        common: dict[str, Any] = {"limits": settings.limits, "refused": refused, "turnstile": self._turnstile}
        protocol = (
            functools.partial(LimitedProtocol, **common)
            if lane is None
            else functools.partial(HotProtocol, lane=lane, **common)
        )
        config = uvicorn.Config(
            cast("Any", app),
            http=cast("type[asyncio.Protocol]", protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=settings.backlog,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_keep_alive=settings.keep_alive_s,
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._acceptor = Acceptor(listener, self._new_protocol)
        self._ticking: asyncio.Task[None] | None = None
        name = listener.getsockname()
        self.host, self.port = name[:2] if isinstance(name, tuple) else (name, 0)  # a Unix socket has a path

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._server.server_state.connections)

    @property
    def is_accepting(self) -> bool:
        """Whether the listener is open."""
        return self._acceptor.is_accepting

    async def start(self) -> None:
        """Accept connections from now on."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        self._server.started = True
        self._acceptor.start()
        # Keeps the Date header right; uvicorn's own loop also watches for signals and limits that are not used here.
        self._ticking = asyncio.create_task(self._server.main_loop(), name=f"http ticks :{self.port}")

    def _new_protocol(self) -> asyncio.Protocol:
        server = self._server
        return server.config.http_protocol_class(
            config=server.config, server_state=server.server_state, app_state={}, _loop=asyncio.get_running_loop()
        )  # type: ignore[call-arg]

    async def stop_accepting(self) -> None:
        """Close the listener; open connections and their requests go on, but are not kept alive after them."""
        self._acceptor.stop()
        await self._acceptor.settled()
        self._listener.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()

    async def stop(self, limit_s: float) -> None:
        """End every connection: those with a request under way within `limit_s`, then cut."""
        await self.stop_accepting()
        state = self._server.server_state
        try:
            async with asyncio.timeout(limit_s):
                while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn keeps sets, not events
                    await asyncio.sleep(TICK_S / 10)
        except TimeoutError:
            logger.warning("cutting connections that did not end", extra={"connections": len(state.connections)})
            for task in list(state.tasks):
                task.cancel()
            for connection in list(state.connections):
                cast("LimitedProtocol", connection).transport.abort()
        self._turnstile.close()
        if self._ticking is not None:
            self._ticking.cancel()
