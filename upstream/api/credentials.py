"""What keys and tokens share in the API: who sees which, how lists of them are made, how rotation is asked for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import Depends, Path, Query
from pydantic import Field
from sqlalchemy import Connection

from upstream.api.body import Body
from upstream.api.caller import permitted
from upstream.api.services import Served
from upstream.domain.credentials import word_for
from upstream.domain.entities import Credential
from upstream.domain.errors import not_found
from upstream.domain.permissions import Action, Actor, contains
from upstream.storage import reads

_LONGEST_OVERLAP_S: Final = 30 * 86_400


class RotateBody(Body):
    """How a key is replaced."""

    overlap_s: int = Field(
        default=86_400,
        ge=0,
        le=_LONGEST_OVERLAP_S,
        description="Seconds for which the old one goes on working beside the new one; 0 revokes it at once.",
    )


@dataclass(frozen=True, slots=True)
class WithCredential:
    """A permitted caller and the key or token that the path names."""

    actor: Actor
    credential: Credential


def with_credential(action: Action, word: Literal["key", "token"]) -> Callable[..., Awaitable[WithCredential]]:
    """Return the dependency that checks a permission and finds the key, or token, of the path."""

    async def find(
        id: Annotated[str, Path(description=f"Id of the {word}.")],  # noqa: A002 - the path's name
        actor: Annotated[Actor, Depends(permitted(action))],
        services: Served,
    ) -> WithCredential:
        found = await services.database.read(lambda connection: _credential_at(connection, actor, id, word))
        return WithCredential(actor, found)

    return find


def _credential_at(connection: Connection, actor: Actor, credential_id: str, word: str) -> Credential:
    """Return the key, or token, with that id.

    Raises:
        Rejected: there is none that the caller, who may be limited to projects, may know of.
    """
    found = reads.get_credential(connection, actor.organisation_id, credential_id)
    if found is None or word_for(found) != word or not contains(actor, found.projects):
        raise not_found(word, credential_id)
    return found


ProjectFilter = Annotated[str | None, Query(alias="project", description="Only those for this project, by id or key.")]
IncludeRevoked = Annotated[bool, Query(description="List revoked ones, too.")]
