"""`halyard tokens`: API tokens, for programs that manage flags."""

from typing import Annotated

import typer

from upstream.console.asking import confirm
from upstream.console.client import path_of
from upstream.console.command import command, group
from upstream.console.failures import Exit, Failed
from upstream.console.keys import COLUMNS, KeyId, Label, Overlap
from upstream.console.moments import moment, seconds
from upstream.console.options import USUAL_ROWS, Expires, Limit, given
from upstream.console.output import Column
from upstream.console.session import AtAuthority, Trying
from upstream.console.writes import carry_out, reveal

app = group("Tokens: what programs use the management API with.")

_COLUMNS = (*COLUMNS[:2], Column("token", "hint"), Column("scopes", "scopes"), *COLUMNS[3:])
_USUAL_OVERLAP = "1d"


@command(app, "list")
async def list_tokens(at: AtAuthority, limit: Limit = USUAL_ROWS) -> None:
    """List the tokens; their texts are never shown again."""
    page = await at.listed("/tokens", limit)
    at.out.rows(
        page, _COLUMNS, key="id", nothing="There is no token. Make one with: halyard tokens create NAME --scope …"
    )


@command(app, "create")
async def create_token(
    at: AtAuthority,
    how: Trying,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    scope: Annotated[
        list[str], typer.Option("--scope", metavar="SCOPE", help="Such as flags:read, flags:write; again for more.")
    ],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PROJECT", help="Only this project; again for more. Else all of them."),
    ] = None,
    expires: Expires = None,
) -> None:
    """Create a token and print it, this once."""
    ends = expires and moment("--expires", expires)
    body = given(name=name, scopes=scope, projects=only or None, expires_at=ends)
    await reveal(at, how, "/tokens", body, member="token", what=f"Created the token {name}:")


@command(app, "update")
async def update_token(
    at: AtAuthority, how: Trying, token_id: KeyId, name: Label = None, expires: Expires = None
) -> None:
    """Change a token's name or end."""
    body = given(name=name, expires_at=expires and moment("--expires", expires))
    if not body:
        raise Failed(Exit.USAGE, "What is to change of the token? See: halyard tokens update --help")
    path = path_of("tokens", token_id)
    await carry_out(at, how, "PATCH", path, body, done=lambda now: f"Changed the token {now['id']}.", key=token_id)


@command(app, "rotate")
async def rotate_token(at: AtAuthority, how: Trying, token_id: KeyId, overlap: Overlap = _USUAL_OVERLAP) -> None:
    """Make a token's successor, which may do the same, and print it, this once."""
    body = {"overlap_s": seconds("--overlap", overlap)}
    if not body["overlap_s"]:
        confirm("End the old token at once?", is_agreed=how.yes or how.is_harmless)
    what = f"The new token; the old one works for another {overlap}:"
    await reveal(at, how, path_of("tokens", token_id, ":rotate"), body, member="token", what=what)


@command(app, "revoke")
async def revoke_token(at: AtAuthority, how: Trying, token_id: KeyId) -> None:
    """Revoke a token; it is refused from the next request on."""
    confirm(f"Revoke the token {token_id}?", is_agreed=how.yes or how.is_harmless)
    path = path_of("tokens", token_id)
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Revoked the token {token_id}.", key=token_id)
