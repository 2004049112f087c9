"""What stands around every request: limits of the request line, bodies in time and size, ids, headers, and errors."""

import asyncio
import logging
from typing import Any

import orjson
import pytest
from starlette.requests import ClientDisconnect

from relay.errors import Problem
from relay.metrics import RelayMetrics
from relay.serve.bodies import Field, check_members, read_body
from relay.serve.guard import Guard
from relay.settings import Limits
from tests.relay.world import World, call_asgi

BULK = "/ofrep/v1/evaluate/flags"


@pytest.mark.parametrize(
    ("target", "code"),
    [("/" + "a" * 2_048, "path_too_long"), ("/api/v2/stream?x=" + "a" * 8_192, "query_too_long")],
)
async def test_long_request_lines_are_414(world: World, target: str, code: str) -> None:
    """A path over 2 KiB and a query over 8 KiB are refused before anything else."""
    answer = await world.call("GET", target)
    assert (answer.status, answer.json["code"]) == (414, code)


@pytest.mark.parametrize("target", ["/nowhere", "/", "/api/v2/", "//api//v2/evaluate", "/../etc/passwd", "/ofrep/v2/x"])
async def test_an_unknown_path_is_404_in_the_shape_of_its_api(world: World, target: str) -> None:
    """Problem details everywhere, OFREP's body below /ofrep/."""
    answer = await world.call("GET", target)
    assert answer.status == 404
    assert answer.json["errorCode" if target.startswith("/ofrep/") else "code"] in {"not_found", "GENERAL"}


async def test_a_wrong_method_is_405_and_names_the_right_one(world: World) -> None:
    """The Allow header says which method the path takes."""
    answer = await world.call("GET", "/api/v2/evaluate")
    assert (answer.status, answer.json["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert (await world.call("HEAD", "/api/v2/stream")).status == 405


async def test_answers_are_not_cached_not_sniffed_and_have_an_id(world: World) -> None:
    """Defaults of every answer; the id is the caller's own where it is usable, and stands in problems."""
    answer = await world.call("GET", "/nowhere", headers={"x-request-id": "trace-1"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"] == answer.json["request_id"] == "trace-1"
    forged = await world.call("GET", "/nowhere", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"


async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
    raise RuntimeError("secret detail")


async def test_an_unexpected_error_is_a_500_that_says_nothing_and_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The request id leads from the answer to the log."""
    with caplog.at_level(logging.ERROR):
        answer = await call_asgi(Guard(broken, Limits(), RelayMetrics()), "GET", "/x", b"", {"x-request-id": "id-7"})
    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert "id-7" in answer.json["detail"]
    assert "secret detail" in caplog.text
    assert vars(caplog.records[0])["request_id"] == "id-7"


async def test_a_request_that_passes_two_guards_is_counted_once() -> None:
    """One app mounted in another answers one request, not two."""
    metrics = RelayMetrics()
    app = Guard(Guard(broken, Limits(), metrics), Limits(), metrics)
    assert (await call_asgi(app, "GET", "/x", b"", {})).status == 500
    assert metrics.requests.total() == 1


async def test_an_error_after_the_answer_began_breaks_the_connection() -> None:
    """Nothing can be said any more, so the server has to close."""

    async def half(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await call_asgi(Guard(half, Limits(), RelayMetrics()), "GET", "/x", b"", {})


async def test_answers_are_counted_by_family_of_route_and_status(world: World) -> None:
    """Never by path, which a caller chooses freely."""
    await world.evaluate("beta")
    await world.call("GET", "/a-path-of-my-own")
    assert world.metrics.requests.value("ofrep", "200") == 1
    assert world.metrics.requests.value("other", "404") == 1


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "limit_bytes"),
    [(BULK, 65_536), ("/api/v2/evaluate", 65_536), ("/api/v2/client/stream", 65_536), ("/api/v2/track", 1_048_576)],
)
async def test_a_long_body_is_413_announced_or_not(world: World, target: str, limit_bytes: int) -> None:
    """The announced length is believed at once; without one the bytes are counted."""
    body = b'{"context":{"a":"' + b"x" * limit_bytes + b'"}}'
    for headers in ({"content-length": str(len(body))}, {}):
        answer = await world.call("POST", target, body, headers=headers)
        assert answer.status == 413
        assert str(limit_bytes) in answer.json.get("detail", answer.json.get("errorDetails"))


async def test_a_compressed_body_is_415(world: World) -> None:
    """Nothing is decompressed, so nothing can be a bomb."""
    answer = await world.call("POST", "/api/v2/evaluate", b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding")


async def test_a_body_that_is_not_complete_in_time_is_408() -> None:
    """A client that stops in the middle does not hold a request for ever."""

    async def stalled() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(Problem) as caught:
        await read_body({"headers": []}, stalled, 100, 0.001)
    assert (caught.value.status, caught.value.code) == (408, "body_timeout")


async def test_a_client_that_goes_in_the_middle_of_its_body_is_not_answered(world: World) -> None:
    """There is nobody to answer, and it is no error."""

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await read_body({"headers": []}, gone, 100, 1)
    sent: list[Any] = []

    async def leaving(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ClientDisconnect

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "state": {}}
    await Guard(leaving, Limits(), world.metrics)(scope, gone, send)
    assert not sent


async def test_a_body_may_come_in_parts() -> None:
    """Parts are joined in order."""
    parts = [b'{"a"', b":", b"1}"]

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": len(parts) > 0}

    assert orjson.loads(await read_body({"headers": []}, receive, 100, 1)) == {"a": 1}


def test_every_fault_of_a_body_is_named_at_once() -> None:
    """Unknown names with the nearest known one, missing ones, and wrong types, each by its name."""
    fields = {"flag": Field(str, required=True), "context": Field(dict, required=True), "environment": Field(str)}
    with pytest.raises(Problem) as caught:
        check_members({"flg": "x", "zzz": 1, "context": 7, "environment": "e" * 600}, fields)
    errors = caught.value.errors
    assert set(errors) == {"flg", "zzz", "flag", "context", "environment"}
    assert "'flag'" in errors["flg"][0]
    assert "known are" in errors["zzz"][0]
    assert errors["flag"] == ["is required"]
    assert errors["context"] == ["must be an object"]


async def test_a_query_that_is_no_query_is_400(world: World) -> None:
    """Bytes that are not UTF-8, and a hundred parameters, are refused."""
    assert (await world.call("GET", "/ofrep/v1/stream?token=%ff")).status == 400
    assert (await world.call("GET", "/ofrep/v1/stream?" + "&".join(f"a{n}=1" for n in range(100)))).status == 400
