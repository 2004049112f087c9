"""`halyard keys`: server, client and relay keys."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from upstream.console.asking import confirm
from upstream.console.client import path_of
from upstream.console.command import command, group
from upstream.console.failures import Exit, Failed
from upstream.console.moments import moment, seconds, shown
from upstream.console.options import USUAL_ROWS, Expires, Limit, given
from upstream.console.output import Column
from upstream.console.session import AtAuthority, AtEnvironment, Trying
from upstream.console.writes import carry_out, reveal

app = group("Keys: what applications and relays read flags with.")


class KeyKind(StrEnum):
    """Who reads with a key."""

    SERVER = "server"
    CLIENT = "client"
    RELAY = "relay"


KeyId = Annotated[str, typer.Argument(metavar="ID", help="Its id, as `list` shows it.")]
Label = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it.")]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", metavar="ORIGIN", help="Client keys: a web origin that may use it; again for more."),
]
Overlap = Annotated[
    str,
    typer.Option("--overlap", metavar="TIME", help="How long the old one goes on working: 0s, 90m, 2h, 3d."),
]
_USUAL_OVERLAP = "1d"


def state(row: Mapping[str, Any]) -> str:
    """Return whether a key or token is good."""
    if row["revoked_at"] is not None:
        return "revoked"
    return f"until {shown(row['expires_at'])}" if row["expires_at"] is not None else "active"


COLUMNS = (
    Column("id", "id"),
    Column("name", "name"),
    Column("key", "hint"),
    Column("state", state),
    Column("last used (UTC)", lambda row: shown(row["last_used_at"])),
)


@command(app, "list")
async def list_keys(
    at: AtEnvironment,
    kind: Annotated[KeyKind | None, typer.Option("--kind", help="Only of this kind.")] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Those of every project, relay keys too.")] = False,
    limit: Limit = USUAL_ROWS,
) -> None:
    """List the keys of the environment, or with --all every one; their texts are never shown again."""
    where = {} if everywhere else {"project": at.project_key, "environment": at.environment_key}
    page = await at.listed("/keys", limit, kind=kind, **where)
    columns = (COLUMNS[0], Column("kind", "kind"), *COLUMNS[1:])
    at.out.rows(page, columns, key="id", nothing="There is no such key. Make one with: halyard keys create server")


@command(app, "create")
async def create_key(
    at: AtEnvironment,
    how: Trying,
    kind: Annotated[KeyKind, typer.Argument(metavar="server|client|relay", help="Who reads with it.")],
    name: Label = None,
    origin: Origins = None,
    expires: Expires = None,
) -> None:
    """Create a key and print it, this once. A relay key opens all of the organisation, or the --project given."""
    if kind is KeyKind.RELAY:
        projects = None if at.project is None else [at.project]
        environments = None if at.environment is None else [f"{at.project_key}/{at.environment}"]
        where: dict[str, Any] = {"environments": environments} if environments else {"projects": projects}
    else:
        where = {"project": at.project_key, "environment": at.environment_key}
    body = given(
        kind=kind,
        name=name,
        origins=origin or None,
        expires_at=expires and moment("--expires", expires),
        **where,
    )
    await reveal(at, how, "/keys", body, member="key", what=f"Created a {kind} key:")


@command(app, "update")
async def update_key(
    at: AtAuthority, how: Trying, key: KeyId, name: Label = None, origin: Origins = None, expires: Expires = None
) -> None:
    """Change a key's name, origins or end."""
    body = given(name=name, origins=origin or None, expires_at=expires and moment("--expires", expires))
    if not body:
        raise Failed(Exit.USAGE, "What is to change of the key? See: halyard keys update --help")
    await carry_out(
        at, how, "PATCH", path_of("keys", key), body, done=lambda now: f"Changed the key {now['id']}.", key=key
    )


@command(app, "rotate")
async def rotate_key(at: AtAuthority, how: Trying, key: KeyId, overlap: Overlap = _USUAL_OVERLAP) -> None:
    """Make a key's successor, which reads the same, and print it, this once."""
    body = {"overlap_s": seconds("--overlap", overlap)}
    if not body["overlap_s"]:
        confirm("End the old key at once?", is_agreed=how.yes or how.is_harmless)
    what = f"The new key; the old one works for another {overlap}:"
    await reveal(at, how, path_of("keys", key, ":rotate"), body, member="key", what=what)


@command(app, "revoke")
async def revoke_key(at: AtAuthority, how: Trying, key: KeyId) -> None:
    """Revoke a key: it stops working everywhere as soon as the change arrives."""
    confirm(f"Revoke the key {key}? Whoever reads with it gets nothing any more.", is_agreed=how.yes or how.is_harmless)
    await carry_out(at, how, "DELETE", path_of("keys", key), done=lambda _: f"Revoked the key {key}.", key=key)
