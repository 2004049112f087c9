"""`halyard login`, `join`, `logout`, `whoami` and `use`: who one is, and what is meant when nothing is named."""

import sys
import time
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer

from upstream.console import asking, completion, sign_ins
from upstream.console.client import Client, path_of
from upstream.console.command import SIGNING_IN, command
from upstream.console.failures import Exit, Failed, refused
from upstream.console.options import ProjectName, given
from upstream.console.output import fields
from upstream.console.session import AtAuthority
from upstream.console.sign_ins import SignIn

app = typer.Typer()
_LOCAL = {"localhost", "127.0.0.1", "::1"}
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


@command(app, "login", panel=SIGNING_IN)
async def login(
    at: AtAuthority,
    email: Annotated[str | None, typer.Option("--email", metavar="EMAIL", help="Who signs in; asked for.")] = None,
    password_stdin: PasswordStdin = False,
    demo: Annotated[
        Path | None,
        typer.Option("--demo", metavar="FILE", help="The demo.json of `halyard up`: sign in there as it says."),
    ] = None,
) -> None:
    """Sign in, and stay signed in. With --token the token is kept instead, and no password is asked for."""
    if demo is not None:
        await _login_by_demo(at, demo)
        return
    url = at.address
    _warn_of_plain_http(at, url)
    kept = at.kept.ended()
    if at.token is not None:
        await _keep(at, url, replace(kept, token=at.token))
        return
    email = email or _typed_email()
    password = _password("Password", from_stdin=password_stdin)
    await _keep(at, url, await _signed_in(at.client, kept, email, password))


@command(app, "join", panel=SIGNING_IN)
async def join(
    at: AtAuthority,
    invitation: Annotated[str, typer.Argument(metavar="TOKEN", help="Of the invitation or the reset; good once.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What one is called.")] = None,
    password_stdin: PasswordStdin = False,
) -> None:
    """Choose a password with the token of an invitation or of a reset, and stay signed in."""
    url = at.address
    _warn_of_plain_http(at, url)
    password = _password("New password", from_stdin=password_stdin, is_new=True)
    body = given(token=invitation, name=name, password=password)
    status, answer = await at.client.send("POST", "/auth/accept", body, None)
    if status == HTTPStatus.UNAUTHORIZED and isinstance(answer, dict):
        raise Failed(Exit.FORBIDDEN, str(answer.get("detail")), answer)
    if status != HTTPStatus.OK:
        raise refused(status, answer, url)
    await _keep(at, url, at.kept.ended().renewed(answer, time.time()))


def _warn_of_plain_http(at: AtAuthority, url: str) -> None:
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname not in _LOCAL:
        at.out.note(f"warning: {url} is not encrypted: whoever is on the way can read the password. Use https.")


def _typed_email() -> str:
    if not asking.is_interactive():
        raise Failed(Exit.USAGE, "Nobody is here to be asked who signs in: name them with --email.")
    typed: str = typer.prompt("E-mail", err=True)
    return typed


def _password(prompt: str, *, from_stdin: bool, is_new: bool = False) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return asking.password(prompt, option="--password-stdin", is_new=is_new)


def _read_demo(file: Path) -> tuple[str, str, str, SignIn]:
    """Return the authority's address, who signs in there with which password, and what is meant there."""
    try:
        found: dict[str, str] = orjson.loads(file.read_bytes())
        chosen = SignIn(project=found["project"], environment=found["environment"])
        return found["upstream_url"], found["email"], found["password"], chosen
    except OSError as error:
        raise Failed(Exit.USAGE, f"--demo: {file}: {error.strerror}. Is `halyard up` running there?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(Exit.USAGE, f"--demo: {file} is not the demo.json of `halyard up`.") from error


async def _login_by_demo(at: AtAuthority, file: Path) -> None:
    url, email, password, chosen = _read_demo(file)
    async with Client(url) as client:
        entry = await _signed_in(client, chosen, email, password)
    await _keep(at, url, entry)


async def _signed_in(client: Client, kept: SignIn, email: str, password: str) -> SignIn:
    status, answer = await client.send("POST", "/auth/login", {"email": email, "password": password}, None)
    if status == HTTPStatus.UNAUTHORIZED and isinstance(answer, dict):
        raise Failed(Exit.FORBIDDEN, str(answer.get("detail")), answer)
    if status != HTTPStatus.OK:
        raise refused(status, answer, client.url)
    return replace(kept, email=email).renewed(answer, time.time())


async def _keep(at: AtAuthority, url: str, entry: SignIn) -> None:
    """Keep a sign-in that works, and say who it is."""
    async with Client(url, entry.bearer) as client:
        me = await client.get("/auth/me")
    with sign_ins.locked():
        sign_ins.keep(url, entry, is_chosen=True)
    at.out.said(me, _welcome(me, url, entry))


def _welcome(me: dict[str, Any], url: str, entry: SignIn) -> str:
    text = f"Signed in at {url} as {me['name'] or entry.email} ({me['role'] or 'API token'})."
    if entry.project is None:
        return f"{text} Choose a project: halyard use PROJECT [ENVIRONMENT]"
    where = entry.project if entry.environment is None else f"{entry.project}, environment {entry.environment}"
    return f"{text} Project {where}."


@command(app, "logout", panel=SIGNING_IN)
async def logout(at: AtAuthority) -> None:
    """Sign out: the tokens that were kept are ended and forgotten."""
    url, entry = at.address, at.kept
    if entry.bearer is None:
        at.out.said({}, f"You are not signed in at {url}.")
        return
    if entry.refresh_token is not None:
        await _end(Client(url), entry)
    with sign_ins.locked():
        sign_ins.keep(url, entry.ended())
    at.out.said({}, f"Signed out at {url}.")


async def _end(client: Client, entry: SignIn) -> None:
    """End a sign-in at the authority; one that has ended already is as good."""
    async with client:
        status, answer = await client.send("POST", "/auth/logout", None, entry.access_token)
        if status == HTTPStatus.UNAUTHORIZED:
            status, answer = await client.send("POST", "/auth/refresh", {"refresh_token": entry.refresh_token}, None)
            if status == HTTPStatus.OK:
                status, answer = await client.send("POST", "/auth/logout", None, answer["access_token"])
    if status not in {HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}:
        raise refused(status, answer, client.url)


@command(app, "whoami", panel=SIGNING_IN)
async def whoami(at: AtAuthority) -> None:
    """Show who one is, what one may do, and what is meant when nothing is named."""
    me = await at.get("/auth/me")
    if at.as_json or at.quiet:
        at.out.said(me, "", me["name"] or me["id"])
        return
    kept = at.kept
    fields(
        [
            ("authority", at.address),
            ("name", me["name"]),
            ("organisation", (me["organisation"] or {}).get("name")),
            ("role", me["role"]),
            ("scopes", me["scopes"]),
            ("limited to", me["projects"]),
            ("may", me["permissions"]),
            ("project", kept.project),
            ("environment", kept.environment),
        ]
    )


@command(app, "use", panel=SIGNING_IN)
async def use(
    at: AtAuthority,
    project: ProjectName,
    environment: Annotated[
        str | None, typer.Argument(metavar="ENVIRONMENT", help="Its key or id.", autocompletion=completion.environments)
    ] = None,
) -> None:
    """Choose the project, and the environment, that are meant when none is named."""
    found = await at.get(path_of("projects", project))
    inside = None if environment is None else await at.get(path_of("projects", project, "environments", environment))
    url = at.address
    chosen = replace(at.kept, project=found["key"], environment=inside and inside["key"])
    with sign_ins.locked():
        sign_ins.keep(url, chosen, is_chosen=True)
    where = found["key"] if inside is None else f"{found['key']}, environment {inside['key']}"
    at.out.said({"project": found, "environment": inside}, f"Project {where}.", found["key"])
