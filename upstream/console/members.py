"""`halyard members`: the people of an organisation."""

from enum import StrEnum
from typing import Annotated

import typer

from upstream.console.asking import confirm
from upstream.console.client import path_of
from upstream.console.command import command, group
from upstream.console.failures import Exit, Failed
from upstream.console.options import USUAL_ROWS, Limit, Search, given
from upstream.console.output import Column
from upstream.console.session import AtAuthority, Trying
from upstream.console.writes import carry_out, reveal

app = group("Members: the people of the organisation, and what they may do.")


class Role(StrEnum):
    """What a member may do."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


_COLUMNS = (
    Column("e-mail", "email"),
    Column("name", "name"),
    Column("role", "role"),
    Column("status", "status"),
    Column("projects", lambda row: "all" if row["projects"] is None else f"{len(row['projects'])} of them"),
    Column("id", "id"),
)
Member = Annotated[str, typer.Argument(metavar="MEMBER", help="Their e-mail address or id.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PROJECT", help="Only this project; again for more. Else all of them."),
]


@command(app, "list")
async def list_members(at: AtAuthority, search: Search = None, limit: Limit = USUAL_ROWS) -> None:
    """List the members of the organisation."""
    page = await at.listed("/members", limit, search=search)
    at.out.rows(page, _COLUMNS, key="email", nothing="There is no such member.")


@command(app, "invite")
async def invite_member(
    at: AtAuthority,
    how: Trying,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Their e-mail address.")],
    role: Annotated[Role, typer.Option("--role", help="What they may do.")] = Role.VIEWER,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What they are called.")] = None,
    only: Only = None,
    again: Annotated[bool, typer.Option("--again", help="They are invited already: make a new invitation.")] = False,
) -> None:
    """Invite somebody; prints the token with which they choose a password, this once. Halyard sends no e-mail."""
    what = f"{email} joins with: halyard join --url {at.address} TOKEN. The token is:"
    if again:
        await reveal(at, how, path_of("members", email, ":invite"), None, member="token", what=what)
        return
    body = given(email=email, role=role, name=name, projects=only or None)
    await reveal(at, how, "/members", body, member="invitation.token", what=what)


@command(app, "update")
async def update_member(
    at: AtAuthority,
    how: Trying,
    member: Member,
    role: Annotated[Role | None, typer.Option("--role", help="What they may do from now on.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What they are called.")] = None,
    only: Only = None,
    everywhere: Annotated[bool, typer.Option("--all-projects", help="Limit them to no projects any more.")] = False,
) -> None:
    """Change a member's role, name or projects."""
    body = given(role=role, name=name, projects=only or None) | ({"projects": None} if everywhere else {})
    if not body:
        raise Failed(Exit.USAGE, f"What is to change of {member}? See: halyard members update --help")
    path = path_of("members", member)
    await carry_out(
        at, how, "PATCH", path, body, done=lambda now: f"Changed {now['email']}: {now['role']}.", key=member
    )


@command(app, "remove")
async def remove_member(at: AtAuthority, how: Trying, member: Member) -> None:
    """Remove a member and end their sign-ins."""
    confirm(f"Remove {member} from the organisation?", is_agreed=how.yes or how.is_harmless)
    path = path_of("members", member)
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Removed {member}.", key=member)


@command(app, "reset-password")
async def reset_password(at: AtAuthority, how: Trying, member: Member) -> None:
    """Print a token with which a member chooses a new password, this once."""
    path = path_of("members", member, ":reset-password")
    what = f"{member} chooses a new password with: halyard join --url {at.address} TOKEN. The token is:"
    await reveal(at, how, path, None, member="token", what=what)
