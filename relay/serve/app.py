"""The ASGI app for applications, SDKs and followers: every route of the evaluation plane, by path.

The relay serves it on its port; the upstream mounts the same app beside its management routes. Request and answer go
through Starlette's router and responses; streams are raw ASGI. Knows where things are and nothing else.
"""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route, Router

from relay.errors import Problem
from relay.serve.client_stream_route import ClientStreamRoute
from relay.serve.cors import Cors
from relay.serve.event_streams import STREAM_PATH
from relay.serve.flags_api import FlagsApi
from relay.serve.guard import AsgiApp, Guard, Receive, Scope, Send
from relay.serve.ofrep import Ofrep
from relay.serve.ofrep_stream import OfrepStreamRoute
from relay.serve.server_stream import ChangeStreamRoute
from relay.serve.services import Services
from relay.serve.traced import Traced, templates
from relay.telemetry import NO_TRACING, Tracing


def routes(services: Services) -> list[BaseRoute]:
    """Return the routes of the evaluation plane."""
    ofrep, flags = Ofrep(services), FlagsApi(services)
    return [
        Route("/ofrep/v1/evaluate/flags", ofrep.bulk, methods=["POST"]),
        # `path`, as some clients do not encode the key.
        Route("/ofrep/v1/evaluate/flags/{key:path}", ofrep.single, methods=["POST"]),
        Route(STREAM_PATH, OfrepStreamRoute(services), methods=["GET"]),
        Route("/api/v2/evaluate", flags.evaluate, methods=["POST"]),
        Route("/api/v2/bootstrap", flags.bootstrap, methods=["POST"]),
        Route("/api/v2/track", flags.track, methods=["POST"]),
        Route("/api/v2/client/stream", ClientStreamRoute(services), methods=["GET", "POST"]),
        Route("/api/v2/stream", ChangeStreamRoute(services), methods=["GET"]),
    ]


def build_app(services: Services, more_routes: Sequence[BaseRoute] = (), tracing: Tracing = NO_TRACING) -> AsgiApp:
    """Return the app. `more_routes` are matched after its own, under the same guard."""
    table = [*routes(services), *more_routes]
    app = Cors(Guard(route(table), services.settings.limits, services.metrics), services.access)
    return app if tracing is NO_TRACING else Traced(app, tracing, templates(table))


def route(table: Sequence[BaseRoute]) -> AsgiApp:
    """Return a router whose refusals are exceptions, so that `Guard` renders them."""
    router = Router(table, redirect_slashes=False, default=_nothing_here)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # With an app in the scope the router raises 405 in place of sending a text of its own.
        scope.setdefault("app", app)
        await router(scope, receive, send)

    return app


async def _nothing_here(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Problem(404, "not_found", f"There is nothing at this path for {scope.get('method', 'this protocol')}.")
