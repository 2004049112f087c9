"""One answer names all that is wrong with a body: its form, what its members mean, and the nearest known field."""

from typing import Any

import pytest

from tests.upstream.management import P, World

FLAG = {
    "key": "Not A Key",
    "type": "string",
    "tgas": ["x"],
    "is_active": "yes",
    "variations": [{"key": "a", "value": "x"}, {"key": "a", "value": 7}],
    "default_value": 3,
    "rules": [{"when": {"attribute": "country", "op": "equalz", "values": ["NL"]}, "variation": "a"}],
    "environments": {"nowhere": {"enabled": True}},
}


async def test_a_flag_with_faults_of_every_kind(world: World) -> None:
    """Unknown field, wrong type, bad key, double variation, value of another type, environment: one answer."""
    reply = await world.api.post(f"{P}/flags", FLAG)
    assert (reply.status, reply.code) == (422, "invalid_body")
    errors = reply.body["errors"]
    assert "did you mean 'tags'?" in errors["tgas"][0]
    assert errors["is_active"] == ["This must be true or false."]
    assert {"key", "variations[1].key", "variations[1].value", "default_value", "environments.nowhere"} <= set(errors)
    assert (await world.api.get(f"{P}/flags/Not A Key")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "at"),
    [
        ("PATCH", f"{P}/flags/checkout", {"nme": "X", "metadata": {"a": [1]}}, {"nme", "metadata.a"}),
        (
            "PATCH",
            f"{P}/flags/checkout/environments/production",
            {"enabld": True, "off": "nothing"},
            {"enabld", "off"},
        ),
        ("POST", f"{P}/segments", {"key": "Bad Key", "inclde": []}, {"inclde", "key"}),
        ("POST", "/api/v2/projects", {"key": "Bad Key", "mau": 1}, {"mau", "key"}),
        ("POST", f"{P}/environments", {"key": "Bad Key", "critical": 1}, {"critical", "key"}),
        ("POST", "/api/v2/tokens", {"name": "t", "scopes": ["flags:red"], "expires": 1}, {"expires", "scopes[0]"}),
    ],
)  # fmt: skip
async def test_form_and_meaning_are_told_together(
    world: World, method: str, path: str, body: Any, at: set[str]
) -> None:
    """What is misspelt does not hide what is wrong with the rest; nothing is changed."""
    reply = await world.api.call(method, path, body)
    assert reply.status == 422, reply.raw
    assert at <= set(reply.body["errors"]), reply.body


async def test_a_body_whose_rest_is_right_is_refused_all_the_same(world: World) -> None:
    """A fault of form alone is enough, also with dry_run, and leaves nothing."""
    for query in ("", "?dry_run=1", "?propose=Title"):
        reply = await world.api.patch(f"{P}/flags/checkout{query}", {"name": "New", "nme": "X"})
        assert (reply.status, set(reply.body["errors"])) == (422, {"nme"})
    assert (await world.api.shown(f"{P}/flags/checkout"))["name"] == "Checkout"
