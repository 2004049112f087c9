"""What worker 0 does for the others: one small app on a Unix socket.

The change stream of everything it holds, kills, events onto the disk, counts onto the disk exactly once, and the
reports in which they tell how they are. A request without this start's secret gets nothing. Streams here are neither
counted nor limited with those of clients, and last until the process ends, also during a drain.
"""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.errors import Problem
from relay.events.counters import Sink
from relay.events.disk import SpoolError
from relay.metrics import RelayMetrics
from relay.protocol.events import EventRecord, parse_record
from relay.serve.app import route
from relay.serve.bodies import read_body
from relay.serve.broadcast import Broadcast
from relay.serve.guard import AsgiApp, Guard, Receive, Scope, Send, header
from relay.serve.problems import unavailable
from relay.serve.server_stream import ChangeStreamRoute
from relay.serve.services import Services
from relay.settings import Serve, Streams
from relay.workers.access import WorkerAccess
from relay.workers.link import BATCH_HEADER, FIGURES_PATH, RECORDS_PATH, SECRET_HEADER, TRACK_PATH

BODY_BYTES: Final = 16 << 20
BODY_S: Final = 10.0
MAX_REMEMBERED_BATCHES: Final = 1_000
_FOR_EVER_S: Final = 1e9
_SEND_BUFFER_BYTES: Final = 1 << 20
_RETRY_AFTER_S: Final = 1


class Desk:
    """The app.

    Args:
        services: of the app that serves clients.
        spool: where counts go.
        report: told what a worker says of itself, as JSON.
        secret: what a worker shows.
        kill_routes: the routes by which flags are killed here.
    """

    def __init__(
        self,
        services: Services,
        spool: Sink,
        report: Callable[[Any], None],
        secret: str,
        kill_routes: Sequence[BaseRoute],
    ) -> None:
        self._secret = secret.encode()
        self._store, self._intake = services.store, services.intake
        self._report = report
        self._batches = Batches(spool)
        followed = _for_workers(services)
        self.streams = followed.streams
        table: list[BaseRoute] = [
            Route("/api/v2/stream", ChangeStreamRoute(followed), methods=["GET"]),
            Route(TRACK_PATH, self._track, methods=["POST"]),
            Route(RECORDS_PATH, self._records, methods=["POST"]),
            Route(FIGURES_PATH, self._figures, methods=["POST"]),
            *kill_routes,
        ]
        self.app: AsgiApp = Guard(self._checked(route(table)), services.settings.limits, followed.metrics)

    def _checked(self, app: AsgiApp) -> AsgiApp:
        async def checked(scope: Scope, receive: Receive, send: Send) -> None:
            shown = header(scope, SECRET_HEADER.lower().encode())
            if not hmac.compare_digest(shown or b"", self._secret):
                raise Problem(403, "not_a_worker", "Only the workers of this relay are served here.")
            await app(scope, receive, send)

        return checked

    async def _track(self, request: Request) -> Response:
        """Answer once the events are as safe as the operator asked for."""
        records = [parse_record(orjson.loads(line)) for line in (await _body(request)).split(b"\n")]
        events = [record.event for record in records if isinstance(record, EventRecord)]
        accepted = await self._intake.accept(records[0].environment_id, events)
        return _json(202, {"accepted": accepted.accepted, "duplicates": accepted.duplicates})

    async def _records(self, request: Request) -> Response:
        """Answer once the counts are on the disk, however often they are sent."""
        body = await _body(request)
        await self._batches.keep(request.headers[BATCH_HEADER], body.split(b"\n"))
        return Response(status_code=204)

    async def _figures(self, request: Request) -> Response:
        """Take note; answer with what is held, as an empty list is something that no stream tells."""
        self._report(orjson.loads(await _body(request)))
        return _json(200, {"environments": sorted(self._store.configurations)})


class Batches:
    """Puts batches of records into the spool, each once, however often and however close together it comes."""

    def __init__(self, spool: Sink) -> None:
        self._spool = spool
        self._kept: dict[str, asyncio.Future[None]] = {}

    async def keep(self, batch_id: str, records: Sequence[bytes]) -> None:
        """Return once the records are kept.

        Raises:
            Problem: 503, none of them was kept; the same batch may come again.
        """
        keeping = self._kept.get(batch_id)
        if keeping is None:
            keeping = self._kept[batch_id] = asyncio.ensure_future(self._append(records))
            self._forget_one()
        try:
            # Whoever sent it may be gone before the disk is done: that must neither end nor repeat it.
            await asyncio.shield(keeping)
        except SpoolError as error:
            raise unavailable("spool_unavailable", f"Counts cannot be taken now: {error}.", _RETRY_AFTER_S) from error
        finally:
            if keeping.done() and not keeping.cancelled() and keeping.exception() is not None:
                self._kept.pop(batch_id, None)

    def _forget_one(self) -> None:
        """Keep the number of batches that are remembered; one that is still being written must not come twice."""
        if len(self._kept) > MAX_REMEMBERED_BATCHES:
            finished = next((each for each, keeping in self._kept.items() if keeping.done()), None)
            if finished is not None:
                del self._kept[finished]

    async def _append(self, records: Sequence[bytes]) -> None:
        await self._spool.append(records)


def _for_workers(services: Services) -> Services:
    """Return the services of the stream that workers follow; their streams and requests count nowhere."""
    store, clock, metrics = services.store, services.clock, RelayMetrics()
    streams_of_workers = Streams(lifetime_s=_FOR_EVER_S, send_buffer_bytes=_SEND_BUFFER_BYTES)
    settings = Serve(limits=services.settings.limits, streams=streams_of_workers)
    access = WorkerAccess(store, clock, metrics)
    streams = Broadcast(store, access, settings.streams, clock, metrics)
    return replace(services, access=access, streams=streams, settings=settings, metrics=metrics)


async def _body(request: Request) -> bytes:
    return await read_body(request.scope, request.receive, BODY_BYTES, BODY_S)


def _json(status: int, body: Any) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
