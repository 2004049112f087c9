"""`halyard up`, before and beside the two processes: settings, ports, the demo, and what is printed.

The services are started with the operator's own file and variables; only what must fit together (addresses, the relay's
key, directories) is given to them as flags.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from relay.clock import SystemClock
from relay.errors import BadSettings
from relay.serve.server import listen
from relay.settings import RelaySettings
from relay.settings import load as load_relay
from relay.settings_reader import Source
from upstream import data_dir
from upstream.api.passwords import Passwords
from upstream.authority import Authority, SystemEntropy
from upstream.demo import Seed, Urls, banner
from upstream.domain.access_commands import (
    InviteMember,
    ResetPassword,
)
from upstream.domain.entities import OneTimeToken
from upstream.domain.permissions import system_actor
from upstream.first_start import EMAIL, RELAY_KEY_FILE, Owner, first_start, relay_key
from upstream.launcher import Launcher, Service
from upstream.notifier import Notifier
from upstream.settings import UpstreamSettings
from upstream.settings import load as load_upstream
from upstream.storage.database import Database
from upstream.storage.view import StoredView

T = TypeVar("T")

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - an address that is listened on, as clients write it


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started."""

    config: Path | None
    upstream: UpstreamSettings
    relay: RelaySettings
    is_demo: bool

    @property
    def urls(self) -> Urls:
        """Return where clients on this machine find everything."""
        upstream, relay, admin = self.upstream.serve, self.relay.serve, self.relay.admin
        return Urls(*(f"http://{reachable(each.host)}:{each.port}" for each in (upstream, relay, admin)))


@dataclass(frozen=True, slots=True)
class OneTimeText:
    """A one-time token as it is handed on, and its end in epoch milliseconds."""

    text: str
    expires_at: int


def reachable(host: str) -> str:
    """Return how a client on this machine writes the address that a service listens on."""
    return ANYWHERE.get(host, f"[{host}]" if ":" in host else host)


def plan(  # noqa: PLR0913 - one argument per flag
    *,
    config: Path | None,
    directory: Path | None,
    upstream_port: int | None,
    relay_port: int | None,
    admin_port: int | None,
    is_demo: bool,
) -> Plan:
    """Read the settings of both services.

    Raises:
        BadSettings: with every problem of either.
    """
    flags = {
        "upstream.data.dir": ("--data-dir", directory),
        "relay.data.dir": ("--data-dir", None if directory is None else directory / "relay"),
        "upstream.serve.port": ("--upstream-port", upstream_port),
        "relay.serve.port": ("--relay-port", relay_port),
        "relay.admin.port": ("--admin-port", admin_port),
    }
    given = {path: (flag, value) for path, (flag, value) in flags.items() if value is not None}

    def source(service: str) -> Source:
        ours = {path: value for path, value in given.items() if path.startswith(f"{service}.")}
        return Source(config, os.environ, ours)

    problems: list[str] = []
    upstream = _tried(load_upstream, source("upstream"), problems)
    relay = _tried(load_relay, source("relay"), problems)
    if upstream is None or relay is None:
        raise BadSettings(problems)
    return Plan(config, upstream, relay, is_demo)


def _tried(load: Callable[[Source], T], source: Source, problems: list[str]) -> T | None:
    try:
        return load(source)
    except BadSettings as error:
        # What is wrong with the file as a whole, both services say.
        problems += [problem for problem in error.problems if problem not in problems]
        return None


def check_ports(planned: Plan) -> None:
    """Find out about a port in use before anything is started.

    Raises:
        BadSettings: naming each setting whose port cannot be had.
    """
    problems: list[str] = []
    upstream, relay, admin = planned.upstream.serve, planned.relay.serve, planned.relay.admin
    with ExitStack() as held:
        for name, place in (
            ("upstream.serve.port", upstream),
            ("relay.serve.port", relay),
            ("relay.admin.port", admin),
        ):
            if place.port == 0:
                problems.append(f"{name}: `halyard up` needs a port that it can print; 0 is not one")
                continue
            try:
                # Held until all have been tried: two of them may be the same.
                held.enter_context(listen(place.host, place.port, 1, name))
            except BadSettings as error:
                problems += error.problems
    if problems:
        raise BadSettings(problems)


async def prepare(planned: Plan) -> str:
    """Make what is missing in the data directory, and return what a newcomer is shown.

    Raises:
        BadSettings: the directory or the database cannot be used.
    """
    if not planned.is_demo:
        return _greeting(planned.urls, await found(planned.upstream, replace_key=True))
    directory = planned.upstream.data.dir
    with _opened(planned.upstream) as (database, authority, passwords):
        demo = await Seed(database, authority, passwords).plant(directory, planned.urls)
        data_dir.write_private(directory / RELAY_KEY_FILE, demo.relay_key)
    return banner(demo, directory)


async def found(
    settings: UpstreamSettings, *, replace_key: bool = False, announce: Callable[[Owner], None] = lambda _: None
) -> Owner | None:
    """Make an owner who can sign in and a relay key where there are none; see `first_start` and `relay_key`.

    Raises:
        BadSettings: the directory or the database cannot be used.
    """
    with _opened(settings) as (database, authority, passwords):
        owner = await first_start(database, authority, passwords, announce)
        await relay_key(settings.data.dir, database, authority, replace=replace_key)
    return owner


async def password_token(settings: UpstreamSettings, email: str) -> OneTimeText:
    """Return a token with which that member chooses a password; the upstream may be running meanwhile.

    Raises:
        BadSettings: nobody uses the address, or the database cannot be used.
    """
    if not settings.data.dir.is_dir():
        raise BadSettings([f"upstream.data.dir: there is no {settings.data.dir}"])
    clock = SystemClock()
    with closing(data_dir.open_stored(settings, clock)) as database:
        member = await database.read(lambda connection: StoredView(connection).member_by_email(email.strip()))
        if member is None:
            raise BadSettings([f"there is no member {email!r} here"])
        authority = Authority(database, clock, SystemEntropy(), Notifier())
        auth = settings.auth
        command = (
            InviteMember(member=member.id, valid_ms=auth.invitation_s * 1_000)
            if member.password_hash is None
            else ResetPassword(member=member.id, valid_ms=auth.password_reset_s * 1_000)
        )
        outcome = await authority.execute(command, system_actor(member.organisation_id))
    token = next(each for each in outcome.entities if isinstance(each, OneTimeToken))
    return OneTimeText(outcome.secret or "", token.expires_at)


@contextmanager
def _opened(settings: UpstreamSettings) -> Iterator[tuple[Database, Authority, Passwords]]:
    """Open the authority of a data directory that nobody else uses meanwhile."""
    clock = SystemClock()
    with (
        data_dir.taken(settings.data.dir),
        closing(data_dir.open_stored(settings, clock)) as database,
        data_dir.installing(settings),
        closing(Passwords()) as passwords,
    ):
        yield database, Authority(database, clock, SystemEntropy(), Notifier()), passwords


def _greeting(urls: Urls, owner: Owner | None) -> str:
    signs_in = f"{owner.email}   {owner.password}   (shown this once)" if owner else f"{EMAIL}, or as you changed it"
    return (
        f"\n    upstream      {urls.upstream_url}\n    relay         {urls.relay_url}\n"
        f"    relay admin   {urls.relay_admin_url}\n    sign in       {signs_in}\n\n"
    )


def services(planned: Plan) -> list[Service]:
    """Return the two services in the order in which they start."""
    upstream, relay = planned.upstream, planned.relay
    config = [] if planned.config is None else ["--config", str(planned.config)]
    upstream_flags = ["--port", str(upstream.serve.port), "--data-dir", str(upstream.data.dir)]
    relay_flags = [
        *("--port", str(relay.serve.port), "--admin-port", str(relay.admin.port)),
        *("--workers", "1"),  # somebody's own machine, and one terminal
        *("--data-dir", str(relay.data.dir), "--upstream-url", planned.urls.upstream_url),
        *("--upstream-key-file", str(upstream.data.dir / RELAY_KEY_FILE)),
    ]
    relay_probe = "/readyz" if planned.is_demo else "/livez"
    return [
        Service(
            "upstream",
            ["upstream", "upstream", "serve", *config, *upstream_flags],
            (upstream.serve.host, upstream.serve.port, "/livez"),
            _human(upstream.log.format, "HALYARD_UPSTREAM_LOG__FORMAT"),
        ),
        Service(
            "relay",
            ["relay", *config, *relay_flags],
            (relay.admin.host, relay.admin.port, relay_probe),
            _human(relay.log.format, "HALYARD_RELAY_LOG__FORMAT"),
        ),
    ]


def _human(form: str, variable: str) -> dict[str, str]:
    """Lines under a prefix are for people, unless the operator has said otherwise."""
    return {variable: "human"} if form == "auto" else {}


async def run(planned: Plan, show: Callable[[str, str], None], say: Callable[[str], None]) -> None:
    """Run both services until a signal ends them.

    Raises:
        BadSettings: something that the settings name cannot be used.
        GaveUp: one of the services cannot be kept running.
    """
    check_ports(planned)
    text = await prepare(planned)
    launcher = Launcher(show)
    launcher.own_signals()
    started = services(planned)

    def on_ready(service: Service) -> None:
        # Between the two, so that it stands complete on the screen before the relay can be asked anything.
        say(text if service is started[0] else f"Ready. The relay answers at {planned.urls.relay_url}.\n")

    await launcher.run(started, on_ready)
