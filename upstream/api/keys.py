"""`/keys`: server, client and relay keys. The raw key is in the answer that creates it, and nowhere else ever."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, created, gone, one
from upstream.api.body import Body, JsonBody, Moment
from upstream.api.caller import KeyReader, KeyWriter
from upstream.api.credentials import credential_at, credentials_page
from upstream.api.doing import Doing
from upstream.api.paging import Found, Paged
from upstream.api.places import project_at
from upstream.api.services import Served
from upstream.domain.commands import CreateKey, RevokeKey
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.lookup import environment_of
from upstream.storage.view import StoredView

router = APIRouter(prefix="/keys", tags=["keys"])

_KINDS: Final = (CredentialKind.SERVER, CredentialKind.CLIENT, CredentialKind.RELAY)
KeyKind = Literal["server", "client", "relay"]


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


@router.get("")
async def list_keys(
    actor: KeyReader,
    page: Paged,
    services: Served,
    kind: Annotated[KeyKind | None, Query(description="Only keys of this kind.")] = None,
    project: Annotated[str | None, Query(description="The project that the environment is in.")] = None,
    environment: Annotated[
        str | None, Query(description="Only keys of this environment: its id, or its key beside `project`.")
    ] = None,
) -> Response:
    """List the keys that are not revoked, without their texts."""

    def look(connection: Connection) -> Found[Credential]:
        environment_id = environment
        if environment is not None and project is not None:
            at = project_at(connection, actor, project)
            environment_id = environment_of(StoredView(connection), at, environment).id
        kinds = _KINDS if kind is None else (CredentialKind(kind),)
        return credentials_page(connection, actor, page, kinds, environment_id)

    return Json((await services.database.read(look)).shown(page, shapes.credential))


@router.post("", status_code=201)
async def create_key(
    actor: KeyWriter, body: Annotated[CreateKeyBody, Depends(JsonBody(CreateKeyBody))], doing: Doing
) -> Response:
    """Create a key; `key` in the answer is shown this once."""
    command = CreateKey(kind=CredentialKind(body.kind), **body.given("kind"))
    outcome = await doing(command, actor)
    location = f"/api/v2/keys/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"key": outcome.secret})


@router.get("/{id}")
async def read_key(actor: KeyReader, id: str, services: Served) -> Response:  # noqa: A002 - the path's name
    """Return one key, without its text."""
    return one(await services.database.read(lambda connection: credential_at(connection, actor, id, "key")))


@router.delete("/{id}", status_code=204)
async def revoke_key(actor: KeyWriter, id: str, services: Served, doing: Doing) -> Response:  # noqa: A002 - the path's name
    """Revoke a key: it stops working everywhere as soon as the change arrives, and its streams end."""
    await services.database.read(lambda connection: credential_at(connection, actor, id, "key"))
    await doing(RevokeKey(credential=id), actor)
    return gone()
