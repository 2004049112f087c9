"""What every route of the management API works with, put together once by `upstream.api.app`.

Routes find it on the app's state; nothing here is global, so two apps in one process never share anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from relay.clock import Clock
from upstream.api.accounts import Accounts
from upstream.api.attempts import Running
from upstream.api.authenticator import Authenticator
from upstream.api.passwords import Passwords
from upstream.api.rate_limit import RequestLimits
from upstream.api.sign_in import SignIn
from upstream.authority import Authority
from upstream.domain.entities import FlagKind
from upstream.domain.stale import Thresholds
from upstream.settings import Auth, UpstreamLimits
from upstream.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts behind the routes: `authority` changes things, `database` is for reading.

    `stale` says when a flag of each kind is.
    """

    authority: Authority
    database: Database
    clock: Clock
    limits: UpstreamLimits
    auth: Auth
    authenticator: Authenticator
    passwords: Passwords
    sign_in: SignIn
    accounts: Accounts
    requests: RequestLimits
    stale: Mapping[FlagKind, Thresholds]
    running: Running = field(default_factory=Running)


def services_of(request: Request) -> Services:
    """Return the services of the app that serves this request."""
    services: Services = request.app.state.services
    return services


async def served(request: Request) -> Services:
    """Return the services. Like every dependency a coroutine: others are run in a thread, which costs far more."""
    return services_of(request)


Served = Annotated[Services, Depends(served)]
