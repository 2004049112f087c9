"""Who may ask: every way in which a key is refused, the choice of an environment, and which pages may read answers."""

import logging
from typing import Any

import pytest

from relay.clock import rfc3339
from relay.errors import Problem
from relay.protocol.changes import Environments
from relay.protocol.keys import Kind
from relay.serve.access import select
from relay.serve.cors import Cors
from tests.clocks import FakeClock
from tests.relay.objects import flag, new_key, reference
from tests.relay.world import World

PAGE = "https://app.example.com"
EVALUATE = "/api/v2/evaluate"
BETA = {"flag": "beta", "context": {}}


@pytest.mark.parametrize("kind", list(Kind))
async def test_every_kind_of_key_evaluates_in_either_header(world: World, kind: Kind) -> None:
    """`Authorization: Bearer` and `X-API-Key` are the same."""
    assert (await world.call("POST", EVALUATE, BETA, key=kind)).status == 200
    assert (await world.call("POST", EVALUATE, BETA, key=None, headers={"x-api-key": world.keys[kind]})).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"authorization": "Basic dTpw"}, "key_missing"),
        ({"authorization": "Bearer "}, "key_malformed"),
        ({"authorization": "Bearer nonsense"}, "key_malformed"),
        ({"authorization": "Bearer hal_server_" + "0" * 38}, "key_malformed"),
        ({"x-api-key": "hal_server_é"}, "key_malformed"),
        ({"authorization": f"Bearer {new_key(Kind.SERVER)}"}, "key_unknown"),
    ],
)
async def test_a_key_that_is_missing_malformed_or_unknown_is_401(
    world: World, headers: dict[str, str], code: str
) -> None:
    """Each is told from the others by its code, and asks for a bearer key."""
    answer = await world.call("POST", EVALUATE, BETA, key=None, headers=headers)
    assert (answer.status, answer.json["code"]) == (401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_is_refused_from_the_moment_it_expires(world: World) -> None:
    """Expiry needs no change of the configuration."""
    world.commit(credentials=world.credentials(expires_at=rfc3339(world.clock.wall_ms() + 1_000)))
    assert (await world.call("POST", EVALUATE, BETA)).status == 200
    world.fake.jump_wall(1_000)
    assert (await world.call("POST", EVALUATE, BETA)).status == 401


async def test_a_revoked_key_is_refused_at_once(world: World) -> None:
    """A change set without the credential is all it takes."""
    world.commit(credentials={})
    assert (await world.call("POST", EVALUATE, BETA)).json["code"] == "key_unknown"


async def test_wrong_kinds_and_scopes_are_403(world: World) -> None:
    """A client key has no change stream; a token without read scope evaluates nothing; write includes read."""
    answer = await world.call("GET", "/api/v2/stream", key=Kind.CLIENT)
    assert (answer.status, answer.json["code"]) == (403, "key_kind")
    world.commit(credentials=world.credentials(scopes=["flags:delete"]))
    assert (await world.call("POST", EVALUATE, BETA)).json["code"] == "key_scope"
    world.commit(credentials=world.credentials(scopes=["flags:write"]))
    assert (await world.call("POST", EVALUATE, BETA)).status == 200


async def test_without_any_configuration_the_answer_is_503() -> None:
    """A relay that knows no keys yet refuses none: it asks to come back. Malformed keys are refused even so."""
    empty = World(FakeClock())
    answer = await empty.call("POST", EVALUATE, BETA, key=new_key(Kind.SERVER))
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "no_configuration", "1")
    assert (await empty.call("POST", EVALUATE, BETA, key="nonsense")).status == 401


async def test_an_unknown_key_is_503_while_an_environment_is_lacking(world: World) -> None:
    """It may be that environment's key, and a client that is told 401 gives up for good; known keys are served."""
    staging, key = reference(2, "staging"), new_key(Kind.SERVER)
    world.store.cover(Environments((world.ref, staging)))
    assert (await world.call("POST", EVALUATE, BETA)).status == 200
    answer = await world.call("POST", EVALUATE, BETA, key=key)
    assert (answer.status, answer.json["code"]) == (503, "no_configuration")
    world.snapshot({"beta": flag()}, ref=staging)
    assert (await world.call("POST", EVALUATE, BETA, key=key)).json["code"] == "key_unknown"


async def test_a_key_of_many_environments_is_503_where_the_lacking_one_may_be_meant(world: World) -> None:
    """Named, and not here; or not named, where it would have to be."""
    staging = reference(2, "staging")
    world.store.cover(Environments((world.ref, staging)))
    for body in (BETA | {"environment": "staging"}, BETA):
        answer = await world.call("POST", EVALUATE, body, key=Kind.TOKEN)
        assert (answer.status, answer.json["code"]) == (503, "no_configuration")
    assert (await world.call("POST", EVALUATE, BETA | {"environment": "production"}, key=Kind.TOKEN)).status == 200
    answer = await world.call("GET", "/api/v2/stream?environments=staging", key=Kind.RELAY)
    assert answer.status == 503
    world.store.cover(Environments((world.ref,)))
    answer = await world.call("POST", EVALUATE, BETA | {"environment": "staging"}, key=Kind.TOKEN)
    assert answer.json["code"] == "environment_unclear"


async def test_only_client_keys_stand_in_urls_and_only_of_streams(world: World) -> None:
    """A server key in `?key=` is refused with the reason; `?key=` does nothing on other routes."""
    stream = await world.call("GET", f"/api/v2/client/stream?key={world.keys[Kind.SERVER]}", key=None)
    assert (stream.status, stream.json["code"]) == (401, "key_in_url")
    other = await world.call("POST", f"{EVALUATE}?key={world.keys[Kind.CLIENT]}", BETA, key=None)
    assert (other.status, other.json["code"]) == (401, "key_missing")


async def test_the_log_says_why_a_key_was_refused_and_never_the_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Reason and hint are logged once a minute per key; the metric counts every time."""
    raw = new_key(Kind.SERVER)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            await world.call("POST", EVALUATE, BETA, key=raw)
    (record,) = caplog.records
    assert (vars(record)["reason"], vars(record)["key"]) == ("unknown", f"hal_server_…{raw[-4:]}")
    assert raw not in caplog.text
    assert world.metrics.refused_keys.value("unknown") == 5


async def test_a_flood_of_refused_keys_is_logged_at_a_bounded_rate(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand different keys within a second cost ten lines."""
    keys = [new_key(Kind.SERVER) for _ in range(1_000)]
    with caplog.at_level(logging.WARNING):
        for raw in keys:
            await world.call("POST", EVALUATE, BETA, key=raw)
    assert len(caplog.records) == 10
    assert world.metrics.refused_keys.value("unknown") == 1_000


def test_an_environment_is_chosen_by_id_or_key_and_project(world: World) -> None:
    """Keys that exist in two projects need the project; what is unclear names the choices."""
    world.snapshot({}, ref=reference(2, "production", "games"))
    grant = world.services.access.lookup(_fingerprint(world, Kind.RELAY))
    assert grant is not None
    assert select(grant, world.ref.id, None).ref == world.ref
    assert select(grant, "production", "games").ref.project_key == "games"
    assert select(grant, None, "project-shop").ref == world.ref
    for environment, project in [(None, None), ("production", None), ("nowhere", None), ("production", "none")]:
        with pytest.raises(Problem) as caught:
            select(grant, environment, project)
        assert caught.value.status == 422
        assert set(caught.value.extra["choices"]) <= {"games/production", "shop/production"}


def _fingerprint(world: World, kind: Kind) -> str:
    grant = world.configuration().credentials
    return next(each.fingerprint for each in grant.values() if each.kind == kind)


# --- pages of other origins -------------------------------------------------------------------------------------------


def listing(world: World, *origins: str) -> None:
    world.commit(credentials=world.credentials(origins=list(origins)))


async def preflight(world: World, origin: str) -> dict[str, str]:
    answer = await world.call(
        "OPTIONS",
        "/ofrep/v1/evaluate/flags",
        key=None,
        headers={"origin": origin, "access-control-request-method": "POST"},
    )
    assert answer.status == 204
    return answer.headers


async def test_a_preflight_allows_what_any_client_key_lists(world: World) -> None:
    """A listed origin gets methods and headers, and never credentials; another one gets nothing."""
    listing(world, PAGE)
    allowed = await preflight(world, PAGE)
    assert allowed["access-control-allow-origin"] == PAGE
    for name in ("authorization", "content-type", "if-none-match", "cache-control", "x-api-key", "last-event-id"):
        assert name in allowed["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed
    assert "access-control-allow-origin" not in await preflight(world, "https://evil.example.com")


async def test_the_request_itself_is_checked_against_its_own_key(world: World) -> None:
    """A page that the client key lists may read answer and ETag; one that only another key lists is refused, 403."""
    listing(world, PAGE)
    answer = await world.call("POST", EVALUATE, BETA, key=Kind.CLIENT, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "ETag" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"
    other = await world.call("POST", EVALUATE, BETA, key=Kind.CLIENT, headers={"origin": "https://evil.example.com"})
    assert (other.status, other.json["code"]) == (403, "key_origin")
    assert "access-control-allow-origin" not in other.headers


async def test_an_empty_list_means_no_page_and_a_star_every_page(world: World) -> None:
    """`[]` refuses every browser page, `*` none; requests without Origin are not pages."""
    assert (await world.call("POST", EVALUATE, BETA, key=Kind.CLIENT, headers={"origin": PAGE})).status == 403
    assert (await world.call("POST", EVALUATE, BETA, key=Kind.CLIENT)).status == 200
    listing(world, "*")
    answer = await world.call("POST", EVALUATE, BETA, key=Kind.CLIENT, headers={"origin": PAGE})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, PAGE)


async def test_a_listed_page_may_read_why_its_key_is_refused(world: World) -> None:
    """A 401 carries the same permission as the preflight did, or a browser would show a network error instead."""
    listing(world, PAGE)
    answer = await world.call("POST", EVALUATE, BETA, key=None, headers={"origin": PAGE})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, PAGE)


async def test_a_server_key_used_by_a_page_is_answered_but_not_shared(world: World) -> None:
    """Only origins that the key itself lists are let through to a page's script."""
    answer = await world.call("POST", EVALUATE, BETA, key=Kind.SERVER, headers={"origin": PAGE})
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_preflights_see_a_change_of_the_lists_at_once(world: World) -> None:
    """The union of the lists is remembered only as long as no credential changes."""
    listing(world, PAGE)
    await preflight(world, PAGE)
    world.commit({"beta": flag()}, credentials=world.credentials(origins=[]))
    assert "access-control-allow-origin" not in await preflight(world, PAGE)


async def test_what_no_key_vouched_for_is_not_shared(world: World) -> None:
    """An answer of a route without a key of ours stays unreadable to pages, whoever lists them."""
    listing(world, "*")

    async def open_route(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = Cors(open_route, world.services.access)
    answer = await world.call("GET", "/anything", key=None, headers={"origin": PAGE}, app=app)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"
