"""`/auth`: signing in with e-mail and password, renewing, signing out, and who one is."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from upstream.api.answers import Json, gone
from upstream.api.body import Body, JsonBody
from upstream.api.caller import Address, Myself, SignedIn
from upstream.api.passwords import MAX_CHARACTERS
from upstream.api.services import Served
from upstream.api.sign_in import Session
from upstream.domain.entities import Organisation
from upstream.domain.permissions import Actor, actions
from upstream.storage import reads

router = APIRouter(prefix="/auth", tags=["auth"])

_EMAIL_CHARACTERS: Final = 320


class LoginBody(Body):
    """Who signs in."""

    email: str = Field(max_length=_EMAIL_CHARACTERS)
    password: str = Field(max_length=MAX_CHARACTERS)


class RefreshBody(Body):
    """The newest refresh token of the sign-in."""

    refresh_token: str = Field(max_length=512)


@router.post("/login")
async def login(
    address: Address, body: Annotated[LoginBody, Depends(JsonBody(LoginBody))], services: Served
) -> Response:
    """Sign in."""
    return signed_in_answer(await services.sign_in.open(body.email, body.password, address))


@router.post("/refresh")
async def refresh(body: Annotated[RefreshBody, Depends(JsonBody(RefreshBody))], services: Served) -> Response:
    """Exchange a refresh token, which is then used up, for new tokens."""
    return signed_in_answer(await services.sign_in.renew(body.refresh_token))


@router.post("/logout", status_code=204)
async def logout(myself: Myself, services: Served) -> Response:
    """Sign out: neither the refresh token nor the access token of this sign-in is valid any more."""
    await services.sign_in.close(myself.sign_in)
    return gone()


@router.get("/me")
async def me(actor: SignedIn, services: Served) -> Response:
    """Return who the caller is and what they may do."""
    organisation = await services.database.read(lambda c: reads.get_organisation(c, actor.organisation_id))
    return Json(_shown(actor, organisation))


def signed_in_answer(session: Session, status: int = 200) -> Json:
    """Return the answer to whoever has just signed in."""
    return Json(
        {
            "access_token": session.access_token,
            "refresh_token": session.refresh_token,
            "token_type": "Bearer",
            "expires_in": session.expires_in,
        },
        status,
    )


def _shown(actor: Actor, organisation: Organisation | None) -> dict[str, Any]:
    return {
        "type": actor.type,
        "id": actor.id,
        "name": actor.name,
        "organisation": organisation and {"id": organisation.id, "name": organisation.name},
        "role": actor.role,
        "scopes": sorted(actor.scopes),
        "projects": actor.projects and sorted(actor.projects),
        "permissions": sorted(actions(actor)),
    }
