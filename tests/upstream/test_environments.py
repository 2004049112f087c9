"""Environments: clones with the same users in their rollouts, an order, a mark for reviews."""

from typing import Any

import orjson
import pytest

from tests.upstream.management import P, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.access_commands import (
    CreateKey,
)
from upstream.domain.commands import (
    ArchiveFlag,
    CloneEnvironment,
    ConfigFields,
    CreateFlag,
    CreateSegment,
    ReorderEnvironments,
    RestoreFlag,
    UpdateConfig,
    UpdateEnvironment,
)
from upstream.domain.entities import CredentialKind, FlagType

HALF: dict[str, Any] = {"split": {"by": "targetingKey", "weights": [["on", 50_000], ["off", 50_000]]}}


def rolled_out(rig: Rig) -> None:
    rig.do(CreateSegment(project="shop", key="staff", include=["ada"]))
    rig.do(CreateFlag(project="shop", key="fresh-look", type=FlagType.BOOLEAN))
    rules = [{"when": {"segment": "staff"}, "variation": "on"}]
    fields = ConfigFields(enabled=True, fallthrough=HALF, rules=rules, targets=[{"variation": "on", "units": ["bob"]}])
    rig.do(UpdateConfig(project="shop", flag="fresh-look", environment="production", fields=fields))


def test_a_clone_publishes_what_the_original_publishes(rig: Rig) -> None:
    """Flags and segments are the same to the last byte, salts included, so rollouts reach the same users; no keys."""
    rolled_out(rig)
    rig.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    done = rig.do(CloneEnvironment(project="shop", environment="production", key="load-test"))
    original, clone = rig.state("production"), rig.state("load-test")

    def content(objects: Any) -> Any:
        return {key: {**_parsed(raw), "version": None} for key, raw in objects.items()}

    assert content(clone.flags) == content(original.flags)
    assert content(clone.segments) == content(original.segments)
    assert len(original.credentials) == 1
    assert clone.credentials == {}
    assert done.revisions == {rig.environment("load-test").id: 1}
    before, after = rig.environment("production"), rig.environment("load-test")
    assert before.stream_secret != after.stream_secret
    assert (after.critical, after.sort) == (True, 3)


def _parsed(raw: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = orjson.loads(raw)
    return parsed


def test_a_clone_is_on_its_own_afterwards(rig: Rig) -> None:
    """A change of one is none of the other; a flag that was archived comes back in both."""
    rolled_out(rig)
    rig.do(ArchiveFlag(project="shop", flag="fresh-look"))
    rig.do(CloneEnvironment(project="shop", environment="production"))
    assert rig.state("production_copy").flags == {}
    rig.do(RestoreFlag(project="shop", flag="fresh-look"))
    rig.do(
        UpdateConfig(project="shop", flag="fresh-look", environment="production", fields=ConfigFields(enabled=False))
    )
    enabled = [_parsed(rig.state(key).flags["fresh-look"])["enabled"] for key in ("production", "production_copy")]
    assert enabled == [False, True]


def test_a_clone_is_recorded_with_where_it_came_from(rig: Rig) -> None:
    """The audit entry names the original."""
    done = rig.do(CloneEnvironment(project="shop", environment="staging", name="Staging 2"))
    assert done.audit is not None
    assert done.audit.action == "environment.cloned"
    assert ("cloned_from", "staging") in [(change.path, change.after) for change in done.audit.changes]
    assert rig.environment("staging_2").name == "Staging 2"


def test_a_clone_needs_a_key_that_is_free(rig: Rig) -> None:
    """The rules for keys are those of every environment."""
    for key, code in (("staging", "key_taken"), ("Not a key", "invalid"), ("flags", "invalid")):
        command = CloneEnvironment(project="shop", environment="staging", key=key)
        assert rig.refused(command).code == code
    assert rig.refused(CloneEnvironment(project="shop", environment="nowhere")).code == "environment_not_found"


@pytest.mark.parametrize(
    ("order", "paths"),
    [
        (["production"], {"environments"}),
        (["production", "staging", "development", "qa"], {"environments[3]"}),
        (["production", "staging", "staging", "development"], {"environments[2]"}),
        (["nothing", "staging"], {"environments", "environments[0]"}),
        ([], {"environments"}),
    ],
)
def test_an_order_names_every_environment_once(rig: Rig, order: list[str], paths: set[str]) -> None:
    """What is left out, unknown or named twice is said, all at once."""
    assert set(rig.refused(ReorderEnvironments(project="shop", environments=order)).errors) == paths


def test_an_order_that_is_there_already_changes_nothing(rig: Rig) -> None:
    """Only environments that move get a new version; by ids or keys."""
    same = ["development", rig.environment("staging").id, "production"]
    assert rig.do(ReorderEnvironments(project="shop", environments=same)).audit is None
    rig.do(ReorderEnvironments(project="shop", environments=["staging", "development", "production"]))
    assert [rig.environment(key).version for key in ("staging", "development", "production")] == [2, 2, 1]


def test_environments_with_equal_places_are_put_apart(rig: Rig) -> None:
    """Where two had the same place, naming them in the order that is shown fixes it, and says nothing new."""
    rig.do(UpdateEnvironment(project="shop", environment="staging", sort=0))
    done = rig.do(ReorderEnvironments(project="shop", environments=["development", "staging", "production"]))
    assert done.audit is not None
    assert rig.environment("staging").sort == 1


async def test_environments_are_cloned_and_reordered_over_the_api(world: World) -> None:
    """A clone is made with or without a body; the new order is the answer and the list."""
    made = await world.api.post(f"{P}/environments/production:clone")
    assert (made.status, made.headers["location"]) == (201, f"{P}/environments/production_copy"), made.raw
    assert (made.body["name"], made.body["critical"]) == ("Production copy", True)
    named = await world.api.post(f"{P}/environments/staging:clone", {"key": "qa", "name": "QA"})
    assert (named.body["key"], named.body["name"]) == ("qa", "QA")
    order = ["qa", "production", "production_copy", "staging", "development"]
    answered = await world.api.post(f"{P}/environments:reorder", {"environments": order})
    assert (answered.status, [each["key"] for each in answered.body["data"]]) == (200, order)
    assert [each["key"] for each in (await world.api.shown(f"{P}/environments"))["data"]] == order
    (entry,) = (await world.api.shown(f"{P}/audit?action=project.environments_reordered"))["data"]
    assert entry["changes"][0]["after"] == order
    tried = await world.api.post(f"{P}/environments/staging:clone?dry_run=1", {"key": "dry"})
    assert tried.body["affected"]["environments"] == ["dry"]
    assert (await world.api.get(f"{P}/environments/dry")).status == 404


async def test_an_environment_asks_for_reviews_and_is_critical(world: World) -> None:
    """Both marks are set when it is made or later, shown, and copied by a clone."""
    made = await world.api.made(f"{P}/environments", {"key": "live", "require_review": True})
    assert (made["require_review"], made["critical"]) == (True, False)
    cloned = await world.api.made(f"{P}/environments/live:clone", {"key": "live-2"})
    assert cloned["require_review"] is True
    changed = await world.api.patch(f"{P}/environments/live", {"require_review": False, "critical": True})
    assert (changed.body["require_review"], changed.body["critical"]) == (False, True)
    refused = await world.api.patch(f"{P}/environments/live", {"require_review": "yes"})
    assert (refused.status, list(refused.body["errors"])) == (422, ["require_review"])


async def test_the_last_environment_may_go(world: World) -> None:
    """A project can be made without environments, so it may come to have none; its flags stay."""
    for key in ("development", "staging", "production"):
        assert (await world.api.delete(f"{P}/environments/{key}")).status == 204
    assert (await world.api.shown(f"{P}/flags/checkout"))["key"] == "checkout"
    await world.api.made(f"{P}/environments", {"key": "fresh"})
    assert (await world.api.shown(f"{P}/flags/checkout/environments/fresh"))["enabled"] is False
