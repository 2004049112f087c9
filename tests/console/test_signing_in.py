"""`halyard login`, `logout`, `whoami`, `use`: who one is, and what is meant when nothing is named."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.console.terminal import Request, StandIn, halyard, page
from tests.stack import free_port
from tests.upstream.test_upstream_process import World
from upstream.console import sign_ins
from upstream.console.client import Client


def kept(home: Path) -> Any:
    return json.loads((home / "config/halyard/credentials.json").read_text())


def demo_file(upstream: World, folder: Path) -> str:
    """Write the demo.json that `halyard up` would have written for this upstream."""
    demo = upstream.demo
    names = ("email", "password", "project", "environment")
    document = {"upstream_url": upstream.url, **{name: getattr(demo, name) for name in names}}
    (folder / "demo.json").write_text(json.dumps(document))
    return str(folder / "demo.json")


def test_the_demo_is_one_command_away(upstream: World, home: Path) -> None:
    """`login --demo` signs in where demo.json says, and chooses its project and environment."""
    typed = halyard("login", "--demo", demo_file(upstream, home)).done()
    assert typed.out == f"Signed in at {upstream.url} as Demo owner (owner). Project demo, environment production.\n"
    assert "new-checkout" in halyard("flags", "list").done().out


def test_a_password_signs_in_and_is_kept_nowhere(upstream: World, home: Path) -> None:
    """The file holds tokens, is for its owner only, and knows no password."""
    demo = upstream.demo
    login = ("login", "--url", upstream.url + "/", "--email", demo.email, "--password-stdin")
    assert "Choose a project: halyard use PROJECT" in halyard(*login, stdin=f"{demo.password}\n").done().out
    file = home / "config/halyard/credentials.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert demo.password not in file.read_text()
    entry = kept(home)["sign_ins"][upstream.url]
    assert entry["refresh_token"]
    assert entry["expires_at"] > time.time()


def test_a_wrong_password_is_refused(upstream: World) -> None:
    """The status says that one may not, the sentence is the API's, and nothing is kept."""
    login = ("login", "--url", upstream.url, "--email", upstream.demo.email, "--password-stdin")
    typed = halyard(*login, stdin="not the password\n")
    assert typed.status == 3
    assert "The e-mail address or the password is wrong." in typed.err
    assert "request " in typed.err
    assert halyard("whoami", "--url", upstream.url).status == 3


@pytest.mark.usefixtures("somebody_there")
def test_a_typed_password(upstream: World) -> None:
    """Without options both are asked for, on stderr, and the password is not shown."""
    demo = upstream.demo
    typed = halyard("login", "--url", upstream.url, stdin=f"{demo.email}\n{demo.password}\n").done()
    assert typed.err == "E-mail:Password:"
    assert f"Signed in at {upstream.url}" in typed.out


def test_without_a_terminal_nobody_is_asked(upstream: World) -> None:
    """The remedy is named: an option for each."""
    assert "--email" in halyard("login", "--url", upstream.url).err
    typed = halyard("login", "--url", upstream.url, "--email", "a@b.example")
    assert (typed.status, "--password-stdin" in typed.err) == (2, True)


def test_a_token_is_kept_instead(upstream: World, home: Path) -> None:
    """`login --token` keeps a token that works, and refuses one that does not."""
    halyard("login", "--url", upstream.url, "--token", upstream.demo.token).done()
    assert halyard("whoami", "--json").done().json["type"] == "token"
    assert halyard("login", "--url", upstream.url, "--token", "hal_token_wrong").status == 3
    assert kept(home)["sign_ins"][upstream.url]["token"] == upstream.demo.token


def test_signing_out_ends_the_sign_in(signed_in: World, home: Path) -> None:
    """The access token that was kept opens nothing any more; the chosen project stays chosen."""
    access_token = kept(home)["sign_ins"][signed_in.url]["access_token"]
    assert halyard("logout").done().out == f"Signed out at {signed_in.url}.\n"
    assert halyard("whoami", "--token", access_token).status == 3
    entry = kept(home)["sign_ins"][signed_in.url]
    assert (entry["refresh_token"], entry["project"]) == (None, "demo")
    assert "You are not signed in" in halyard("logout").done().out


def test_whoami(signed_in: World) -> None:
    """Who, where, which role, and what is meant when nothing is named."""
    out = halyard("whoami").done().out
    for text in (signed_in.url, "Demo owner", "owner", "flags:write", "demo", "production"):
        assert text in out
    assert halyard("whoami", "-q").done().out == "Demo owner\n"


@pytest.mark.usefixtures("signed_in")
def test_use_chooses_what_is_there() -> None:
    """A project or environment that does not exist is not chosen."""
    assert halyard("use", "demo", "nowhere").status == 4
    assert halyard("use", "demo", "staging").done().out == "Project demo, environment staging.\n"
    assert halyard("use", "demo").done().out == "Project demo.\n"
    typed = halyard("toggle", "new-checkout", "on")
    assert (typed.status, "halyard use PROJECT ENVIRONMENT" in typed.err) == (2, True)


@pytest.mark.usefixtures("signed_in")
def test_options_and_variables_go_before_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option wins over its variable, and both over what was chosen; the environment belongs to its project."""
    monkeypatch.setenv("HALYARD_PROJECT", "nowhere")
    assert halyard("flags", "list").status == 4
    assert halyard("flags", "list", "--project", "demo").status == 0
    typed = halyard("toggle", "new-checkout", "on", "-p", "other")
    assert (typed.status, "Which environment?" in typed.err) == (2, True)
    monkeypatch.setenv("HALYARD_URL", "ftp://nowhere")
    assert halyard("whoami").status == 2


@pytest.mark.usefixtures("signed_in")
def test_a_token_goes_to_no_other_authority(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept for one URL is not sent to another one."""
    monkeypatch.delenv("HALYARD_TOKEN")
    halyard("flags", "list")
    assert "authorization" not in stand_in.requests[0].headers


def test_a_file_that_cannot_be_used_is_named(home: Path) -> None:
    """Its path and the remedy are in the sentence."""
    folder = home / "config/halyard"
    folder.mkdir(parents=True)
    (folder / "credentials.json").write_text("{")
    typed = halyard("whoami")
    assert typed.status == 2
    assert f"{folder}/credentials.json cannot be used; remove it" in typed.err


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_demo_file_that_cannot_be_used(home: Path, content: str | None) -> None:
    """A missing or strange demo.json is a wrong usage."""
    file = home / "demo.json"
    if content is not None:
        file.write_text(content)
    typed = halyard("login", "--demo", str(file))
    assert (typed.status, typed.err.startswith(f"halyard: --demo: {file}")) == (2, True)


def test_plain_http_elsewhere_is_warned_of() -> None:
    """A password that anybody on the way can read is worth a line."""
    url = f"http://0.0.0.0:{free_port()}"
    typed = halyard("login", "--url", url, "--email", "a@b.example", "--password-stdin", stdin="x\n")
    assert "is not encrypted" in typed.err


class Renewing:
    """A stand-in's sign-in whose access tokens are numbered; each refresh token is good once."""

    def __init__(self, stand_in: StandIn, lifetime_s: float) -> None:
        self.number, self.lifetime_s = 1, lifetime_s
        self.is_ended = self.is_expired = False
        stand_in.routes |= {
            "POST /auth/login": lambda _: self.tokens(),
            "POST /auth/refresh": self.refresh,
            "GET /auth/me": lambda request: self.guarded(request, {"name": "A", "role": "owner", "id": "1"}),
            "GET /projects": lambda request: self.guarded(request, page()),
        }

    def tokens(self) -> Any:
        return {
            "access_token": f"access-{self.number}",
            "refresh_token": f"refresh-{self.number}",
            "expires_in": self.lifetime_s,
        }

    def refresh(self, request: Request) -> Any:
        if self.is_ended or request.body["refresh_token"] != f"refresh-{self.number}":
            return 401, {"code": "refresh_token_invalid", "detail": "It was used before.", "request_id": "r"}
        self.number += 1
        self.is_expired = False
        return self.tokens()

    def guarded(self, request: Request, body: Any) -> Any:
        if self.is_expired or request.headers.get("authorization") != f"Bearer access-{self.number}":
            return 401, {"code": "unauthenticated", "detail": "The token has expired.", "request_id": "r"}
        return body


@pytest.fixture
def renewing(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Renewing:
    """Somebody who has signed in at a stand-in, for an hour."""
    monkeypatch.delenv("HALYARD_TOKEN")
    made = Renewing(stand_in, 3_600)
    halyard("login", "--email", "a@b.example", "--password-stdin", stdin="x\n").done()
    return made


def age(url: str) -> None:
    """Let the access token that is kept be at its end."""
    with sign_ins.locked():
        sign_ins.keep(url, replace(sign_ins.load().at(url), expires_at=time.time() + 5))


@pytest.mark.usefixtures("renewing")
def test_a_sign_in_renews_itself_before_its_end(stand_in: StandIn, home: Path) -> None:
    """An access token that is about to expire is exchanged first, and the new one kept."""
    age(stand_in.url)
    halyard("projects", "list").done()
    assert kept(home)["sign_ins"][stand_in.url]["refresh_token"] == "refresh-2"
    assert [each.headers["authorization"] for each in stand_in.asked("GET", "/projects")] == ["Bearer access-2"]


def test_a_sign_in_renews_itself_when_it_is_refused(renewing: Renewing, stand_in: StandIn) -> None:
    """An access token that is refused early, as clocks differ, is exchanged and the request sent again."""
    renewing.is_expired = True
    halyard("projects", "list").done()
    assert len(stand_in.asked("GET", "/projects")) == 2


def test_two_commands_at_a_time_exchange_one_refresh_token(renewing: Renewing, stand_in: StandIn) -> None:
    """A refresh token is good once: whoever comes second waits, and uses the tokens that the first one got."""
    age(stand_in.url)

    def ask(_: int) -> Any:
        async def asked() -> Any:
            async with Client(stand_in.url) as opened:
                return await opened.get("/projects")

        return asyncio.run(asked())

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [page()] * 4
    assert len(stand_in.asked("POST", "/auth/refresh")) == 1
    assert renewing.number == 2


def test_signing_out_with_an_access_token_that_has_expired(renewing: Renewing, stand_in: StandIn, home: Path) -> None:
    """The sign-in is ended with a new one; where it has ended already, it is only forgotten."""
    stand_in.routes["POST /auth/logout"] = lambda request: renewing.guarded(request, (204, b""))
    renewing.number = 1
    renewing.is_expired = True
    halyard("logout").done()
    assert [each.headers["authorization"] for each in stand_in.asked("POST", "/auth/logout")] == [
        "Bearer access-1",
        "Bearer access-2",
    ]
    assert kept(home)["sign_ins"][stand_in.url]["access_token"] is None
    halyard("login", "--email", "a@b.example", "--password-stdin", stdin="x\n").done()
    renewing.is_ended = True
    renewing.is_expired = True
    halyard("logout").done()
    assert kept(home)["sign_ins"][stand_in.url]["access_token"] is None


def test_a_sign_in_that_has_ended_says_so(renewing: Renewing, stand_in: StandIn, home: Path) -> None:
    """It is forgotten, and the remedy is named."""
    renewing.is_ended = True
    age(stand_in.url)
    typed = halyard("projects", "list")
    assert (typed.status, "Sign in again with: halyard login" in typed.err) == (3, True)
    assert kept(home)["sign_ins"][stand_in.url]["refresh_token"] is None


@pytest.mark.usefixtures("renewing")
def test_an_authority_that_is_away_ends_no_sign_in(stand_in: StandIn, home: Path) -> None:
    """When the exchange itself fails the tokens stay, for the next time."""
    stand_in.routes["POST /auth/refresh"] = (503, {"code": "c", "detail": "Try again."})
    age(stand_in.url)
    assert halyard("projects", "list").status == 6
    assert kept(home)["sign_ins"][stand_in.url]["refresh_token"] == "refresh-1"


def test_an_invitation_is_taken_up_once(signed_in: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`join` chooses the password and is signed in; a bad password says why, and a used token is refused."""
    invited = halyard("members", "invite", f"carla-{home.name}@example.com", "--role", "viewer").done()
    assert f"halyard join --url {signed_in.url} TOKEN" in invited.err
    join = ("join", invited.out.strip(), "--url", signed_in.url, "--password-stdin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "carla"))
    short = halyard(*join, stdin="short\n")
    assert (short.status, "password: " in short.err) == (1, True)
    assert "(viewer)" in halyard(*join, "--name", "Carla", stdin="a password of her own\n").done().out
    assert halyard("whoami", "--quiet").done().out == "Carla\n"
    again = halyard(*join, stdin="a password of her own\n")
    assert (again.status, "used before" in again.err) == (3, True)
