"""The management API as one ASGI application: every router under `/api/v2`, one way of refusing, one document.

`create_api` builds it from the parts that the process owns; nothing is built at import time. The routes of relays
(ingest) and of the evaluation plane belong to others and are handed in, or mounted beside this app.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response
from starlette.middleware.exceptions import ExceptionMiddleware

from relay.clock import Clock
from relay.metrics import RelayMetrics
from relay.serve.guard import Guard
from upstream.api import (
    account,
    audit,
    auth,
    change_requests,
    environments,
    errors,
    explain,
    flag_bulk,
    flag_configs,
    flag_moves,
    flag_relations,
    flag_rollouts,
    flag_rules,
    flag_templates,
    flag_variations,
    flags,
    history,
    keys,
    members,
    metrics,
    organisation,
    projects,
    schedules,
    segments,
    stale,
    tokens,
    transfer,
)
from upstream.api.access_tokens import AccessTokens
from upstream.api.accounts import Accounts, SetupToken
from upstream.api.answers import Json
from upstream.api.authenticator import Authenticator
from upstream.api.docs_page import page
from upstream.api.document import describe
from upstream.api.idempotency import Idempotency
from upstream.api.limited import Limited
from upstream.api.passwords import Passwords
from upstream.api.paths import PREFIX
from upstream.api.rate_limit import AttemptLimit, RequestLimits
from upstream.api.refusals import RefusalLog
from upstream.api.services import Services
from upstream.api.sign_in import SignIn
from upstream.authority import Authority
from upstream.domain.entities import FlagKind
from upstream.domain.stale import Thresholds
from upstream.settings import UpstreamSettings
from upstream.storage.database import Database

_FLAGS: Final = (
    flag_templates,
    flag_bulk,
    flag_relations,
    flag_moves,
    flag_rules,
    flag_rollouts,
    flag_variations,
    flag_configs,
    flags,
)
_RESOURCES: Final = (
    auth,
    account,
    organisation,
    projects,
    environments,
    history,
    *_FLAGS,
    segments,
    schedules,
    change_requests,
    keys,
    tokens,
    members,
    audit,
    metrics,
    transfer,
    explain,
    stale,
)
_DESCRIPTION: Final = (
    "Every part of a path takes an id or a key. Sign in at /api/v2/auth/login, or use an API token, and send either as"
    " Authorization: Bearer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInLimits:
    """How often a password may be tried from one address for one e-mail address, or a one-time token from one."""

    attempts: int = 10
    window_s: float = 300.0
    remembered: int = 10_000


def create_api(
    *,
    authority: Authority,
    database: Database,
    clock: Clock,
    settings: UpstreamSettings,
    signing_key: str,
    metrics_of: RelayMetrics,
    passwords: Passwords,
    setup: SetupToken | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the API.

    Args:
        authority: what changes things.
        database: what is read.
        clock: the process's clock.
        settings: limits and lifetimes.
        signing_key: signs access tokens; at least 32 characters, kept over restarts.
        metrics_of: where requests and refused keys are counted.
        passwords: hashes and verifies; closed by whoever made it.
        setup: lets the first owner in; None where somebody is there already.
        routers: further routes, with their whole paths.
    """
    services = connected(
        authority=authority,
        database=database,
        clock=clock,
        settings=settings,
        signing_key=signing_key,
        metrics_of=metrics_of,
        passwords=passwords,
        setup=setup,
    )
    return _assembled(services, metrics_of, routers)


def connected(
    *,
    authority: Authority,
    database: Database,
    clock: Clock,
    settings: UpstreamSettings,
    signing_key: str,
    metrics_of: RelayMetrics,
    passwords: Passwords,
    setup: SetupToken | None = None,
    tries: SignInLimits | None = None,
) -> Services:
    """Return what the routes work with, the authenticator and signing in included; arguments as for `create_api`."""
    tries = tries or SignInLimits()
    access_tokens = AccessTokens(signing_key, clock, settings.auth.access_token_s)
    attempts = AttemptLimit(clock, attempts=tries.attempts, window_s=tries.window_s, remembered=tries.remembered)
    return Services(
        authority=authority,
        database=database,
        clock=clock,
        limits=settings.serve.limits,
        auth=settings.auth,
        authenticator=Authenticator(database, clock, access_tokens, RefusalLog(clock, metrics_of)),
        passwords=passwords,
        sign_in=SignIn(
            database=database,
            clock=clock,
            passwords=passwords,
            access_tokens=access_tokens,
            attempts=attempts,
            refresh_lifetime_s=settings.auth.refresh_token_s,
        ),
        stale={kind: Thresholds(**getattr(settings.stale, kind).model_dump()) for kind in FlagKind},
        accounts=Accounts(database=database, passwords=passwords, attempts=attempts, setup=setup),
        requests=RequestLimits(clock, settings.rate_limits),
    )


def _assembled(services: Services, metrics_of: RelayMetrics, routers: Sequence[APIRouter]) -> FastAPI:
    # FastAPI's own pages load scripts from elsewhere, and its redirects would answer what is no route.
    app = FastAPI(
        title="Halyard management API",
        version=version("halyard"),
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    for resource in _RESOURCES:
        app.include_router(resource.router, prefix=PREFIX)
    for router in routers:
        app.include_router(router)
    _add_document(app)
    errors.install(app)
    # Each stands around those before it.
    app.add_middleware(Idempotency)
    app.add_middleware(Limited)
    app.add_middleware(ExceptionMiddleware, handlers=app.exception_handlers)
    app.add_middleware(Guard, limits=services.limits, metrics=metrics_of)
    return app


def _add_document(app: FastAPI) -> None:
    # The document is asked for by FastAPI's own name, so that tools which know FastAPI find the completed one.
    app.openapi = partial(describe, app)  # type: ignore[method-assign]

    # Making it takes a tenth of a second, which the event loop must not stand still for.
    @app.get(f"{PREFIX}/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Json(await asyncio.to_thread(app.openapi))

    @app.get(f"{PREFIX}/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page(await asyncio.to_thread(app.openapi)))
