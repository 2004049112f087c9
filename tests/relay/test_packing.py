"""Answers for all flags, gzipped: who gets them so, that lane and app agree on it, and that clients can read them."""

import gzip
import itertools
import socket
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.keys import Kind
from relay.serve import served as served_module
from relay.serve.packing import Packer, takes_gzip
from relay.settings import Limits, Serve
from tests.relay.objects import SPLIT, flag
from tests.relay.two_ways import ROUTES, START_MS, Answer, TwoWays, flags, peer_of, served, two_ways

FAR = "10.1.2.3"
ACCEPTED: dict[str, bool] = {
    "gzip": True,
    "GZIP": True,
    "x-gzip": True,
    "gzip, deflate, br, zstd": True,
    "br;q=1.0, gzip;q=0.8, *;q=0.1": True,
    "gzip ; Q = 0.5": True,  # with spaces that the standard does not have
    "gzip;q=0.001": True,
    "gzip;q=0": False,
    "gzip;q=0.000, *": False,
    "gzip;q=2": False,
    "gzip;q=-1": False,
    "gzip;q=nan": False,
    "gzip;q=": False,
    "gzip;level=9": True,
    "*": True,
    "*;q=0": False,
    "*;q=0, gzip": True,
    "identity": False,
    "identity, gzip": True,
    "identity;q=0.5, gzip;q=0.9": True,
    "identity, gzip;q=0.5": False,
    "identity;q=0": False,
    "br": False,
    "gzipped": False,
    "": False,
    ",": False,
}


def far_away(**settings: Any) -> TwoWays:
    """Return both ways for clients from another machine; some flags are long."""
    both = two_ways(flags() | {"long": flag(on="x" * 2_000, off="")}, Serve(**settings))
    both.come_from(FAR)
    return both


def asking(both: TwoWays, route: str, accepted: str | None, *more: tuple[str, str]) -> bytes:
    headers = [] if accepted is None else [("Accept-Encoding", accepted)]
    return both.request(*ROUTES[route], headers=[*headers, *more])


def is_packed(answer: Answer) -> bool:
    return ("content-encoding", "gzip") in answer.headers


@pytest.mark.parametrize(("accepted", "is_taken"), ACCEPTED.items())
def test_what_accepts_gzip(accepted: str, *, is_taken: bool) -> None:
    """Weights, wildcards, and codings that are preferred to it."""
    assert takes_gzip(accepted.encode()) is is_taken


def test_nothing_said_is_nothing_accepted() -> None:
    """A client that names no codings may know none."""
    assert takes_gzip(None) is False


@pytest.mark.parametrize("route", ["bulk", "bootstrap"])
async def test_both_ways_pack_alike(route: str) -> None:
    """Whatever is accepted and whatever ETag is named: the same status, fields and content; first, again and kept."""
    both = far_away()
    (first,) = await both.same(asking(both, route, None))
    etag = dict(first.headers)["etag"]
    named: list[tuple[tuple[str, str], int]] = [
        (("If-None-Match", each), status)
        for each, status in [
            (etag, 304), (etag.removeprefix("W/"), 304), (f'"a", {etag}', 304), ("*", 304), ('W/"a"', 200),
        ]
    ]  # fmt: skip
    for accepted, (more, status) in itertools.product([None, *ACCEPTED], [(("Accept", "*/*"), 200), *named]):
        for _ in range(3):
            (answer,) = await both.same(asking(both, route, accepted, more), what=f"{accepted} {more}")
            fields = dict(answer.headers)
            assert (answer.status, fields["etag"], fields["vary"]) == (status, etag, "Accept-Encoding")
            assert is_packed(answer) == (status == 200 and ACCEPTED.get(accepted or "", False))
            assert answer.body == (first.body if status == 200 else b"")
    await both.same_counts()


async def test_the_field_may_stand_there_twice() -> None:
    """Two fields are one list."""
    both = far_away()
    for first, second, is_taken in (("br", "gzip", True), ("gzip", "gzip;q=0", False)):
        (answer,) = await both.same(asking(both, "bulk", first, ("Accept-Encoding", second)))
        assert is_packed(answer) is is_taken


async def test_a_browser_gets_it_too() -> None:
    """A request with an origin is the app's; its answer varies by both."""
    both = far_away()
    (answer,) = await both.same(asking(both, "bulk", "gzip", ("Origin", "https://shop.example")))
    assert is_packed(answer)
    assert [value for name, value in answer.headers if name == "vary"] == ["Accept-Encoding", "Origin"]


@pytest.mark.parametrize(
    ("peer", "settings", "is_offered"),
    [
        (FAR, {}, True),
        ("2001:db8::1", {}, True),
        ("::ffff:10.1.2.3", {}, True),
        ("127.0.0.1", {}, False),
        ("127.8.0.1", {}, False),
        ("::1", {}, False),
        ("::ffff:127.0.0.1", {}, False),
        ("127.0.0.1", {"compress_loopback": True}, True),
        (FAR, {"compress_from_bytes": 0}, False),
        ("127.0.0.1", {"compress_from_bytes": 0, "compress_loopback": True}, False),
    ],
)
async def test_who_is_offered_it(peer: str, settings: Any, *, is_offered: bool) -> None:
    """Others than this machine, unless the operator has it otherwise; to nobody else the answer says that it varies."""
    both = far_away(**settings)
    both.come_from(peer)
    for route in ("bulk", "bootstrap"):
        for _ in range(3):
            (answer,) = await both.same(asking(both, route, "gzip"))
            assert is_packed(answer) is is_offered
            assert ("vary" in dict(answer.headers)) is is_offered


async def test_short_answers_single_answers_and_errors_stay_as_they_are() -> None:
    """Only an answer for all flags can be packed, and only from the length on that is set."""
    both = two_ways(settings=Serve(compress_from_bytes=100_000))
    both.come_from(FAR)
    for route in ROUTES:
        for _ in range(3):
            (answer,) = await both.same(asking(both, route, "gzip"))
            assert not is_packed(answer)
            assert ("vary" in dict(answer.headers)) is (route in {"bulk", "bootstrap"})
    eager = far_away(compress_from_bytes=1, limits=Limits(context_bytes=256))
    single = "/ofrep/v1/evaluate/flags/long"
    requests = [
        (eager.request(single, headers=[("Accept-Encoding", "gzip")]), 200),
        (asking(eager, "bulk", "gzip").replace(b"Bearer hal_", b"Bearer hal-"), 401),
        (eager.request(ROUTES["bulk"][0], b"[]", headers=[("Accept-Encoding", "gzip")]), 400),
        (eager.request(ROUTES["bulk"][0], b" " * 300, headers=[("Accept-Encoding", "gzip")]), 413),
    ]
    for request, status in requests:
        (answer,) = await eager.same(request)
        assert (answer.status, is_packed(answer), "vary" in dict(answer.headers)) == (status, False, False)


async def test_the_length_that_is_set_is_the_shortest_that_is_packed() -> None:
    """One byte less stays as it is."""
    plain = far_away()
    (answer,) = await plain.same(asking(plain, "bootstrap", None))
    assert answer.status == 200
    length = len(answer.body)
    for from_bytes, is_taken in ((length, True), (length + 1, False)):
        both = far_away(compress_from_bytes=from_bytes)
        (answer,) = await both.same(asking(both, "bootstrap", "gzip"))
        assert is_packed(answer) is is_taken


async def test_an_answer_is_packed_once_and_kept_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What all answers begin with is packed once for each revision, and a kept answer is not packed again."""
    begun, packed = [], []

    class Noting(Packer):
        def __init__(self, beginning: bytes) -> None:
            begun.append(len(beginning))
            super().__init__(beginning)

        def pack(self, body: bytes) -> bytes:
            packed.append(len(body))
            return super().pack(body)

    monkeypatch.setattr(served_module, "Packer", Noting)
    both = far_away()
    for unit in ("u", "v"):
        request = both.request(
            ROUTES["bulk"][0], {"context": {"targetingKey": unit}}, headers=[("Accept-Encoding", "gzip")]
        )
        for _ in range(5):
            await both.same(request)
    assert (len(begun), len(packed)) == (1, 4)
    assert begun[0] > 2_000
    assert both.hot.in_lane == {("bulk", "evaluated"): 4, ("bulk", "cached"): 6}
    both.commit({"split": flag(fallthrough=SPLIT, id="id-split")})
    await both.same(asking(both, "bulk", "gzip"))
    assert len(begun) == 2
    await both.same_counts()


async def test_kept_answers_are_told_apart() -> None:
    """Clients that take gzip and clients that do not share a key and a context, and get what they can read."""
    both = far_away()
    for _ in range(4):
        for accepted in ("gzip", None, "br"):
            (answer,) = await both.same(asking(both, "bulk", accepted))
            assert is_packed(answer) is (accepted == "gzip")
    both.clock.jump_wall(START_MS)
    (answer,) = await both.same(asking(both, "bulk", "gzip"))
    assert is_packed(answer)
    await both.same_counts()


@given(st.binary(max_size=400), st.lists(st.binary(max_size=400), max_size=3))
def test_packed_is_what_was_packed(beginning: bytes, ends: list[bytes]) -> None:
    """Whatever bodies begin with and however they go on."""
    packer = Packer(beginning)
    for end in (b"", *ends):
        assert gzip.decompress(packer.pack(beginning + end)) == beginning + end


def own_address() -> str:
    """Return an address of this machine under which others reach it; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback one")
        return str(asked.getsockname()[0])


async def test_a_client_reads_it_over_a_network() -> None:
    """The same listener packs for who comes by the machine's own address and not for who comes by the loopback one."""
    both = far_away()
    path, body = ROUTES["bulk"]
    authorization = {"Authorization": f"Bearer {both.key(Kind.SERVER)}"}
    for way in both.ways:
        async with served(way, "0.0.0.0") as server, aiohttp.ClientSession(headers=authorization) as client:
            texts = []
            for host, is_far in ((own_address(), True), ("127.0.0.1", False)):
                for _ in range(3):
                    async with client.post(f"http://{host}:{server.port}{path}", json=body) as reply:
                        assert (reply.headers.get("Content-Encoding") == "gzip") is is_far
                        assert (int(reply.headers["Content-Length"]) < 2_000) is is_far
                        texts.append(await reply.text())
                        named = {"If-None-Match": reply.headers["ETag"]}
                    async with client.post(f"http://{host}:{server.port}{path}", json=body, headers=named) as unchanged:
                        assert unchanged.status == 304
            assert len(set(texts)) == 1
            assert orjson.loads(texts[0])["flags"]


async def test_what_a_proxy_says_of_its_client_does_not_count() -> None:
    """A proxy on this machine gets plain answers, and may pack them itself: it is the other end of the connection."""
    both = far_away(trusted_proxies=("127.0.0.1",))
    for way in both.ways:
        async with served(way) as server, peer_of(server) as peer:
            await peer.send(asking(both, "bulk", "gzip", ("X-Forwarded-For", FAR)))
            (answer,), _ = await peer.answers(1)
            assert answer.status == 200
            assert not is_packed(answer)
            assert "vary" not in dict(answer.headers)
