"""`/members`: the people of an organisation, their roles and the projects they are limited to.

Halyard sends no e-mail: an invitation or reset is shown once, to whoever makes it, who hands it on.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field

from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import Body, JsonBody, absent
from upstream.api.caller import MemberReader, MemberWriter, permitted
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.passwords import NewPassword, check_password
from upstream.api.services import Served, Services
from upstream.authority import Outcome
from upstream.domain.access_commands import (
    CreateMember,
    DeleteMember,
    InviteMember,
    ResetPassword,
    UpdateMember,
)
from upstream.domain.commands import (
    Batch,
)
from upstream.domain.entities import Member, OneTimeToken, Role
from upstream.domain.errors import not_found
from upstream.domain.permissions import Action, Actor, contains
from upstream.storage import reads

router = APIRouter(prefix="/members", tags=["members"])

RoleField = Annotated[Role, Field(strict=False)]


@dataclass(frozen=True, slots=True)
class WithMember:
    """A permitted caller and the member that the path names."""

    actor: Actor
    member: Member


def with_member(action: Action) -> Callable[..., Awaitable[WithMember]]:
    """Return the dependency that checks a permission and finds the member of the path."""

    async def find(
        id: Annotated[str, Path(description="Id or e-mail address of the member.")],  # noqa: A002 - the path's name
        actor: Annotated[Actor, Depends(permitted(action))],
        services: Served,
    ) -> WithMember:
        member = await services.database.read(lambda c: reads.get_member(c, actor.organisation_id, id))
        if member is None or not contains(actor, member.projects):
            raise not_found("member", id)
        return WithMember(actor, member)

    return find


MemberRead = Annotated[WithMember, Depends(with_member(Action.MEMBERS_READ))]
MemberWrite = Annotated[WithMember, Depends(with_member(Action.MEMBERS_WRITE))]


class CreateMemberBody(Body):
    """A new member; without a password they are invited to choose one."""

    email: str
    name: str = ""
    role: RoleField = Role.VIEWER
    password: NewPassword | None = None
    projects: list[str] | None = Field(default=None, description="Ids or keys; by default all of the organisation.")


class UpdateMemberBody(Body):
    """What to change of a member; a new password ends their sign-ins."""

    name: str = absent()
    role: RoleField = absent()
    password: NewPassword = absent()
    projects: list[str] | None = absent()


@router.get("")
async def list_members(actor: MemberReader, page: Paged, services: Served) -> Response:
    """List the members of the organisation; a caller limited to projects sees those who are limited to these, too."""
    query, mine = page.query(Member), actor.organisation_id
    read = await services.database.read(lambda c: reads.list_members(c, mine, query, visible=actor.projects))
    return Json(Found.of(read).shown(page, shapes.member))


@router.post("", status_code=201)
async def create_member(
    actor: MemberWriter,
    body: Annotated[CreateMemberBody, Depends(JsonBody(CreateMemberBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Add a member; without a password `invitation` holds a token for `/auth/accept`, shown this once."""
    command = CreateMember(**await _with_hash(services, body, body.email), **body.given("password"))
    if body.password is not None:
        outcome, invitation = await doing(command, actor), None
    else:
        invite = InviteMember(member=body.email.strip(), valid_ms=services.auth.invitation_s * 1_000)
        outcome = await doing(Batch(commands=(command, invite)), actor)
        invitation = _handed_out(outcome)
    location = f"/api/v2/members/{shapes.shape(outcome.entity)['id']}"
    return created(outcome, location, {"invitation": invitation})


@router.get("/{id}")  # noqa: FAST003 - `MemberRead` takes it
async def read_member(at: MemberRead) -> Response:
    """Return one member, by id or e-mail address."""
    return one(at.member)


@router.put("/{id}")
@router.patch("/{id}")
async def update_member(
    at: MemberWrite,
    if_match: IfMatch,
    body: Annotated[UpdateMemberBody, Depends(JsonBody(UpdateMemberBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Change the named fields of a member; a new password ends their sign-ins in the same transaction."""
    fields = {**await _with_hash(services, body, at.member.email), **body.given("password")}
    outcome = await doing(UpdateMember(member=at.member.id, if_match=if_match, **fields), at.actor)
    return changed(outcome)


@router.delete("/{id}", status_code=204)  # noqa: FAST003 - `MemberWrite` takes it
async def delete_member(at: MemberWrite, if_match: IfMatch, doing: Doing) -> Response:
    """Remove a member and end their sign-ins."""
    await doing(DeleteMember(member=at.member.id, if_match=if_match), at.actor)
    return gone()


@router.post("/{id}:invite")  # noqa: FAST003 - `MemberWrite` takes it
async def invite_member(at: MemberWrite, services: Served, doing: Doing) -> Response:
    """Invite somebody again who has not joined yet; the invitation before ends. The token is shown this once."""
    command = InviteMember(member=at.member.id, valid_ms=services.auth.invitation_s * 1_000)
    return Json(_handed_out(await doing(command, at.actor)))


@router.post("/{id}:reset-password")  # noqa: FAST003 - `MemberWrite` takes it
async def reset_password(at: MemberWrite, services: Served, doing: Doing) -> Response:
    """Let a member choose a new password; nothing ends until they have. The token is shown this once."""
    command = ResetPassword(member=at.member.id, valid_ms=services.auth.password_reset_s * 1_000)
    return Json(_handed_out(await doing(command, at.actor)))


def _handed_out(outcome: Outcome) -> shapes.Shape:
    token = next(entity for entity in outcome.entities if isinstance(entity, OneTimeToken))
    return shapes.handed_out(token, outcome.secret)


async def _with_hash(services: Services, body: CreateMemberBody | UpdateMemberBody, email: str) -> dict[str, Any]:
    if "password" not in body.model_fields_set or body.password is None:
        return {}
    check_password("password", body.password, email)
    return {"password_hash": await services.passwords.hash(body.password)}
