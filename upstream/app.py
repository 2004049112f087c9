"""The upstream's one ASGI app: the relay's evaluation plane and streams, and behind them the management API.

What applications and relays ask is answered by the very code that a relay runs, on a store that the change log feeds
in this process; everything else goes to the management API. Knows how the parts fit and nothing else.
"""

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.routing import BaseRoute, Match, Mount

from relay.clock import Clock
from relay.metrics import RelayMetrics
from relay.serve.access import Access
from relay.serve.app import build_app, routes
from relay.serve.guard import AsgiApp, Scope
from relay.serve.health import Health, health_routes
from relay.serve.services import Services
from upstream.api import changes as change_routes
from upstream.api import ingest as ingest_routes
from upstream.api.accounts import SetupToken
from upstream.api.app import create_api
from upstream.api.passwords import Passwords
from upstream.authority import Authority
from upstream.ingest import Ingest
from upstream.settings import UpstreamSettings
from upstream.status import StatusPage
from upstream.storage.database import Database


def build_upstream(  # noqa: PLR0913 - the parts, one by one
    *,
    settings: UpstreamSettings,
    services: Services,
    health: Health,
    authority: Authority,
    database: Database,
    passwords: Passwords,
    signing_key: str,
    clock: Clock,
    metrics: RelayMetrics,
    setup: SetupToken | None = None,
) -> AsgiApp:
    """Return the app."""
    relays = relay_routes(services.access, Ingest(database, clock, settings.serve.limits))
    api = create_api(
        authority=authority,
        database=database,
        clock=clock,
        settings=settings,
        signing_key=signing_key,
        metrics_of=metrics,
        passwords=passwords,
        setup=setup,
        routers=(relays,),
    )
    page = StatusPage(health, api.state.services.authenticator, database)
    # The relay's own status names every environment, which is for its operator's eyes; so the first of the two counts.
    probes = [page.route(), *health_routes(health, with_metrics=settings.metrics.enabled)]
    ours = [*routes(services), *probes]
    return build_app(services, more_routes=[*probes, Rest(api, ours)])


def relay_routes(access: Access, ingest: Ingest) -> APIRouter:
    """Return what relays hand over to: the only routes of the API that take their keys."""
    relays = APIRouter(prefix="/api/v2")
    relays.include_router(ingest_routes.router(access, ingest))
    relays.include_router(change_routes.router(access))
    return relays


class Rest(Mount):
    """Everything that no route before it knows. A known path with another method is refused by that route, with 405."""

    def __init__(self, app: AsgiApp, before: Sequence[BaseRoute]) -> None:
        super().__init__("", app=app)
        self._before = before

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether the request is for the app behind."""
        if any(route.matches(scope)[0] is Match.PARTIAL for route in self._before):
            return Match.NONE, {}
        return super().matches(scope)
