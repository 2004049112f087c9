"""How a write is carried out: at once, only tried (`?dry_run=1`), at a time (`?schedule_at=`) or after a review.

A route that changes something takes `doing: Doing` and awaits `doing(command, actor)`. Where the caller asked for
something else than the change, that call does not return: it raises `Diverted` with the answer. With an
Idempotency-Key, effect and outcome are stored in one transaction; so a request carries out one command, or one batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from relay.clock import parse_rfc3339_ms
from relay.errors import Problem
from upstream.api.answers import Json, one
from upstream.api.body import faults_of, invalid_body
from upstream.api.idempotency import attempt_of, request_hash
from upstream.api.services import Served, Services
from upstream.authority import Once, Outcome
from upstream.domain.commands import Command
from upstream.domain.entities import ChangeRequest, Schedule
from upstream.domain.errors import Kind, Rejected
from upstream.domain.nearest import hint
from upstream.domain.permissions import Actor
from upstream.storage.deferral import Rehearsal


class Diverted(Exception):
    """Ends a request with an answer other than the route's own."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What one request wants done with its command: to carry it out, unless one of these says otherwise."""

    request: Request
    services: Services
    is_dry_run: bool = False
    schedule_at: int | None = None
    propose: str | None = None
    propose_to: str | None = None

    async def __call__(self, command: Command, actor: Actor) -> Outcome:
        """Carry out the command.

        Raises:
            Diverted: the caller wants to see what would happen, or it is kept for later.
            Problem: the body has faults, of form and perhaps of meaning; nothing changed.
            Rejected: the command is refused; nothing changed.
            KeyTaken: another process has carried it out under the same Idempotency-Key; nothing changed.
            Unavailable: the database cannot take it now; nothing changed.
        """
        faults = faults_of(self.request.scope)
        if faults is not None:
            raise await self._judged_whole(faults, command, actor)
        if self.is_dry_run:
            raise Diverted(Json({"dry_run": True, **(await self._tried(command, actor)).shown()}))
        outcome = await self._outcome(command, actor)
        if isinstance(outcome.entity, Schedule) and self.schedule_at is not None:
            raise _kept(outcome.entity, "schedules")
        if isinstance(outcome.entity, ChangeRequest) and (self.propose is not None or self.propose_to is not None):
            raise _kept(outcome.entity, "change-requests")
        return outcome

    async def _tried(self, command: Command, actor: Actor) -> Rehearsal:
        is_reviewed = self.propose is not None or self.propose_to is not None
        return await self.services.authority.preview(command, actor, is_reviewed=is_reviewed)

    async def _judged_whole(self, faults: Problem, command: Command, actor: Actor) -> Problem:
        """Return the refusal of a body with faults of form, and beside these what is wrong with the rest of it."""
        try:
            await self._tried(command, actor)
        except Rejected as rejected:
            if rejected.kind is Kind.INVALID:
                # What is said of the body as a whole may only mean the members that were left out.
                errors = {path: found for path, found in rejected.errors.items() if path} | faults.errors
                return invalid_body({path: list(sentences) for path, sentences in errors.items()})
        return faults

    async def _outcome(self, command: Command, actor: Actor) -> Outcome:
        attempt = attempt_of(self.request.scope)
        if attempt is None:
            return await self._carried_out(command, actor)
        if attempt.outcome is not None:
            # Done by an earlier request that was not answered.
            return attempt.outcome
        return await self._carried_out(command, actor, attempt.once(await request_hash(self.request, attempt)))

    async def _carried_out(self, command: Command, actor: Actor, once: Once | None = None) -> Outcome:
        authority = self.services.authority
        if self.schedule_at is not None:
            return await authority.schedule(command, actor, self.schedule_at, once)
        if self.propose is not None:
            return await authority.propose(command, actor, self.propose, once)
        if self.propose_to is not None:
            return await authority.propose_to(command, actor, self.propose_to, once)
        return await authority.execute(command, actor, once)


async def asked_performance(
    request: Request,
    services: Served,
    dry_run: Annotated[  # noqa: FBT002 - a query parameter
        bool, Query(description="Answer with what would change and who would feel it, and change nothing.")
    ] = False,
    schedule_at: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Try this now and carry it out at that time (RFC 3339, at most a year ahead); answers 202.",
        ),
    ] = None,
    propose: Annotated[
        str | None,
        Query(max_length=200, description="Open a change request with this title instead of the change; answers 202."),
    ] = None,
    propose_to: Annotated[
        str | None,
        Query(max_length=64, description="Add this to your open change request with that id; answers 202."),
    ] = None,
) -> Performance:
    """Return what the request wants.

    Raises:
        Problem: 422 where these do not go together, one is not known, or the time is none.
    """
    known = _query_names(request.scope["route"]) if request.query_params else frozenset()
    unknown = {name: f"There is no such parameter; {hint(name, known)}" for name in request.query_params.keys() - known}
    if unknown:
        # A misspelt `dry_run` must not become the change itself.
        raise _bad_parameters(dict(sorted(unknown.items())))
    given = {"schedule_at": schedule_at, "propose": propose, "propose_to": propose_to}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        sentence = "Give only one of these; an approved change request is scheduled by its :apply."
        raise _bad_parameters(dict.fromkeys(named, sentence))
    return Performance(
        request=request,
        services=services,
        is_dry_run=dry_run,
        schedule_at=None if schedule_at is None else _moment(schedule_at),
        propose=propose,
        propose_to=propose_to,
    )


def _query_names(route: APIRoute) -> frozenset[str]:
    """Return the names of the query parameters that a route takes, its dependencies' among them."""
    found = get_flat_params(route.dependant)
    return frozenset(each.alias for each in found if isinstance(each.field_info, params.Query))


def _moment(text: str) -> int:
    try:
        return parse_rfc3339_ms(text)
    except (ValueError, OverflowError):
        # A plus sign in a query is a space, which is what most people meet here.
        sentence = "This must be an RFC 3339 time such as 2026-11-21T06:30:00Z; write + as %2B."
        raise _bad_parameters({"schedule_at": sentence}) from None


def _bad_parameters(errors: Mapping[str, str]) -> Problem:
    detail = f"These parameters cannot be used: {', '.join(errors)}."
    listed = {name: [sentence] for name, sentence in errors.items()}
    return Problem(422, "invalid_parameters", detail, errors=listed)


Doing = Annotated[Performance, Depends(asked_performance)]


def _kept(entity: Schedule | ChangeRequest, collection: str) -> Diverted:
    """Return the answer to what is kept for later: 202, where it is, and in it what it would do."""
    answer = one(entity, status=202)
    answer.headers["Location"] = f"/api/v2/projects/{entity.project_id}/{collection}/{entity.id}"
    return Diverted(answer)
