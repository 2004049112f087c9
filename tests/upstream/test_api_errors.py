"""What the API answers when nothing fits or something breaks: one shape, a request id, nothing of the inside."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.upstream.management import P, World
from upstream.storage.database import Unavailable


async def test_unknown_paths_are_404(world: World) -> None:
    """What is no route is a problem, with and without a key; a slash at the end is another path."""
    for path in ("/", "/nowhere", "/api/v2", "/api/v2/nowhere", f"{P}/", "//api//v2/projects", "/api/v2/../etc"):
        for caller in (world.api, world.nobody):
            assert (await caller.get(path)).code == "not_found", path


async def test_wrong_methods_are_405_with_every_allowed_one(world: World) -> None:
    """The Allow header names the methods of all routes of the path, not only of the first."""
    refused = await world.api.call("POST", P)
    assert (refused.code, refused.headers["allow"]) == ("method_not_allowed", "DELETE, GET, PATCH, PUT")
    assert (await world.nobody.call("BREW", "/api/v2/projects")).headers["allow"] == "GET, POST"


async def test_long_paths_and_queries_are_414(world: World) -> None:
    """A path over 2 KiB or a query over 8 KiB is refused before anything else."""
    assert (await world.nobody.get("/" + "x" * 2048)).code == "path_too_long"
    assert (await world.nobody.get("/api/v2/projects?" + "x" * 8193)).code == "query_too_long"


async def test_request_ids_are_taken_if_sane_and_always_answered(world: World) -> None:
    """A caller's request id comes back when it is short and plain; otherwise, and without one, a new one is made."""
    assert (await world.nobody.get("/nowhere", X_Request_Id="abc-1.2_3")).headers["x-request-id"] == "abc-1.2_3"
    for strange in ("a b", "x" * 65, "é", "<script>", ""):
        assert (await world.nobody.get("/nowhere", X_Request_Id=strange)).headers["x-request-id"] != strange
    ids = {(await world.nobody.get("/nowhere")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def _failing(error: Exception) -> Callable[..., Any]:
    async def fail(*_: Any) -> None:
        raise error

    return fail


async def test_the_unexpected_is_a_500_that_says_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody foresaw is logged with its traceback under the request id; the answer has neither."""
    monkeypatch.setattr(world.authority, "execute", _failing(RuntimeError("the password is hunter2")))
    reply = await world.api.post("/api/v2/projects", {"name": "X"})
    assert (reply.status, reply.code) == (500, "internal_error")
    assert b"hunter2" not in reply.raw
    record = next(record for record in caplog.records if record.exc_info)
    assert record.__dict__["request_id"] == reply.headers["x-request-id"]
    assert "hunter2" in caplog.text


async def test_a_busy_or_full_database_is_503_with_retry_after(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that the database cannot take are a 503 to be tried again; reads go on."""
    await world.api.get(P)
    unavailable = Unavailable("database or disk is full")
    monkeypatch.setattr(world.database, "write", _failing(unavailable))
    refused = await world.api.post("/api/v2/projects", {"name": "X"})
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "database_unavailable", "2")
    assert (await world.api.get(P)).status == 200
    monkeypatch.setattr(world.database, "read", _failing(unavailable))
    assert (await world.api.get(P)).code == "database_unavailable"


async def test_reading_does_not_depend_on_noting_the_use_of_a_token(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the time of use cannot be stored, the request is answered all the same and the log says so."""
    monkeypatch.setattr(world.database, "write", _failing(Unavailable("disk is full")))
    assert (await world.caller("read").get(P)).status == 200
    assert "the use of a token was not stored" in caplog.text


async def test_answers_are_not_cached(world: World) -> None:
    """Answers, refusals included, tell caches to keep nothing and browsers not to guess types."""
    for reply in (await world.api.get(P), await world.nobody.get(P)):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
