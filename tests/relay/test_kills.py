"""Kills: in effect at once, over restarts, and let go when the configuration has them, and not before."""

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from relay.changes.outbox import OutboxFull
from relay.changes.overlay import Position
from relay.clock import rfc3339
from relay.protocol.edge import EdgeChange, Kill, edge_key, is_proven
from tests.relay.edge_world import ENVIRONMENT, ORDER, OTHER, START, TOKEN, Edge

BETA = frozenset({"beta"})
NONE: frozenset[str] = frozenset()


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path / "outbox")


async def test_a_kill_is_on_disk_and_off_before_it_is_answered(edge: Edge) -> None:
    """Both hold when `kill` returns; it is counted and shown."""
    overlay = await edge.kills.kill(ORDER)
    assert edge.off == BETA
    assert edge.files == [f"{overlay.id}.json"]
    (shown,) = edge.kills.status()
    assert (shown["id"], shown["environment"], shown["flag"]) == (overlay.id, "shop/production", "beta")
    assert (shown["state"], shown["age_s"]) == ("pending", 0)
    assert edge.metrics.kills.value("taken") == 1
    assert edge.kills.counts() == {("pending",): 1}


async def test_the_body_is_proven_by_the_token_which_is_kept_nowhere(edge: Edge) -> None:
    """The proof holds for exactly this change; neither the token nor its key is in the record."""
    overlay = await edge.kills.kill(ORDER)
    body = orjson.loads(edge.outbox.records[overlay.id].body)
    op, origin = body["ops"][0], body["origin"]
    assert op == {"op": "kill", "project": "project-shop", "environment": ENVIRONMENT, "flag": "flag-beta", "reason": "fire"}  # fmt: skip  # noqa: E501
    change = EdgeChange(
        idempotency_key=overlay.id,
        ops=(Kill(project="project-shop", environment=ENVIRONMENT, flag="flag-beta", reason="fire"),),
        relay="relay-1",
        at=origin["at"],
        credential="credential-1",
    )
    assert is_proven(edge_key(TOKEN), change, origin["proof"])
    stored = (edge.path / edge.files[0]).read_text()
    assert TOKEN not in stored
    assert edge_key(TOKEN) not in stored
    assert edge_key(TOKEN) not in repr(ORDER)


@pytest.mark.parametrize("offset_ms", [-3_600_000, 0, 3_600_000])
async def test_a_kill_is_dated_by_the_authoritys_clock(edge: Edge, offset_ms: int) -> None:
    """A relay whose clock is behind loses no kill to an older switch-on; age and end are by its own clock."""
    edge.offset_ms = offset_ms
    overlay = await edge.kills.kill(ORDER)
    origin = orjson.loads(edge.outbox.records[overlay.id].body)["origin"]
    assert origin["at"] == rfc3339(edge.clock.wall_ms() + offset_ms)
    (shown,) = edge.kills.status()
    assert (shown["age_s"], shown["at"]) == (0, rfc3339(edge.clock.wall_ms()))
    assert overlay.expires_at_ms == edge.clock.wall_ms() + 3_600_000
    edge.restart()
    await edge.kills.restore()
    assert edge.off == BETA


async def test_a_later_kill_of_the_same_flag_counts_anew(edge: Edge) -> None:
    """It has its own time, as the flag may have been switched on meanwhile; the older one goes, without a gap."""
    first = await edge.kills.kill(ORDER)
    await edge.clock.advance(0.999)
    assert await edge.kills.kill(ORDER) == first
    await edge.clock.advance(0.001)
    second = await edge.kills.kill(ORDER)
    assert second.at_ms == first.at_ms + 1_000
    assert set(edge.told) == {BETA}
    await edge.kills.settle()
    assert (edge.files, edge.shown) == ([f"{second.id}.json"], [("beta", "pending")])
    record = edge.kills.next_pending()
    assert record is not None
    assert record.overlay == second
    assert (edge.metrics.kills.value("taken"), edge.metrics.kills.value("replaced")) == (2, 1)


async def test_a_wall_clock_that_jumped_back_makes_no_kill_a_repeated_one(edge: Edge) -> None:
    """The held one is of the future then, and not of a moment ago."""
    first = await edge.kills.kill(ORDER)
    edge.clock.jump_wall(-3_600_000)
    assert (await edge.kills.kill(ORDER)).id != first.id


async def test_a_later_kill_that_cannot_be_stored_leaves_the_older_one(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new record is durable before the older one goes."""
    first = await edge.kills.kill(ORDER)
    await edge.clock.advance(1)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            await edge.kills.kill(ORDER)
    await edge.kills.settle()
    assert (edge.files, edge.off) == ([f"{first.id}.json"], BETA)


async def test_a_committed_kill_is_no_answer_to_a_later_one(edge: Edge) -> None:
    """Nor is it dropped: should the authority refuse the later one, the flag stays off."""
    first = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[first.id], Position("e1", 5))
    second = await edge.kills.kill(ORDER)
    assert await edge.kills.kill(ORDER) == second != first
    edge.kills.withdraw(edge.outbox.records[second.id], "origin_revoked", "Revoked.")
    assert (edge.shown, edge.off) == ([("beta", "committed")], BETA)


async def test_each_token_has_its_own_kill_of_a_flag(edge: Edge) -> None:
    """The authority may refuse the one and take the other."""
    first = await edge.kills.kill(ORDER)
    second = await edge.kills.kill(replace(ORDER, credential_id="credential-2"))
    assert edge.shown == [("beta", "pending")] * 2
    edge.kills.withdraw(edge.outbox.records[second.id], "origin_revoked", "Revoked.")
    assert edge.off == BETA
    edge.kills.withdraw(edge.outbox.records[first.id], "origin_revoked", "Revoked.")
    assert edge.off == NONE


async def test_a_superseded_kill_is_told_and_goes_with_the_revision_that_came_before_it(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before: an older configuration may have the flag on with what it was killed for."""
    overlay = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[overlay.id], Position("e1", 5), is_superseded=True)
    assert (caplog.records[-1].levelname, edge.off) == ("WARNING", BETA)
    assert (edge.metrics.kills.value("superseded"), edge.metrics.kills.value("committed")) == (1, 0)
    edge.served = edge.kept = Position("e1", 5)
    await edge.kills.settle()
    assert (edge.shown, edge.off, edge.files) == ([], NONE, [])


async def test_postponed_kills_come_last(edge: Edge) -> None:
    """Also after those that are made later, and in turn; one that has ended meanwhile does not come back."""
    first = await edge.kills.kill(ORDER)
    record = edge.kills.next_pending()
    assert record is not None
    edge.kills.postpone(record)
    assert edge.kills.next_pending() == record
    second = await edge.kills.kill(OTHER)
    following = edge.kills.next_pending()
    assert following is not None
    assert (record.overlay, following.overlay) == (first, second)
    edge.kills.postpone(following)
    assert edge.kills.next_pending() == record
    edge.kills.postpone(record)
    assert edge.kills.next_pending() == following
    edge.kills.withdraw(following, "code", "reason")
    edge.kills.postpone(following)
    assert edge.kills.next_pending() == record
    edge.kills.withdraw(record, "code", "reason")
    assert edge.kills.next_pending() is None


async def test_a_repeated_kill_is_the_same_overlay(edge: Edge) -> None:
    """Also while the first is still being written; another flag is another kill."""
    first, second = await asyncio.gather(edge.kills.kill(ORDER), edge.kills.kill(ORDER))
    assert first == second == await edge.kills.kill(ORDER)
    await edge.kills.kill(OTHER)
    assert edge.off == {"beta", "gamma"}
    assert len(edge.files) == 2


async def test_what_cannot_be_stored_is_not_in_effect(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses and a full outbox leave everything as it was."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            await edge.kills.kill(ORDER)
    assert (edge.off, edge.shown) == (NONE, [])
    edge.max_kills = 1
    edge.restart()
    await edge.kills.kill(ORDER)
    with pytest.raises(OutboxFull):
        await edge.kills.kill(OTHER)
    assert (edge.off, edge.shown) == (BETA, [("beta", "pending")])


async def test_a_killed_flag_stays_killed_over_a_restart(edge: Edge) -> None:
    """With nothing but the record: it is off before anything is served, and waits to be handed over again."""
    overlay = await edge.kills.kill(ORDER)
    body = edge.outbox.records[overlay.id].body
    edge.restart()
    await edge.kills.restore()
    assert edge.off == BETA
    assert edge.shown == [("beta", "pending")]
    record = edge.kills.next_pending()
    assert record is not None
    assert record.body == body
    assert await edge.kills.kill(ORDER) == overlay


async def test_an_overlay_goes_when_the_configuration_has_the_kill(edge: Edge) -> None:
    """Confirmed is not enough; the revision has to be served."""
    overlay = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[overlay.id], Position("e1", 5))
    await edge.kills.settle()
    assert edge.shown == [("beta", "committed")]
    assert edge.kills.next_pending() is None
    edge.served = Position("e1", 5)
    await edge.kills.settle()
    assert (edge.shown, edge.off) == ([], NONE)
    assert edge.metrics.kills.value("committed") == 1


async def test_the_record_stays_until_a_restart_would_know(edge: Edge) -> None:
    """Else kill -9 right after the revision came would bring an older snapshot back, and the flag with it."""
    overlay = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[overlay.id], Position("e1", 5))
    edge.served = Position("e1", 5)
    await edge.kills.settle()
    assert (edge.shown, len(edge.files)) == ([], 1)
    edge.kept = Position("e1", 5)
    await edge.kills.settle()
    assert edge.files == []
    edge.restart()
    await edge.kills.restore()
    assert edge.off == NONE


@pytest.mark.parametrize("after", [None, Position("e2", 1)])
async def test_the_record_goes_when_a_restart_can_never_know(edge: Edge, after: Position | None) -> None:
    """The environment is deleted, or its lineage ends, before the snapshot file has the revision.

    It stays as long as the file has something else than what is in use: a restart would begin with that.
    """
    overlay = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[overlay.id], Position("e1", 5))
    edge.served = Position("e1", 5)
    for edge.kept in (START, Position("e0", 9)):
        await edge.kills.settle()
        assert (edge.shown, len(edge.files)) == ([], 1)
    edge.served = after
    for edge.kept in (START, Position("e0", 9)):
        await edge.kills.settle()
        assert len(edge.files) == 1
    edge.kept = after
    await edge.kills.settle()
    assert edge.files == []


async def test_a_flag_that_is_on_again_can_be_killed_again_at_once(edge: Edge) -> None:
    """An overlay that has done its duty, but has not been let go yet, is no answer to a new kill."""
    first = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[first.id], Position("e1", 5))
    edge.served = Position("e1", 6)
    second = await edge.kills.kill(ORDER)
    assert second.id != first.id
    assert edge.off == BETA


async def test_another_lineage_is_asked_again(edge: Edge) -> None:
    """A restored backup may not have the kill: it is handed over once more, and holds meanwhile."""
    overlay = await edge.kills.kill(ORDER)
    edge.kills.commit(edge.outbox.records[overlay.id], Position("e1", 5))
    edge.served = Position("e2", 9)
    await edge.kills.settle()
    assert (edge.shown, edge.off) == ([("beta", "pending")], BETA)
    record = edge.kills.next_pending()
    assert record is not None
    edge.kills.commit(record, Position("e2", 9))
    assert edge.shown == []


async def test_a_refused_kill_is_taken_back_and_told(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """The flag is as configured again, the record goes, and log, status and metrics say why."""
    overlay = await edge.kills.kill(ORDER)
    edge.kills.withdraw(edge.outbox.records[overlay.id], "origin_revoked", "The token was revoked.")
    assert (edge.off, edge.shown) == (NONE, [])
    await edge.kills.settle()
    assert edge.files == []
    refusal = edge.kills.outbox_status()["last_refusal"]
    assert (refusal["id"], refusal["code"], refusal["flag"]) == (overlay.id, "origin_revoked", "beta")
    assert edge.metrics.kills.value("refused") == 1
    assert "refuses a kill" in caplog.text


async def test_a_kill_ends_with_its_time(edge: Edge) -> None:
    """The time runs by the monotonic clock; a wall clock that jumps switches nothing on."""
    await edge.kills.kill(ORDER)
    edge.clock.jump_wall(10 * 365 * 86_400_000)
    running = asyncio.create_task(edge.kills.run())
    await edge.clock.advance(3_590)
    assert edge.off == BETA
    await edge.clock.advance(20)
    assert (edge.off, edge.shown, edge.kills.next_pending()) == (NONE, [], None)
    assert edge.metrics.kills.value("expired") == 1
    running.cancel()


async def test_answers_that_come_too_late_change_nothing(edge: Edge) -> None:
    """The time ran out while the authority was being asked."""
    overlay = await edge.kills.kill(ORDER)
    record = edge.outbox.records[overlay.id]
    await edge.clock.advance(3_600)
    await edge.kills.settle()
    edge.kills.commit(record, Position("e1", 5))
    edge.kills.withdraw(record, "code", "reason")
    await edge.kills.settle()
    assert edge.kills.outbox_status() == {"records": 0, "last_error": None, "last_refusal": None}
    assert edge.metrics.kills.value("committed") == 0


async def test_a_kill_whose_time_ran_out_while_the_relay_was_down_is_not_taken_up(edge: Edge) -> None:
    """It is forgotten before anything is served."""
    await edge.kills.kill(ORDER)
    edge.clock.jump_wall(3_600_001)
    edge.restart()
    await edge.kills.restore()
    assert (edge.off, edge.files) == (NONE, [])


async def test_a_restart_never_makes_a_kill_longer_than_it_may_be(edge: Edge) -> None:
    """A wall clock that was far ahead when the flag was killed does not hold it for years."""
    edge.clock.jump_wall(10 * 365 * 86_400_000)
    await edge.kills.kill(ORDER)
    edge.clock.jump_wall(-10 * 365 * 86_400_000)
    edge.restart()
    await edge.kills.restore()
    await edge.clock.advance(3_600)
    await edge.kills.settle()
    assert edge.off == NONE


async def test_a_record_that_cannot_be_removed_is_tried_again(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and shown for as long as it lasts."""
    overlay = await edge.kills.kill(ORDER)
    edge.kills.withdraw(edge.outbox.records[overlay.id], "code", "reason")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", _refuse)
        await edge.kills.settle()
        await edge.kills.settle()
    assert edge.kills.outbox_status()["last_error"] == "[Errno 30] read-only"
    assert sum("cannot be removed" in each.message for each in caplog.records) == 1
    await edge.kills.settle()
    assert (edge.files, edge.kills.outbox_status()["last_error"]) == ([], None)


def _refuse(_path: Path, *, missing_ok: bool) -> None:
    assert missing_ok
    raise OSError(errno.EROFS, "read-only")
