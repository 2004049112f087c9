"""`/status` of the upstream: readiness, version and totals for everybody, environments for those who may read them.

The upstream's port is public and its tenants are strangers to each other, so that what there is of whom is shown to
nobody without a credential. It answers as long as the process does: where the caller cannot be known, it shows less.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Problem
from relay.serve.access import presented_key
from relay.serve.health import Health, status
from upstream.api.authenticator import Authenticator
from upstream.domain.permissions import Action, Actor, may, reaches
from upstream.storage.database import Database, Unavailable
from upstream.storage.view import StoredView

PATH: Final = "/status"


class _Hidden(Exception):
    """The caller is not shown environments; the text says why."""


@dataclass(frozen=True, slots=True)
class StatusPage:
    """Answers `/status`."""

    health: Health
    authenticator: Authenticator
    database: Database

    def route(self) -> Route:
        """Return the route."""
        return Route(PATH, self._answer, methods=["GET"])

    async def _answer(self, request: Request) -> Response:
        shown = status(self.health)
        environments = shown.pop("environments")
        shown["totals"] = {"environments": len(environments), "flags": sum(each["flags"] for each in environments)}
        try:
            shown["environments"] = await self._visible(request, environments)
        except _Hidden as hidden:
            shown["environments_hidden"] = str(hidden)
        return Response(orjson.dumps(shown), media_type="application/json")

    async def _visible(self, request: Request, environments: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        # A probe without any credential is no failed attempt, so it is neither logged nor counted as one.
        if presented_key(request.scope) is None:
            raise _Hidden("Send an API token with flags:read, or an access token, to see environments.")
        try:
            actor = await self.authenticator.authenticate(request.scope)
            if not may(actor, Action.FLAGS_READ):
                raise _Hidden(f"This needs the permission {Action.FLAGS_READ}.")
            projects = await self.database.read(lambda connection: _projects_of(connection, actor))
        except Problem as refused:  # logged and counted by the authenticator
            raise _Hidden(refused.detail) from refused
        except Unavailable as unavailable:
            raise _Hidden("The database cannot tell now what you may see; try again.") from unavailable
        configurations = self.health.store.configurations
        return [
            each
            for each in environments
            if (held := configurations.get(each["id"])) is not None and held.state.ref.project_id in projects
        ]


def _projects_of(connection: Connection, actor: Actor) -> frozenset[str]:
    known = StoredView(connection).projects(actor.organisation_id)
    return frozenset(project.id for project in known if reaches(actor, project.id))
