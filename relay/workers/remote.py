"""What a worker leaves to worker 0, over its Unix socket: events, counts, kills.

Nothing is answered here before worker 0 has answered, and its refusals are passed on as they are. Counts are sent with
an id until there is an answer, so that none is lost or kept twice by a connection that broke. Keeps nothing itself.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final
from uuid import uuid4

import aiohttp
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from yarl import URL

from relay.clock import Clock
from relay.errors import Problem
from relay.events.disk import SpoolError
from relay.events.intake import Accepted
from relay.protocol.edge import KILL_PATH
from relay.protocol.events import Event, encode_event
from relay.serve.bodies import read_body
from relay.serve.problems import unavailable
from relay.settings import Limits
from relay.sync.overlays import OverlayBoard
from relay.workers.link import BATCH_HEADER, RECORDS_PATH, TRACK_PATH

logger = logging.getLogger(__name__)

ORIGIN: Final = "http://worker-0"
_ACCEPTED: Final = 202
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)
_REPEAT_AFTER_S: Final = 0.1
_OBEYED_WITHIN_S: Final = 1.0
_PASSED_UP: Final = ("authorization", "x-api-key", "content-type", "x-request-id")
_PASSED_DOWN: Final = ("content-type", "retry-after")
_AWAY: Final = "Worker 0 of this relay does not answer; try again."


class RemoteIntake:
    """Events go onto the disk of worker 0."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def accept(self, environment_id: str, events: Sequence[Event]) -> Accepted:
        """See `relay.events.intake.Intake.accept`."""
        now_ms = self._clock.wall_ms()
        body = b"\n".join(encode_event(environment_id, event, now_ms) for event in events)
        status, headers, answer = await _ask(self._session, TRACK_PATH, body, {})
        read = orjson.loads(answer)
        if status != _ACCEPTED:
            retry = {"Retry-After": headers["Retry-After"]} if "Retry-After" in headers else None
            raise Problem(status, read["code"], read["detail"], headers=retry)
        return Accepted(read["accepted"], read["duplicates"])


class RemoteSink:
    """Counts go onto the disk of worker 0."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()

    def append(self, records: Sequence[bytes]) -> Coroutine[Any, Any, None]:
        """See `relay.events.counters.Sink.append`. A caller that is cancelled does not end what is under way."""
        delivery = asyncio.create_task(self._deliver(uuid4().hex, b"\n".join(records)))
        self._under_way.add(delivery)
        delivery.add_done_callback(self._under_way.discard)

        async def delivered() -> None:
            await asyncio.shield(delivery)

        return delivered()

    async def settled(self) -> None:
        """Return once nothing is under way; log what worker 0 would not take, as nobody sends it again."""
        outcomes = await asyncio.gather(*self._under_way, return_exceptions=True)
        for refused in (each for each in outcomes if isinstance(each, BaseException)):
            logger.error("evaluation counts were lost at the end of this worker", exc_info=refused)

    async def _deliver(self, batch_id: str, body: bytes) -> None:
        while True:
            try:
                status, _, answer = await _ask(self._session, RECORDS_PATH, body, {BATCH_HEADER: batch_id})
            except Problem:
                # Nobody knows whether it was kept; with the same id it can be sent again.
                await self._clock.sleep(_REPEAT_AFTER_S)
                continue
            if status >= 400:  # noqa: PLR2004 - HTTP statuses are their own names
                raise SpoolError(f"worker 0 does not take them: {status} {answer[:200].decode(errors='replace')}")
            return


class RemoteKill:
    """Kills are decided and recorded by worker 0; the answer is its own."""

    def __init__(self, session: aiohttp.ClientSession, overlays: OverlayBoard, limits: Limits) -> None:
        self._session = session
        self._overlays = overlays
        self._limits = limits

    def routes(self) -> Sequence[BaseRoute]:
        """Return the route."""
        return [Route(KILL_PATH, self.kill, methods=["POST"])]

    async def kill(self, request: Request) -> Response:
        """Pass the request on, and answer once the flag is off here too."""
        body = await read_body(request.scope, request.receive, self._limits.context_bytes, self._limits.body_s)
        passed = {name: request.headers[name] for name in _PASSED_UP if name in request.headers}
        path = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("latin-1")
        status, headers, answer = await _ask(self._session, path, body, passed)
        if status == _ACCEPTED:
            overlay_id = orjson.loads(answer)["id"]
            if not await self._overlays.wait_for(overlay_id, _OBEYED_WITHIN_S):
                logger.warning("a kill that worker 0 has taken has not arrived here yet", extra={"id": overlay_id})
        shown = {name: headers[name] for name in _PASSED_DOWN if name in headers}
        return Response(answer, status, shown)


async def _ask(
    session: aiohttp.ClientSession, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, Any, bytes]:
    """Send one request to worker 0.

    Raises:
        Problem: 503, there is no answer, and what was asked may or may not have been done.
    """
    try:
        async with session.post(
            URL(ORIGIN + path, encoded=True), data=body, headers=headers, timeout=_TIMEOUT
        ) as answer:
            return answer.status, answer.headers, await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        logger.warning("worker 0 does not answer", extra={"path": path, "reason": f"{type(error).__name__}: {error}"})
        raise unavailable("worker_0_away", _AWAY) from error
