"""Requests made from the OpenAPI document, right and wrong: never a 5xx, and every answer as the document says.

`Caller` holds each answer against the document. A few hundred requests here, the same ones each time; `make prove`
sends more than 20,000 new ones. What is generated is mixed with what exists (keys, ids, the examples of bodies), or
nearly all of it would end at a 404.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from tests.upstream.management import Caller, Template, open_world

PARTS = 6
LEAST_OF_PROVE = 20_000
EXAMPLES = max(1, settings().max_examples // 4)
NAMES: Mapping[str, tuple[str, ...]] = {
    "p": ("shop", "other", "lab"),
    "e": ("production", "staging", "nowhere"),
    "f": ("checkout", "new-checkout"),
    "s": ("testers", "nobody"),
    "environment": ("production", "staging"),
    "project": ("shop", "other"),
    "flag": ("checkout", "new-checkout"),
}
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def requests(
    draw: st.DrawFn, operation: Any, example: Any, ids: list[str]
) -> tuple[str, str, str, bytes, dict[str, str]]:
    """Return method, path, query, body and headers of one request."""
    mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    case = draw(operation.as_strategy(generation_mode=mode))
    path = operation.full_path
    for name, value in (case.path_parameters or {}).items():
        known = NAMES.get(name, tuple(ids))
        chosen = draw(st.sampled_from(known)) if draw(st.integers(0, 9)) else unquote(str(value), errors="replace")
        path = path.replace("{" + name + "}", chosen)
    query = urlencode([(name, value) for name, value in (case.query or {}).items()], doseq=True, errors="replace")
    headers = {
        name: value
        for name, value in (case.headers or {}).items()
        if name.lower() == "if-match" and str(value).isascii() and str(value).isprintable()
    }
    return case.method, path, query, draw(bodies(case.body, example)), headers


@st.composite
def bodies(draw: st.DrawFn, generated: Any, example: Any) -> bytes:
    body = generated
    if example is not None and draw(st.booleans()):
        body = dict(example)
        for name in draw(st.lists(st.sampled_from([*example, "unheard_of"]), max_size=2)) if example else ():
            body[name] = draw(anything)
    if isinstance(body, dict):
        body = {
            name: draw(st.sampled_from(NAMES[name])) if name in NAMES and draw(st.booleans()) else value
            for name, value in body.items()
        }
    try:
        return json.dumps(body).encode("utf-8", "surrogatepass")
    except TypeError:  # there is none
        return b""


async def known_ids(caller: Caller) -> list[str]:
    """Return ids of things that are there."""
    found = ["00000000-0000-4000-8000-000000000000", "owner@acme.example"]
    for path in ("keys", "tokens", "members", "projects"):
        found += [each["id"] for each in (await caller.shown(f"/api/v2/{path}"))["data"]]
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_no_request_of_the_document_breaks_anything(populated_database: Template, tmp_path: Path, part: int) -> None:
    """Each operation in a world of its own: documented answers alone, whatever it is sent."""
    document = orjson.loads(orjson.dumps(populated_database.document))
    operations = [
        found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations() if isinstance(found, Ok)
    ]
    mine = operations[part::PARTS]
    sent = sum(fuzzed(populated_database, tmp_path / str(number), each) for number, each in enumerate(mine))
    assert sent >= len(mine) * EXAMPLES * 0.9
    if EXAMPLES * len(operations) > LEAST_OF_PROVE:
        assert sent * PARTS > LEAST_OF_PROVE * 0.9


def fuzzed(template: Template, folder: Path, operation: Any) -> int:
    """Send requests of one operation; returns how many."""
    folder.mkdir()
    sent = 0
    body = operation.definition.raw.get("requestBody", {}).get("content", {}).get("application/json", {})
    with asyncio.Runner() as runner:
        opening = open_world(template, folder)
        world = runner.run(opening.__aenter__())
        ids = runner.run(known_ids(world.api))

        @settings(
            max_examples=EXAMPLES,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(request=requests(operation, body.get("example"), ids))
        def send(request: tuple[str, str, str, bytes, dict[str, str]]) -> None:
            nonlocal sent
            method, path, query, raw, headers = request
            reply = runner.run(world.api.send(method, path, query, raw, headers=headers))
            sent += 1
            assert reply.status < 500, (request, reply.raw)

        try:
            send()
        finally:
            runner.run(opening.__aexit__(None, None, None))
    return sent
