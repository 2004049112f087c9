"""Answers put together from pieces are the routes' own, byte for byte, whatever the configuration and the context."""

import asyncio
from contextlib import suppress
from typing import Any

import orjson
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.engine.node import InvalidConfig
from relay.engine.parse import parse_flag, parse_segment
from relay.protocol.hashing import canonical
from relay.protocol.keys import Kind
from relay.settings import Serve
from tests.engine.configurations import contexts, flags, names, segments
from tests.relay.objects import Json
from tests.relay.two_ways import two_ways

PATHS = ("/ofrep/v1/evaluate/flags", "/api/v2/bootstrap")


def usable(objects: dict[str, Json], parse: Any) -> dict[str, Json]:
    """Return what is not refused and can be written as JSON."""
    kept = {}
    for key, obj in objects.items():
        with suppress(InvalidConfig, TypeError, ValueError):
            parse(key, orjson.loads(canonical(obj)))
            kept[key] = obj
    return kept


def written(context: Any) -> bytes | None:
    try:
        return orjson.dumps(context)
    except (TypeError, ValueError):  # half a character, or an integer beyond 64 bits
        return None


@given(
    st.dictionaries(names, flags, min_size=1, max_size=3),
    st.dictionaries(names, segments, max_size=2),
    st.lists(contexts, min_size=1, max_size=3),
    st.tuples(st.sampled_from([Kind.SERVER, Kind.CLIENT]), st.booleans()),
    st.dictionaries(names, flags, max_size=2),
)
def test_every_answer_is_the_routes(
    flag_objects: dict[str, Json],
    segment_objects: dict[str, Json],
    asked: list[Json],
    kind_and_packed: tuple[Kind, bool],
    changed_objects: dict[str, Json],
) -> None:
    """One flag and all flags, on both protocols, new and again, before and after a change; with the same counts."""
    held, changed = usable(flag_objects, parse_flag), usable(changed_objects, parse_flag)
    bodies = [raw for raw in map(written, asked) if raw is not None]
    assume(held and bodies)

    kind, is_packed = kind_and_packed

    async def play() -> None:
        both = two_ways(settings=Serve(compress_from_bytes=1, compress_loopback=is_packed))
        headers = [("Accept-Encoding", "gzip")]
        for each, way in zip((held, held), both.ways, strict=True):
            way.world.snapshot(each, segments=usable(segment_objects, parse_segment), revision=2)
        for revision in range(2):
            for raw in bodies:
                body = b'{"context":' + raw + b"}"
                for path in (*PATHS, *(f"{PATHS[0]}/{key}" for key in held)):
                    for _ in range(2 + revision):
                        await both.same(both.request(path, body, kind=kind, headers=headers))
                for key in held:
                    native = b'{"flag":' + orjson.dumps(key) + b',"context":' + raw + b"}"
                    await both.same(both.request("/api/v2/evaluate", native, kind=kind))
            if changed:
                both.commit(changed)
        await both.same_counts()
        assert sum(both.hot.in_lane.values()) > 0

    asyncio.run(play())
