"""`/tokens`: API tokens. The raw token is in the answer that creates it, and nowhere else ever."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, created, gone, one
from upstream.api.body import Body, JsonBody, Moment
from upstream.api.caller import KeyReader, KeyWriter
from upstream.api.credentials import credential_at, credentials_page
from upstream.api.doing import Doing
from upstream.api.paging import Found, Paged
from upstream.api.services import Served
from upstream.domain.commands import CreateToken, RevokeToken
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.permissions import SCOPES

router = APIRouter(prefix="/tokens", tags=["tokens"])


class CreateTokenBody(Body):
    """A new token, which may do no more than whoever creates it."""

    name: str
    scopes: list[str] = Field(description=f"Some of: {', '.join(SCOPES)}.")
    projects: list[str] | None = Field(default=None, description="Ids or keys; by default all of the organisation.")
    expires_at: Moment | None = None


@router.get("")
async def list_tokens(actor: KeyReader, page: Paged, services: Served) -> Response:
    """List the tokens that are not revoked, without their texts."""

    def look(connection: Connection) -> Found[Credential]:
        return credentials_page(connection, actor, page, (CredentialKind.TOKEN,))

    return Json((await services.database.read(look)).shown(page, shapes.credential))


@router.post("", status_code=201)
async def create_token(
    actor: KeyWriter, body: Annotated[CreateTokenBody, Depends(JsonBody(CreateTokenBody))], doing: Doing
) -> Response:
    """Create a token; `token` in the answer is shown this once."""
    outcome = await doing(CreateToken(**body.given()), actor)
    location = f"/api/v2/tokens/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"token": outcome.secret})


@router.get("/{id}")
async def read_token(actor: KeyReader, id: str, services: Served) -> Response:  # noqa: A002 - the path's name
    """Return one token, without its text."""
    return one(await services.database.read(lambda connection: credential_at(connection, actor, id, "token")))


@router.delete("/{id}", status_code=204)
async def revoke_token(actor: KeyWriter, id: str, services: Served, doing: Doing) -> Response:  # noqa: A002 - the path's name
    """Revoke a token; it is refused from the next request on."""
    await services.database.read(lambda connection: credential_at(connection, actor, id, "token"))
    await doing(RevokeToken(credential=id), actor)
    return gone()
