"""How a write is carried out: at once, or only tried (`?dry_run=1`), the same for every route.

A route that changes something takes `doing: Doing` and awaits `doing(command, actor)`. Where the caller asked for
something else than the change, that call does not return: it raises `Diverted` with the answer. With an
Idempotency-Key, effect and outcome are stored in one transaction; so a request carries out one command, or one batch.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from upstream.api.answers import Json
from upstream.api.idempotency import attempt_of, request_hash
from upstream.api.services import Served, Services
from upstream.api.shapes import shown_changes
from upstream.authority import Outcome, Preview
from upstream.domain.commands import Command
from upstream.domain.permissions import Actor


class Diverted(Exception):
    """Ends a request with an answer other than the route's own."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class Performance:
    """What one request wants done with its command."""

    request: Request
    services: Services
    is_dry_run: bool

    async def __call__(self, command: Command, actor: Actor) -> Outcome:
        """Carry out the command.

        Raises:
            Diverted: the caller wants to see what would happen.
            Rejected: the command is refused; nothing changed.
            KeyTaken: another process has carried it out under the same Idempotency-Key; nothing changed.
            Unavailable: the database cannot take it now; nothing changed.
        """
        if self.is_dry_run:
            raise Diverted(Json(previewed(await self.services.authority.preview(command, actor))))
        attempt = attempt_of(self.request.scope)
        if attempt is None:
            return await self.services.authority.execute(command, actor)
        if attempt.outcome is not None:
            # Done by an earlier request that was not answered.
            return attempt.outcome
        return await self.services.authority.execute(command, actor, attempt.once(await request_hash(self.request)))


def asked_performance(
    request: Request,
    services: Served,
    dry_run: Annotated[  # noqa: FBT002 - a query parameter
        bool, Query(description="Answer with what would change and who would feel it, and change nothing.")
    ] = False,
) -> Performance:
    """Return what the request wants."""
    return Performance(request, services, dry_run)


Doing = Annotated[Performance, Depends(asked_performance)]


def previewed(preview: Preview) -> dict[str, Any]:
    """Return a dry run as it is answered."""
    outcome = preview.outcome
    return {
        "dry_run": True,
        "changes": shown_changes(outcome.changes),
        "warnings": outcome.warnings,
        "affected": asdict(preview.affected),
        **(outcome.report or {}),
    }
