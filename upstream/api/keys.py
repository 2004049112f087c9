"""`/keys`: server, client and relay keys. The raw key is in the answer that creates it, and nowhere else ever."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Response
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
    CreateKey,
    RevokeKey,
    RotateKey,
    UpdateKey,
)
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.lookup import environment_of
from upstream.domain.permissions import Action
from upstream.storage import reads
from upstream.storage.view import StoredView

router = APIRouter(prefix="/keys", tags=["keys"])

_KINDS: Final = (CredentialKind.SERVER, CredentialKind.CLIENT, CredentialKind.RELAY)
KeyKind = Literal["server", "client", "relay"]
KeyRead = Annotated[WithCredential, Depends(with_credential(Action.KEYS_READ, "key"))]
KeyWrite = Annotated[WithCredential, Depends(with_credential(Action.KEYS_WRITE, "key"))]


class CreateKeyBody(Body):
    """A new key: of one environment (server, client), or over many (relay; by default all of the organisation)."""

    kind: KeyKind
    name: str = ""
    project: str | None = Field(default=None, description="Id or key; server and client keys.")
    environment: str | None = Field(default=None, description="Id or key; server and client keys.")
    projects: list[str] | None = Field(default=None, description="Ids or keys; relay keys.")
    environments: list[str] | None = Field(default=None, description="Ids or `project/environment`; relay keys.")
    origins: list[str] = Field(default=[], description='Client keys: web origins that may use it; ["*"] is every one.')
    expires_at: Moment | None = None


class UpdateKeyBody(Body):
    """What to change of a key; what it reads is fixed."""

    name: str = absent()
    origins: list[str] = absent()
    expires_at: Moment | None = absent()


@router.get("")
async def list_keys(
    actor: KeyReader,
    page: Paged,
    services: Served,
    kind: Annotated[KeyKind | None, Query(description="Only keys of this kind.")] = None,
    project: ProjectFilter = None,
    environment: Annotated[
        str | None, Query(description="Only keys of this environment: its id, or its key beside `project`.")
    ] = None,
    include_revoked: IncludeRevoked = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """List the keys, without their texts."""

    def look(connection: Connection) -> Found[Credential]:
        at = None if project is None else project_at(connection, actor, project)
        environment_id = environment
        if environment is not None and at is not None:
            environment_id = environment_of(StoredView(connection), at, environment).id
        wanted = reads.CredentialFilter(
            kinds=_KINDS if kind is None else (CredentialKind(kind),),
            project_id=None if at is None else at.id,
            environment_id=environment_id,
            include_revoked=include_revoked,
        )
        mine, query = actor.organisation_id, page.query(Credential)
        return Found.of(reads.list_credentials(connection, mine, query, wanted, visible=actor.projects))

    return Json((await services.database.read(look)).shown(page, shapes.credential))


@router.post("", status_code=201)
async def create_key(
    actor: KeyWriter,
    body: Annotated[CreateKeyBody, Depends(JsonBody(CreateKeyBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Create a key; `key` in the answer is shown this once."""
    command = CreateKey(kind=CredentialKind(body.kind), **body.given("kind"))
    outcome = await doing(command, actor)
    location = f"/api/v2/keys/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"key": outcome.secret})


@router.get("/{id}")  # noqa: FAST003 - `KeyRead` takes it
async def read_key(at: KeyRead) -> Response:
    """Return one key, without its text."""
    return one(at.credential)


@router.put("/{id}")
@router.patch("/{id}")
async def update_key(
    at: KeyWrite,
    if_match: IfMatch,
    body: Annotated[UpdateKeyBody, Depends(JsonBody(UpdateKeyBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Change a key's name, origins or end; relays know as soon as the change arrives."""
    command = UpdateKey(credential=at.credential.id, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


@router.post("/{id}:rotate", status_code=201)
async def rotate_key(
    at: KeyWrite, body: Annotated[RotateBody, Depends(JsonBody(RotateBody, is_required=False))], doing: Doing
) -> Response:
    """Make a key's successor, which reads the same; `key` in the answer is shown this once."""
    outcome = await doing(RotateKey(credential=at.credential.id, overlap_ms=body.overlap_s * 1_000), at.actor)
    location = f"/api/v2/keys/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"key": outcome.secret})


@router.delete("/{id}", status_code=204)  # noqa: FAST003 - `KeyWrite` takes it
async def revoke_key(at: KeyWrite, doing: Doing) -> Response:
    """Revoke a key: it stops working everywhere as soon as the change arrives, and its streams end."""
    await doing(RevokeKey(credential=at.credential.id), at.actor)
    return gone()
