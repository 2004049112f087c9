"""A flag is killed at the relay while the upstream is down: off at once and for good, in the upstream in the end."""

from typing import Any

import pytest

from relay.clock import parse_rfc3339_ms
from tests.faults.pair import Pair
from tests.stack import Client, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]


async def overlays(pair: Pair) -> list[dict[str, Any]]:
    status, body = await pair.admin.get("/status")
    assert status == 200, body
    found: list[dict[str, Any]] = body["overlays"]
    return found


async def is_off(pair: Pair) -> bool:
    return (await pair.evaluate())["value"] is False


async def kill(pair: Pair, operator: Client, reason: str) -> dict[str, Any]:
    body = {"environment": pair.demo["environment"], "reason": reason}
    status, answer = await operator.post(f"{pair.flag_path}:kill", body)
    assert status == 202, answer
    killed: dict[str, Any] = answer
    return killed


async def test_a_kill_holds_through_crashes_and_reaches_the_upstream_once(pair: Pair) -> None:
    """Evaluation and the open stream change at once; a crash of the relay changes nothing; the upstream gets it once.

    There it is one audit entry with actor and door, and the overlay goes without a flicker.
    """
    flag = pair.demo["flag"]
    operator = pair.relay("token")
    await pair.kill_upstream()
    async with pair.relay("client_key").stream("/api/v2/client/stream?context=e30") as stream:
        assert (await stream.next_named("put")).data["flags"][flag]["value"] is True
        killed = await kill(pair, operator, "payments fail")
        assert await is_off(pair)
        patch = await stream.next_named("patch")
        assert list(patch.data["flags"]) == [flag]
        assert patch.data["flags"][flag]["value"] is False
    assert (killed["flag"], killed["environment"], killed["status"]) == (flag, pair.demo["environment"], "pending")
    # The same kill once more, or one that takes its place when the first is older than a moment.
    killed = await kill(pair, operator, "payments fail")
    shown = [(each["id"], each["flag"], each["environment"], each["state"]) for each in await overlays(pair)]
    assert shown == [(killed["id"], flag, "demo/production", "pending")]

    await pair.kill_relay()
    pair.start_relay()
    await pair.relay_ready()
    assert await is_off(pair)

    pair.start_upstream()
    await pair.upstream_ready()
    async with pair.relay("client_key").stream("/api/v2/client/stream?context=e30") as stream:
        assert (await stream.next_named("put")).data["flags"][flag]["value"] is False

        async def no_overlay() -> bool:
            assert await is_off(pair)
            return not await overlays(pair)

        await until("the overlay has gone", no_overlay, deadline_s=60)
        status, config = await pair.manage.get(f"{pair.flag_path}/environments/{pair.demo['environment']}")
        assert (status, config["enabled"]) == (200, False)
        # Whatever comes next on the stream is another change: the kill's own revision was no news to this client.
        await pair.toggle(enabled=True)
        patch = await stream.next_named("put", "patch", "delete")
        assert (patch.event, patch.data["flags"][flag]["value"]) == ("patch", True)

    status, audit = await pair.manage.get(f"{pair.project_path}/audit?action=flag.killed")
    assert status == 200, audit
    (entry,) = audit["data"]
    assert (entry["via"], entry["actor"]["type"], entry["reason"]) == ("relay", "token", "payments fail")
    # One machine and one clock: what is measured as the upstream's offset is how long a bookmark was on its way.
    assert abs(parse_rfc3339_ms(entry["edge_at"]) - parse_rfc3339_ms(killed["at"])) < 10_000


async def test_a_kill_with_a_token_that_was_revoked_meanwhile_is_taken_back(pair: Pair) -> None:
    """The upstream asks for the permission of now: it refuses, the flag is on again, and the relay says why."""
    status, made = await pair.manage.post("/api/v2/tokens", {"name": "night shift", "scopes": ["flags:write"]})
    assert status == 201, made
    assert pair.session is not None
    operator = Client(pair.session, pair.relay_url, made["token"])

    await pair.settled()
    await pair.kill_upstream()
    killed = await kill(pair, operator, "no reason at all")
    assert await is_off(pair)

    await pair.kill_relay()
    pair.start_upstream()
    await pair.upstream_ready()
    status, _ = await pair.manage.call("DELETE", f"/api/v2/tokens/{made['id']}")
    assert status == 204
    pair.start_relay()
    await pair.relay_ready()

    async def taken_back() -> bool:
        return not await overlays(pair)

    await until("the kill is taken back", taken_back)
    assert not await is_off(pair)
    refusal = (await pair.admin.get("/status"))[1]["outbox"]["last_refusal"]
    assert (refusal["id"], refusal["code"]) == (killed["id"], "origin_revoked")
    status, audit = await pair.manage.get(f"{pair.project_path}/audit?action=flag.killed")
    assert (status, audit["data"]) == (200, [])
