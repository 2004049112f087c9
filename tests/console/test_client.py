"""Requests and their failures: each way of going wrong has its exit status and its sentence."""

import socket

import pytest

from tests.console.terminal import Request, StandIn, halyard, page
from tests.stack import free_port
from upstream.console.client import Client, path_of
from upstream.console.failures import Exit, Failed


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [(400, 1), (401, 3), (403, 3), (404, 4), (409, 5), (412, 5), (422, 1), (429, 6), (500, 1), (502, 6), (503, 6)],
)
def test_each_refusal_has_its_exit_status(stand_in: StandIn, status: int, exit_status: int) -> None:
    """The API's sentence is printed, and the request to ask about."""
    stand_in.routes["GET /projects"] = (status, {"code": "c", "detail": "So it is.", "request_id": "r-1"})
    typed = halyard("projects", "list")
    assert (typed.status, typed.out) == (exit_status, "")
    assert typed.err.startswith("halyard: So it is.")
    assert typed.err.endswith("  request r-1\n")


@pytest.mark.parametrize("answer", [(502, b"<html>Bad gateway</html>"), (302, {"detail": 1}), (500, [])])
def test_what_is_no_halyard_is_told_apart(stand_in: StandIn, answer: object) -> None:
    """A proxy's page or redirect is no answer of an upstream; no redirect is followed."""
    stand_in.routes["GET /projects"] = answer
    typed = halyard("projects", "list", "--json")
    assert typed.status in {1, 6}
    assert "is it Halyard?" in typed.err


def test_a_route_that_is_not_there_is_an_older_upstream(stand_in: StandIn) -> None:
    """Whoever has a newer command line than upstream is told so."""
    typed = halyard("stale")
    assert (typed.status, "an older Halyard" in typed.err) == (4, True)
    assert stand_in.requests


def test_nobody_there() -> None:
    """The address, the reason and what to look at are named; the status is 6."""
    url = f"http://127.0.0.1:{free_port()}"
    typed = halyard("projects", "list", "--url", url)
    assert typed.status == 6
    assert typed.err.startswith(f"halyard: {url} cannot be reached: Connection refused. Is it the right --url")


async def test_no_answer_in_time() -> None:
    """A request does not wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with Client(url, "hal_token_x", timeout_s=0.05) as opened:
            with pytest.raises(Failed, match="did not answer within") as caught:
                await opened.get("/projects")
    assert caught.value.status is Exit.UNAVAILABLE


def test_pages_are_put_together(stand_in: StandIn) -> None:
    """A list longer than the API's pages is fetched page by page, up to --limit, as one document."""
    rows = [{"key": f"p{number}", "name": "", "description": None} for number in range(250)]

    def projects(request: Request) -> object:
        start, limit = int(request.query.get("offset", 0)), int(request.query["limit"])
        found = rows[start : start + limit]
        return {**page(*found), "total": 250, "has_more": start + limit < 250}

    stand_in.routes["GET /projects"] = projects
    whole = halyard("projects", "list", "--limit", "1000", "--json").done().json
    assert [each["key"] for each in whole["data"]] == [each["key"] for each in rows]
    assert (whole["total"], whole["has_more"]) == (250, False)
    some = halyard("projects", "list", "--limit", "120", "--json").done()
    assert (len(some.json["data"]), some.json["has_more"]) == (120, True)
    assert "120 of 250 are shown" in some.err


def test_names_do_nothing_to_a_terminal(stand_in: StandIn) -> None:
    """Control characters of somebody's flag name are not printed."""
    stand_in.routes["GET /projects"] = page({"key": "a", "name": "x\x1b]0;owned\x07\nb", "description": None})
    out = halyard("projects", "list").done().out
    assert "x�]0;owned� b" in out


def test_parts_of_a_path_are_quoted() -> None:
    """A key may hold whatever; a verb stays one."""
    assert path_of("projects", "a/b?", "flags", "x y", ":toggle") == "/projects/a%2Fb%3F/flags/x%20y:toggle"


def test_a_token_that_cannot_be_sent(stand_in: StandIn) -> None:
    """A line break in a token is refused before anything is sent."""
    typed = halyard("projects", "list", "--token", "a\nb")
    assert (typed.status, stand_in.requests) == (2, [])
