"""`/members`: the people of an organisation, their roles and the projects they are limited to."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from upstream.api import shapes
from upstream.api.answers import Json, changed, created, gone, one
from upstream.api.body import Body, JsonBody, absent
from upstream.api.caller import MemberReader, MemberWriter
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.paging import Found, Paged
from upstream.api.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from upstream.api.services import Served, Services
from upstream.domain.commands import CreateMember, DeleteMember, UpdateMember
from upstream.domain.entities import Member, Role
from upstream.domain.errors import not_found
from upstream.domain.permissions import contains
from upstream.storage import reads

router = APIRouter(prefix="/members", tags=["members"])

RoleField = Annotated[Role, Field(strict=False)]
Password = Annotated[str, Field(min_length=MIN_CHARACTERS, max_length=MAX_CHARACTERS)]


class CreateMemberBody(Body):
    """A new member; without a password they cannot sign in yet."""

    email: str
    name: str = ""
    role: RoleField = Role.VIEWER
    password: Password | None = None
    projects: list[str] | None = Field(default=None, description="Ids or keys; by default all of the organisation.")


class UpdateMemberBody(Body):
    """What to change of a member; a new password ends their sign-ins."""

    name: str = absent()
    role: RoleField = absent()
    password: Password = absent()
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
    """Add a member."""
    command = CreateMember(**await _with_hash(services, body), **body.given("password"))
    outcome = await doing(command, actor)
    return created(outcome, f"/api/v2/members/{shapes.shape(outcome.entity)['id']}")


@router.get("/{id}")
async def read_member(actor: MemberReader, id: str, services: Served) -> Response:  # noqa: A002 - the path's name
    """Return one member, by id or e-mail address."""
    member = await services.database.read(lambda c: reads.get_member(c, actor.organisation_id, id))
    if member is None or not contains(actor, member.projects):
        raise not_found("member", id)
    return one(member)


@router.put("/{id}")
@router.patch("/{id}")
async def update_member(
    actor: MemberWriter,
    id: str,  # noqa: A002 - the path's name
    if_match: IfMatch,
    body: Annotated[UpdateMemberBody, Depends(JsonBody(UpdateMemberBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Change the named fields of a member; a new password ends their sign-ins in the same transaction."""
    fields = {**await _with_hash(services, body), **body.given("password")}
    outcome = await doing(UpdateMember(member=id, if_match=if_match, **fields), actor)
    return changed(outcome)


@router.delete("/{id}", status_code=204)
async def delete_member(actor: MemberWriter, id: str, if_match: IfMatch, doing: Doing) -> Response:  # noqa: A002 - the path's name
    """Remove a member and end their sign-ins."""
    await doing(DeleteMember(member=id, if_match=if_match), actor)
    return gone()


async def _with_hash(services: Services, body: CreateMemberBody | UpdateMemberBody) -> dict[str, Any]:
    if "password" not in body.model_fields_set or body.password is None:
        return {}
    return {"password_hash": await services.passwords.hash(body.password)}
