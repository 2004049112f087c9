"""A misspelt member is told with the nearest known one, at every depth of a body."""

from typing import Any

import pytest

from tests.upstream.management import P, World

CONFIG = f"{P}/flags/checkout/environments/production"
RULE = {"when": {"attribute": "country", "op": "in", "values": ["NL"]}, "serve": {"variation": "on"}}


@pytest.mark.parametrize(
    ("path", "body", "at", "nearest"),
    [
        (CONFIG, {"rules": [{**RULE, "nmae": "x"}]}, "rules[0].nmae", "name"),
        (CONFIG, {"rules": [{**RULE, "serve": {"variaton": "on"}}]}, "rules[0].serve.variaton", "variation"),
        (CONFIG, {"rules": [{"when": {"attribut": "x", "op": "in"}}]}, "rules[0].when.attribut", "attribute"),
        (CONFIG, {"rules": [{"when": {"attribute": "x", "op": "inn"}}]}, "rules[0].when.op", "in"),
        (CONFIG, {"targets": [{"variation": "on", "unitz": ["a"]}]}, "targets[0].unitz", "units"),
        (f"{P}/flags/checkout", {"prerequisites": [{"flg": "other"}]}, "prerequisites[0].flg", "flag"),
    ],
)  # fmt: skip
async def test_what_is_misspelt_is_told_with_the_nearest_name(
    world: World, path: str, body: Any, at: str, nearest: str
) -> None:
    """The path leads to the member itself, and the sentence names what was probably meant."""
    reply = await world.api.patch(path, body)
    assert reply.status == 422, reply.raw
    assert any(f"did you mean {nearest!r}?" in each for each in reply.body["errors"][at]), reply.body


async def test_a_variation_without_a_value_is_told_what_it_has_instead(world: World) -> None:
    """What is missing does not hide what is misspelt."""
    body = {"key": "new", "type": "number", "variations": [{"key": "a", "valu": 1}]}
    errors = (await world.api.post(f"{P}/flags", body)).body["errors"]
    assert errors["variations[0].valu"] == ["There is no such field; did you mean 'value'?"]


async def test_a_long_name_is_not_said_back_whole(world: World) -> None:
    """An operator of 100,000 characters makes a short answer."""
    rule = {**RULE, "when": {"attribute": "x", "op": "in" * 50_000}}
    reply = await world.api.patch(CONFIG, {"rules": [rule]})
    assert (reply.status, len(reply.raw) < 2_000) == (422, True)


@pytest.mark.parametrize(
    ("query", "at", "sentence"),
    [
        ("dryrun=1", "dryrun", "There is no such parameter; did you mean 'dry_run'?"),
        ("schedule=2027-01-01T00:00:00Z", "schedule", "There is no such parameter; did you mean 'schedule_at'?"),
        ("dry_run=perhaps", "dry_run", "This must be true or false."),
    ],
)
async def test_a_misspelt_parameter_does_not_become_the_change_itself(
    world: World, query: str, at: str, sentence: str
) -> None:
    """A write with a parameter that is not known is refused, and changes nothing."""
    reply = await world.api.patch(f"{P}/flags/checkout?{query}", {"name": "New"})
    assert (reply.status, reply.code, reply.body["errors"]) == (422, "invalid_parameters", {at: [sentence]})
    assert (await world.api.shown(f"{P}/flags/checkout"))["name"] == "Checkout"


async def test_a_bad_time_of_the_audit_log_is_told_in_one_sentence(world: World) -> None:
    """Without what the library puts before and after it."""
    reply = await world.api.get(f"{P}/audit?after=yesterday")
    assert reply.body["errors"] == {"after": ["This must be an RFC 3339 time such as 2026-11-21T06:30:00Z."]}
