"""The answer to a write, made from what was done before the route can make its own.

It is kept in the transaction of the write, for the case that the process dies before the route has answered; whoever
sends the write again then gets this. The route's own answer takes its place, and mostly equals it.
"""

from typing import Any

from fastapi import Request, Response
from sqlalchemy import Connection

from upstream.api.answers import changed, created, gone
from upstream.api.flag_states import states
from upstream.api.shapes import shape
from upstream.authority import Outcome
from upstream.domain.entities import Credential, CredentialKind, Flag, FlagConfig


def first_answer(request: Request, connection: Connection, outcome: Outcome) -> Response:
    """Return what the route of the request will answer, as far as the outcome tells."""
    status = request.scope["route"].status_code or 200
    if status == 204:  # noqa: PLR2004 - the status itself
        return gone()
    extra = _extra(connection, outcome)
    if status == 201:  # noqa: PLR2004 - the status itself
        return created(outcome, _location(request, outcome), extra)
    return changed(outcome, extra)


def _extra(connection: Connection, outcome: Outcome) -> dict[str, Any]:
    entity = outcome.entity
    if isinstance(entity, Flag):
        return states_of(connection, entity)
    if isinstance(entity, FlagConfig):
        return names_of(connection, entity)
    if isinstance(entity, Credential) and outcome.secret is not None:
        return {"token" if entity.kind is CredentialKind.TOKEN else "key": outcome.secret}
    return {} if outcome.secret is None else {"secret": outcome.secret}


def _location(request: Request, outcome: Outcome) -> str:
    """Return where the new thing is: in the list that was posted to, or in which the copied thing is."""
    path, shown = request.scope["path"], shape(outcome.entity)
    parent, _, last = path.rpartition("/")
    word, _, verb = last.partition(":")
    is_list = not verb or request.scope["route"].path.rpartition("/")[2].startswith(f"{word}:")
    return f"{f'{parent}/{word}' if is_list else parent}/{shown.get('key') or shown['id']}"
