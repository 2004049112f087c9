"""Requests to the management API are counted by caller, and by address where the caller is nobody."""

from collections.abc import Awaitable, Callable

import pytest

from tests.clocks import FakeClock
from tests.upstream.management import Caller, P, Reply, World
from upstream.api.rate_limit import RequestLimits, Windows, network_of
from upstream.domain.access_commands import (
    CreateMember,
)
from upstream.domain.entities import Role
from upstream.settings import RateLimits

TOGGLE = f"{P}/flags/checkout:toggle"
IN_PRODUCTION = {"environment": "production"}


@pytest.fixture
def limited(world: World) -> World:
    """Few requests are allowed: 3 reads, 2 writes, 4 of nobody."""
    settings = RateLimits(reads=3, writes=2, unauthenticated=4, remembered=3)
    services = world.app.state.services
    object.__setattr__(services, "requests", RequestLimits(world.clock, settings))
    return world


def shown(reply: Reply) -> tuple[str, ...]:
    return tuple(reply.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset"))


async def until_refused(send: Callable[[], Awaitable[Reply]]) -> tuple[int, Reply]:
    """Return how many requests were let through, and the refusal."""
    for count in range(20):
        reply = await send()
        if reply.status == 429:
            return count, reply
    raise AssertionError("never refused")


async def test_every_answer_says_what_is_left(limited: World) -> None:
    """Refusals and replays too; the window starts with the first request and is a minute long."""
    path = f"{P}/flags"
    assert shown(await limited.api.get(path)) == ("3", "2", "60")
    await limited.clock.advance(10.5)
    assert shown(await limited.api.get(f"{path}/nowhere")) == ("3", "1", "50")
    first = await limited.api.post(TOGGLE, IN_PRODUCTION, Idempotency_Key="one")
    replayed = await limited.api.post(TOGGLE, IN_PRODUCTION, Idempotency_Key="one")
    assert (shown(first), shown(replayed)) == (("2", "1", "60"), ("2", "0", "60"))
    assert replayed.headers["idempotent-replayed"] == "true"


async def test_over_the_limit_it_is_429_until_the_window_has_passed(limited: World) -> None:
    """With Retry-After and the same headers; then it starts afresh."""
    made, refused = await until_refused(lambda: limited.api.get(f"{P}/flags"))
    assert (made, refused.code, shown(refused)) == (3, "too_many_requests", ("3", "0", "60"))
    assert refused.headers["retry-after"] == "60"
    await limited.clock.advance(59.9)
    assert (await limited.api.get(f"{P}/flags")).headers["retry-after"] == "1"
    await limited.clock.advance(0.1)
    assert (await limited.api.get(f"{P}/flags")).status == 200


async def test_reads_and_writes_are_counted_apart(limited: World) -> None:
    """Who has read all they may can still switch a flag off."""
    await until_refused(lambda: limited.api.get(f"{P}/flags"))
    made, _ = await until_refused(lambda: limited.api.post(TOGGLE, IN_PRODUCTION))
    assert made == 2


async def test_each_token_and_each_person_has_a_count_of_their_own(limited: World) -> None:
    """Wherever they come from."""
    await until_refused(lambda: limited.api.get(f"{P}/flags"))
    elsewhere = Caller(limited.app, limited.keys["all"], address="198.51.100.7")
    assert (await elsewhere.get(f"{P}/flags")).status == 429
    assert (await limited.caller("read").get(f"{P}/flags")).status == 200
    session = await limited.sign_in()
    person = {"Authorization": f"Bearer {session['access_token']}"}
    assert (await limited.nobody.call("GET", f"{P}/flags", headers=person)).status == 200


async def test_requests_without_a_valid_credential_are_counted_by_address(limited: World) -> None:
    """No key, a wrong one, and attempts to sign in; whoever has a valid one at that address is not held up."""
    nobody = limited.nobody
    statuses = [
        (await nobody.get(f"{P}/flags")).status,
        (await nobody.get(f"{P}/flags", Authorization="Bearer nonsense")).status,
        (await nobody.get("/api/v2/docs")).status,
        (await nobody.post("/api/v2/auth/login", {"email": "x", "password": "y"})).status,
        (await nobody.get(f"{P}/flags", Authorization="Bearer nonsense")).status,
    ]
    assert statuses == [401, 401, 200, 401, 429]
    assert (await limited.api.get(f"{P}/flags")).status == 200
    other = Caller(limited.app, None, address="198.51.100.7")
    assert (await other.get(f"{P}/flags")).status == 401


async def test_relays_are_not_counted_here(limited: World) -> None:
    """What relays hand over must not wait for anybody's limit."""
    for path in ("/api/v2/ingest", "/api/v2/changes"):
        for _ in range(6):
            reply = await limited.caller("relay").post(path, {})
            assert reply.status != 429
            assert "ratelimit-limit" not in reply.headers


async def test_no_limit_is_no_limit(world: World) -> None:
    """Zero switches a limit off, and its headers with it."""
    services = world.app.state.services
    limits = RequestLimits(world.clock, RateLimits(reads=0, writes=0, unauthenticated=0))
    object.__setattr__(services, "requests", limits)
    for reply in (
        await world.api.get(f"{P}/flags"),
        await world.api.post(TOGGLE, IN_PRODUCTION),
        await world.nobody.get(f"{P}/flags"),
    ):
        assert reply.status in {200, 401}
        assert "ratelimit-limit" not in reply.headers


async def test_the_caller_is_looked_up_once_a_request(world: World) -> None:
    """Counting, repeating and permitting share one authentication."""
    reads: list[object] = []
    authenticate = world.app.state.services.authenticator.authenticate

    async def counting(scope: object) -> object:
        reads.append(scope)
        return await authenticate(scope)

    world.app.state.services.authenticator.authenticate = counting
    assert (await world.api.post(TOGGLE, IN_PRODUCTION, Idempotency_Key="one")).status == 200
    assert len(reads) == 1


def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten_first() -> None:
    """However many keys there are."""
    windows = Windows(FakeClock(), limit=1, window_s=60, remembered=2)
    assert not windows.count("a").is_over
    for key in ("b", "c"):
        windows.count(key)
    assert len(windows._seen) == 2
    assert windows.count("c").is_over
    assert not windows.count("a").is_over


def test_many_addresses_do_not_make_a_caller_forgotten() -> None:
    """They are remembered apart."""
    limits = RequestLimits(FakeClock(), RateLimits(reads=1, remembered=2))
    assert limits.of_caller("token", is_reading=True) is not None
    for number in range(100):
        limits.of_address(f"192.0.2.{number}")
    count = limits.of_caller("token", is_reading=True)
    assert count is not None
    assert count.is_over


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
        (None, None),
    ],
)
def test_ipv6_addresses_are_counted_by_network(address: str | None, network: str | None) -> None:
    """Whoever has one of them mostly has 2^64."""
    assert network_of(address) == network


async def test_a_member_is_counted_by_their_id(limited: World) -> None:
    """Two people behind one address do not share a count."""
    hashed = (await limited.api.shown("/api/v2/members"))["data"]
    assert len(hashed) == 2
    await limited.do(CreateMember(email="ned@acme.example", role=Role.VIEWER))
    session = await limited.sign_in()
    person = {"Authorization": f"Bearer {session['access_token']}"}
    made, _ = await until_refused(lambda: limited.nobody.call("GET", f"{P}/flags", headers=person))
    assert made == 3
    other = await limited.sign_in("vera@acme.example")
    person = {"Authorization": f"Bearer {other['access_token']}"}
    assert (await limited.nobody.call("GET", f"{P}/flags", headers=person)).status == 200
