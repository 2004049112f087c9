"""What commands about parts of flags come to, where the API does not show it: who is served, and the limits."""

from typing import Any

import orjson
import pytest

from relay.engine.environment import assemble
from relay.engine.evaluate import evaluate
from relay.engine.parse import parse_flag
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import Command, ConfigFields, CreateFlag, UpdateConfig
from upstream.domain.errors import Kind
from upstream.domain.flag_commands import (
    AddRule,
    AddTargets,
    CopyFlag,
    DeleteVariation,
    PromoteFlag,
    RampUp,
    RollOut,
    UpdateRule,
    UpdateVariation,
)
from upstream.domain.serving import MAX_RULES, MAX_UNITS

HERE: dict[str, Any] = {"project": "shop", "flag": "x", "environment": "production"}
EVERYBODY: dict[str, Any] = {"all": []}
UNITS = [f"user-{number}" for number in range(500)]


def update(rig: Rig, **fields: Any) -> None:
    rig.do(UpdateConfig(**HERE, fields=ConfigFields(**fields)))


def served(rig: Rig, *, key: str = "x", environment: str = "production", hours: float = 0) -> set[str]:
    """Return the units that the flag serves `true` to, some time from now."""
    flag = parse_flag(key, orjson.loads(rig.state(environment).flags[key]))
    parsed = assemble(
        environment_id="e", key="e", project_id="p", project_key="p", revision=1, flags={key: flag}, segments={}
    )
    now_ms = rig.clock.wall_ms() + int(hours * 3_600_000)
    return {unit for unit in UNITS if evaluate(parsed, key, {"targetingKey": unit}, now_ms).value is True}


@pytest.fixture(autouse=True)
def flag(rig: Rig) -> None:
    """A boolean flag that is enabled everywhere and serves false."""
    rig.do(CreateFlag(project="shop", key="x", config=ConfigFields(enabled=True, fallthrough={"value": False})))


def test_growing_a_rollout_keeps_everybody_who_was_in(rig: Rig) -> None:
    """From 0 to 100 percent, nobody who was served is sent back; about as many are in as the percentage says."""
    before: set[str] = set()
    for percentage in (0, 12.5, 40, 75.125, 100):
        rig.do(RollOut(**HERE, percentage=percentage))
        now = served(rig)
        assert before <= now
        assert abs(len(now) / len(UNITS) - percentage / 100) < 0.08
        before = now


def test_growing_a_split_that_lists_the_rest_first_keeps_everybody_too(rig: Rig) -> None:
    """The order of the two shares stays as somebody else wrote it."""
    split: dict[str, Any] = {"weights": [["off", 75_000], ["on", 25_000]], "salt": "own"}
    update(rig, fallthrough={"split": split})
    before = served(rig)
    rig.do(RollOut(**HERE, percentage=60))
    assert 0 < len(before) < len(served(rig))
    assert before <= served(rig)


def test_a_ramp_grows_from_the_moment_of_the_command(rig: Rig) -> None:
    """By its increment with each interval, up to the target; a rollout then takes over where it is."""
    rig.do(RampUp(**HERE, ramp={"to": "on", "increment": 20, "every_s": 3_600, "target": 50}))
    shares = [served(rig, hours=hours) for hours in (0, 1, 2, 3, 100)]
    assert [round(len(share) / len(UNITS), 1) for share in shares] == [0, 0.2, 0.4, 0.5, 0.5]
    rig.do(RollOut(**HERE, percentage=50))
    assert served(rig) == shares[-1]


def test_promoting_moves_nobody_in_the_environment(rig: Rig) -> None:
    """The salt stays, and so does the id of a rule whose condition divides by it."""
    half: dict[str, Any] = {"attribute": "targetingKey", "op": "percentage_of", "values": [50_000]}
    update(rig, rules=[{"when": half, "value": True}])
    before = served(rig)
    rig.do(
        UpdateConfig(
            project="shop",
            flag="x",
            environment="staging",
            fields=ConfigFields(rules=[{"when": half, "value": True, "name": "Half"}]),
        )
    )
    assert served(rig, environment="staging") != before
    rig.do(PromoteFlag(**HERE, source="staging"))
    assert served(rig) == before
    rig.do(RollOut(project="shop", flag="x", environment="staging", percentage=50))
    rig.do(RollOut(**HERE, percentage=50))
    before = served(rig)
    rig.do(PromoteFlag(**HERE, source="staging"))
    assert served(rig) == before


def test_a_copy_divides_people_independently(rig: Rig) -> None:
    """Fresh salts and rule ids: who is in half of the original need not be in the half of the copy."""
    rig.do(RollOut(**HERE, percentage=50))
    rig.do(CopyFlag(project="shop", flag="x", key="y", keep_enabled=True))
    both = served(rig) & served(rig, key="y")
    assert 0.15 < len(both) / len(UNITS) < 0.35


def test_there_is_a_limit_to_rules_and_targets(rig: Rig) -> None:
    """One more than the limit is refused, with the remedy."""
    update(rig, rules=[{"when": EVERYBODY, "value": True}] * MAX_RULES)
    full = rig.refused(AddRule(**HERE, rule={"when": EVERYBODY, "value": True}))
    assert full.errors[""] == (f"A flag has at most {MAX_RULES} rules in an environment.",)
    update(rig, rules=[], targets=[{"variation": "on", "units": [f"u{number}" for number in range(MAX_UNITS)]}])
    assert "use a segment" in rig.refused(AddTargets(**HERE, variation="off", units=["more"])).errors["units"][0]


REFUSED: list[tuple[Command, set[str]]] = [
    (AddRule(**HERE, rule={"id": "mine", "when": EVERYBODY, "value": True}), {"id"}),
    (UpdateRule(**HERE, rule="there", changes={"id": "other", "colour": "red"}), {"id", "colour"}),
    (UpdateVariation(project="shop", flag="x", variation="on", changes={"key": "yes", "name": 1}), {"key", "name"}),
    (RampUp(**HERE, ramp={"to": "on", "increment": 0, "pace": 1}), {"increment", "pace"}),
]


@pytest.mark.parametrize(("command", "paths"), REFUSED, ids=lambda value: type(value).__name__)
def test_members_that_a_part_does_not_have_are_refused(rig: Rig, command: Command, paths: set[str]) -> None:
    """Also where a command comes from elsewhere than the API, such as a schedule."""
    update(rig, rules=[{"id": "there", "when": EVERYBODY, "value": True}])
    rejected = rig.refused(command)
    assert (rejected.kind, set(rejected.errors)) == (Kind.INVALID, paths)


def test_a_variation_that_only_off_would_serve_can_go_when_off_serves_nothing(rig: Rig) -> None:
    """`off` null names no variation, in whatever environment."""
    for environment in ("development", "staging", "production"):
        fields = ConfigFields(off=None, fallthrough={"variation": "on"})
        rig.do(UpdateConfig(project="shop", flag="x", environment=environment, fields=fields))
    rig.do(CreateFlag(project="shop", key="waits", prerequisites=["x", {"flag": "other", "variations": ["off"]}]))
    flag = rig.make(DeleteVariation(project="shop", flag="x", variation="off"))
    assert [variation.key for variation in flag.variations] == ["on"]
