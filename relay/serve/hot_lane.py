"""A connection whose evaluation requests are answered from the raw bytes: `LimitedProtocol` with a shorter way.

A segment that is exactly one request in strict form, on a connection with nothing else under way, is given to the
lane and its answer written at once. Every other segment, and whatever the lane will not decide, is the parser's, as if
there were no lane: so limits, errors, pipelining and streams exist once. No request here is ever under way when
anything else happens on the connection, and so shutting down has nothing to wait for.
"""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from relay.metrics import Tally
from relay.serve.http_limits import LimitedProtocol
from relay.serve.lane import Lane
from relay.serve.turnstile import Turnstile
from relay.settings import Limits


class HotProtocol(LimitedProtocol):
    """One connection. `_answered_s` is the loop's time of the last answer in the lane.

    The keep-alive timer is not set anew for each of those answers; it looks at that time when it is due.
    """

    def __init__(  # noqa: PLR0913 - uvicorn's, and what is ours
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        refused: Tally,
        turnstile: Turnstile,
        lane: Lane,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, limits=limits, refused=refused, turnstile=turnstile)
        self._packing = lane.packing
        self._answer = lane.answer
        self._is_offered_gzip = False
        self._answered_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        super().connection_made(transport)
        self._is_offered_gzip = self._packing.is_offered(self.client)

    def data_received(self, data: bytes) -> None:
        """Answer a request at once, or let the parser have it."""
        if self._is_free:
            answer = self._answer(data, self.server_state.default_headers, is_offered_gzip=self._is_offered_gzip)
            if answer is not None:
                self._answered_s = self.loop.time()
                if len(answer) == 1:
                    self.transport.write(answer[0])
                else:
                    self.transport.writelines(answer)
                return
        super().data_received(data)

    @property
    def _is_free(self) -> bool:
        """Whether the parser stands between two requests, all before are answered, and the client takes answers."""
        return (
            not self._fed_bytes
            and not self._head_is_open
            # One that is answered may have a body to come still, none of which was fed if its head came with another's.
            and (self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body))
            and self._refusal is None
            and not self._is_lingering
            and not self.flow.write_paused
            and len(self.connections) <= self._limits.connections
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for the whole keep-alive time, or look again when it may have."""
        idle_s = self.loop.time() - self._answered_s
        if idle_s < self.timeout_keep_alive:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive - idle_s, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()
