"""The change stream over HTTP: what a follower gets on connecting, on a change, and on coming back."""

import json

import pytest

from tests.stack import Json, Message, Running

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]
STREAM = "/api/v2/stream"


@pytest.mark.parametrize("service", ["upstream", "relay"])
async def test_a_follower_that_was_away_gets_exactly_the_missing_revisions(running: Running, service: str) -> None:
    """Three changes made while a follower is cut off reach it as three `changes`, in order, without a snapshot."""
    await running.settled()
    client = getattr(running, service)("relay_key")
    async with client.stream(STREAM) as stream:
        snapshots: dict[str, Message] = {}
        environments = await stream.next_named("environments")
        while len(snapshots) < len(environments.data["environments"]):
            snapshot = await stream.next_named("snapshot")
            snapshots[snapshot.data["environment"]["key"]] = snapshot
        last_id = snapshot.id
    mine = snapshots[running.demo["environment"]]
    revision, environment = mine.data["revision"], mine.data["environment"]["id"]

    for enabled in (False, True, False):
        await running.toggle(enabled=enabled)
    try:
        async with client.stream(STREAM, last_event_id=last_id) as stream:
            missed: list[Json] = []
            while len(missed) < 3:
                message = await stream.next_named("snapshot", "changes", "goodbye")
                assert message.event == "changes", message
                missed.append(message.data)
        assert [(m["environment"], m["from"], m["to"]) for m in missed] == [
            (environment, revision + step, revision + step + 1) for step in range(3)
        ]
        assert [m["upsert"]["flags"][running.demo["flag"]]["enabled"] for m in missed] == [False, True, False]
    finally:
        await running.toggle(enabled=True)


async def test_audiences(running: Running) -> None:
    """Relay keys get credentials; server keys get flags and segments of their environment only; client keys get 403."""
    async with running.upstream("relay_key").stream(STREAM) as stream:
        whole = (await stream.next_named("snapshot")).data
    assert {"credentials", "credentials_hash", "secrets", "limits", "flags", "segments"} <= set(whole)

    async with running.upstream("server_key").stream(STREAM) as stream:
        listed = (await stream.next_named("environments")).data["environments"]
        mine = (await stream.next_named("snapshot")).data
    assert [environment["key"] for environment in listed] == [running.demo["environment"]]
    assert not {"credentials", "credentials_hash", "secrets", "limits"} & set(mine)

    status, body = await running.upstream("client_key").get(STREAM)
    assert (status, body["status"]) == (403, 403)


async def test_an_environment_can_be_chosen_and_stream_headers_defeat_buffering(running: Running) -> None:
    """`?environments=` narrows the stream; the answer forbids caching, transforming and buffering."""
    async with running.upstream("relay_key").stream(f"{STREAM}?environments=staging") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.headers["Cache-Control"] == "no-store, no-transform"
        assert stream.headers["X-Accel-Buffering"] == "no"
        listed = (await stream.next_named("environments")).data["environments"]
    assert [environment["key"] for environment in listed] == ["staging"]


@pytest.mark.parametrize("resume", ["garbage", "1.ffffffffffffffff.000000000000-1-00000000", "1..", "x" * 4000])
async def test_an_unusable_resume_id_gets_a_snapshot(running: Running, resume: str) -> None:
    """F26: garbage, another epoch's or an over-long id is answered with whole snapshots and the reason."""
    async with running.upstream("relay_key").stream(STREAM, last_event_id=resume) as stream:
        snapshot = await stream.next_named("snapshot", "changes", "goodbye")
    assert snapshot.event == "snapshot"
    assert snapshot.data["reason"] in {"resync", "epoch", "start"}
    json.dumps(snapshot.data)
