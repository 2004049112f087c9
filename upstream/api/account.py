"""`/auth`, beside signing in: the first owner, invitations and resets, one's own password and name."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from upstream.api.accounts import NewOwner
from upstream.api.answers import changed, gone
from upstream.api.auth import signed_in_answer
from upstream.api.body import Body, JsonBody
from upstream.api.caller import Address, Myself
from upstream.api.doing import Doing
from upstream.api.passwords import MAX_CHARACTERS, NewPassword
from upstream.api.services import Served
from upstream.domain.access_commands import (
    RenameMyself,
)

router = APIRouter(prefix="/auth", tags=["auth"])

_TOKEN_CHARACTERS: Final = 512


class SetupBody(Body):
    """The first owner of an empty authority."""

    setup_token: str = Field(
        max_length=_TOKEN_CHARACTERS, description="What stands in the file `setup-token` in the data directory."
    )
    organisation: str
    email: str
    name: str = ""
    password: NewPassword


class AcceptBody(Body):
    """A password for somebody who was invited, or lost theirs."""

    token: str = Field(max_length=_TOKEN_CHARACTERS)
    password: NewPassword
    name: str | None = None


class PasswordBody(Body):
    """A new password for the old one."""

    current: str = Field(max_length=MAX_CHARACTERS)
    new: NewPassword


class MyselfBody(Body):
    """What to change of oneself."""

    name: str


@router.post("/setup", status_code=201)
async def set_up(
    request: Request,
    address: Address,
    body: Annotated[SetupBody, Depends(JsonBody(SetupBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Make the first organisation and its owner, and sign them in; 409 once the authority has any member."""
    owner = NewOwner(organisation=body.organisation, email=body.email, name=body.name, password=body.password)
    member = await services.accounts.set_up(owner, body.setup_token, address, request.scope, doing)
    return signed_in_answer(await services.sign_in.begin(member), 201)


@router.post("/accept")
async def accept(
    request: Request,
    address: Address,
    body: Annotated[AcceptBody, Depends(JsonBody(AcceptBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Choose a password with an invitation or a reset, which is then used up, and sign in; all other sign-ins end."""
    member = await services.accounts.accept(
        body.token, body.password, body.name, address=address, scope=request.scope, do=doing
    )
    return signed_in_answer(await services.sign_in.begin(member))


@router.post("/password", status_code=204)
async def change_password(
    myself: Myself, body: Annotated[PasswordBody, Depends(JsonBody(PasswordBody))], services: Served, doing: Doing
) -> Response:
    """Change one's own password; all other sign-ins end."""
    await services.accounts.change_password(
        myself.member, myself.sign_in, body.current, body.new, actor=myself.actor, do=doing
    )
    return gone()


@router.patch("/me")
async def rename_myself(
    myself: Myself, body: Annotated[MyselfBody, Depends(JsonBody(MyselfBody))], doing: Doing
) -> Response:
    """Change one's own name."""
    return changed(await doing(RenameMyself(name=body.name), myself.actor))
