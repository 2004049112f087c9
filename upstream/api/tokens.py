"""`/tokens`: API tokens. The raw token is in the answer that creates it, and nowhere else ever."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import Body, JsonBody, Moment, absent
from upstream.api.caller import KeyReader, KeyWriter
from upstream.api.credentials import IncludeRevoked, ProjectFilter, RotateBody, WithCredential, with_credential
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.places import project_at
from upstream.api.services import Served
from upstream.domain.access_commands import (
    CreateToken,
    RevokeToken,
    RotateToken,
    UpdateToken,
)
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.permissions import SCOPES, Action
from upstream.storage import reads

router = APIRouter(prefix="/tokens", tags=["tokens"])

TokenRead = Annotated[WithCredential, Depends(with_credential(Action.KEYS_READ, "token"))]
TokenWrite = Annotated[WithCredential, Depends(with_credential(Action.KEYS_WRITE, "token"))]


class CreateTokenBody(Body):
    """A new token, which may do no more than whoever creates it."""

    name: str
    scopes: list[str] = Field(description=f"Some of: {', '.join(SCOPES)}.")
    projects: list[str] | None = Field(default=None, description="Ids or keys; by default all of the organisation.")
    expires_at: Moment | None = None


class UpdateTokenBody(Body):
    """What to change of a token; what it may do is fixed."""

    name: str = absent()
    expires_at: Moment | None = absent()


@router.get("")
async def list_tokens(
    actor: KeyReader,
    page: Paged,
    services: Served,
    project: ProjectFilter = None,
    include_revoked: IncludeRevoked = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """List the tokens, without their texts, with their last use."""

    def look(connection: Connection) -> Found[Credential]:
        wanted = reads.CredentialFilter(
            kinds=(CredentialKind.TOKEN,),
            project_id=None if project is None else project_at(connection, actor, project).id,
            include_revoked=include_revoked,
        )
        mine, query = actor.organisation_id, page.query(Credential)
        return Found.of(reads.list_credentials(connection, mine, query, wanted, visible=actor.projects))

    return Json((await services.database.read(look)).shown(page, shapes.credential))


@router.post("", status_code=201)
async def create_token(
    actor: KeyWriter,
    body: Annotated[CreateTokenBody, Depends(JsonBody(CreateTokenBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Create a token; `token` in the answer is shown this once."""
    outcome = await doing(CreateToken(**body.given()), actor)
    location = f"/api/v2/tokens/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"token": outcome.secret})


@router.get("/{id}")  # noqa: FAST003 - `TokenRead` takes it
async def read_token(at: TokenRead) -> Response:
    """Return one token, without its text."""
    return one(at.credential)


@router.put("/{id}")
@router.patch("/{id}")
async def update_token(
    at: TokenWrite,
    if_match: IfMatch,
    body: Annotated[UpdateTokenBody, Depends(JsonBody(UpdateTokenBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Change a token's name or end."""
    command = UpdateToken(credential=at.credential.id, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


@router.post("/{id}:rotate", status_code=201)
async def rotate_token(
    at: TokenWrite, body: Annotated[RotateBody, Depends(JsonBody(RotateBody, is_required=False))], doing: Doing
) -> Response:
    """Make a token's successor, which may do the same; `token` in the answer is shown this once."""
    outcome = await doing(RotateToken(credential=at.credential.id, overlap_ms=body.overlap_s * 1_000), at.actor)
    location = f"/api/v2/tokens/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"token": outcome.secret})


@router.delete("/{id}", status_code=204)  # noqa: FAST003 - `TokenWrite` takes it
async def revoke_token(at: TokenWrite, doing: Doing) -> Response:
    """Revoke a token; it is refused from the next request on."""
    await doing(RevokeToken(credential=at.credential.id), at.actor)
    return gone()
