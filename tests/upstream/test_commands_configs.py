"""What a flag does in one environment when people change, toggle and kill it."""

from typing import Any

import orjson
import pytest

from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import (
    ArchiveFlag,
    ConfigFields,
    CreateEnvironment,
    CreateFlag,
    DeleteEnvironment,
    KillFlag,
    ToggleFlag,
    UpdateConfig,
    UpdateFlag,
)
from upstream.domain.entities import FlagConfig
from upstream.domain.errors import Kind
from upstream.storage.transaction import Committed

EVERYBODY: dict[str, Any] = {"all": []}


@pytest.fixture(autouse=True)
def banner(rig: Rig) -> None:
    """A string flag with two variations."""
    variations = [{"key": "a", "value": "A"}, {"key": "b", "value": "B"}]
    rig.do(CreateFlag(project="shop", key="banner", variations=variations))


def update(rig: Rig, **fields: Any) -> Committed:
    return rig.do(command(**fields))


def command(**fields: Any) -> UpdateConfig:
    return UpdateConfig(project="shop", flag="banner", environment="production", fields=ConfigFields(**fields))


def config(rig: Rig) -> FlagConfig:
    done = update(rig).decision.entity
    assert isinstance(done, FlagConfig)
    return done


def published(rig: Rig) -> Any:
    return orjson.loads(rig.state().flags["banner"])


def test_operators_are_stored_by_their_canonical_names(rig: Rig) -> None:
    """Aliases and single values become the one stored form, inside groups too."""
    when = {
        "any": [
            {"attribute": "plan", "op": "eq", "value": "pro"},
            {"not": {"attribute": "mail", "op": "endsWith", "values": [".test"]}},
        ],
    }
    update(rig, rules=[{"when": when, "variation": "b"}])
    assert config(rig).rules[0].when == {
        "any": [
            {"attribute": "plan", "op": "equals", "values": ["pro"]},
            {"not": {"attribute": "mail", "op": "ends_with", "values": [".test"]}},
        ],
    }


@pytest.mark.parametrize(
    ("leaf", "path"),
    [
        ({"attribute": "x", "op": "matches", "values": ["("]}, "rules[0].when.values[0]"),
        ({"attribute": "x", "op": "in_cidr", "values": ["10.0.0.0/99"]}, "rules[0].when.values[0]"),
        ({"attribute": "x", "op": "semver_gt", "values": ["one"]}, "rules[0].when.values[0]"),
        ({"attribute": "x", "op": "before", "values": ["yesterday"]}, "rules[0].when.values[0]"),
        ({"attribute": "x", "op": "between", "values": [2, 1]}, "rules[0].when.values"),
        ({"attribute": "x", "op": "equals"}, "rules[0].when"),
        ({"attribute": "x", "op": "equals", "values": []}, "rules[0].when.values"),
        ({"op": "equals", "values": [1]}, "rules[0].when"),
        ({"attribute": "x", "op": "equals", "values": [1], "fold": True}, "rules[0].when.fold"),
        ({"all": [], "any": []}, "rules[0].when"),
        ({"segment": ""}, "rules[0].when.segment"),
        ({}, "rules[0].when"),
        (None, "rules[0].when"),
        ({"all": {}}, "rules[0].when.all"),
    ],
)
def test_what_a_relay_would_refuse_is_refused_at_its_place(rig: Rig, leaf: Any, path: str) -> None:
    """Conditions are read by the engine's own parser, leaf by leaf."""
    assert path in rig.refused(command(rules=[{"when": leaf, "variation": "b"}])).errors


def test_conditions_nest_only_so_deep(rig: Rig) -> None:
    """A condition deeper than the engine accepts is refused."""
    when: dict[str, Any] = EVERYBODY
    for _ in range(20):
        when = {"not": when}
    assert rig.refused(command(rules=[{"when": when, "variation": "b"}])).kind is Kind.INVALID


def test_splits_accept_pairs_and_objects_and_must_sum_to_all(rig: Rig) -> None:
    """Weights are stored as pairs; a raw value among them makes a variation."""
    weights = [["a", 25_000], {"variation": "b", "weight": 25_000}, {"value": "C", "weight": 50_000}]
    update(rig, fallthrough={"split": {"weights": weights}, "experiment": "e1"})
    assert published(rig)["fallthrough"] == {
        "experiment": "e1",
        "split": {"by": "targetingKey", "weights": [["a", 25_000], ["b", 25_000], ["c", 50_000]]},
    }
    rejected = rig.refused(command(fallthrough={"split": {"weights": [["a", 100_001], ["b", -1]]}}))
    assert set(rejected.errors) == {
        "fallthrough.split.weights[0]",
        "fallthrough.split.weights[1]",
        "fallthrough.split.weights",
    }


def test_a_ramp_has_its_defaults(rig: Rig) -> None:
    """Increment, interval, target and unit are filled in; a bad start is refused."""
    update(rig, fallthrough={"ramp": {"to": "b", "else": "a"}})
    assert published(rig)["fallthrough"]["ramp"] == {
        "to": "b",
        "else": "a",
        "start_at": None,
        "increment": 10_000,
        "every_s": 86_400,
        "target": 100_000,
        "by": "targetingKey",
    }
    rejected = rig.refused(command(fallthrough={"ramp": {"to": "b", "else": "a", "start_at": "soon", "step": 1}}))
    assert set(rejected.errors) == {"fallthrough.ramp.start_at", "fallthrough.ramp.step"}


def test_targets_are_grouped_and_a_unit_has_one_variation(rig: Rig) -> None:
    """Whole numbers become decimal texts; a unit under two variations is refused."""
    update(rig, targets=[{"variation": "a", "units": ["u1", 7]}, {"value": "A", "units": ["u2", "u1"]}])
    assert published(rig)["targets"] == [{"variation": "a", "units": ["u1", "7", "u2"]}]
    twice = [{"variation": "a", "units": ["u1"]}, {"variation": "b", "units": ["u1", ""]}]
    assert set(rig.refused(command(targets=twice)).errors) == {"targets[1].units", "targets[1].units[1]"}


def test_inactive_rules_are_kept_but_not_published(rig: Rig) -> None:
    """A rule switched off stays in the config and leaves the snapshot."""
    update(rig, rules=[{"id": "r1", "when": EVERYBODY, "variation": "b", "is_active": False}])
    assert published(rig)["rules"] == []
    assert config(rig).rules[0].id == "r1"


def test_rule_ids_are_kept_and_unique(rig: Rig) -> None:
    """Rules without an id get one; two equal ids are refused."""
    update(rig, rules=[{"id": "r1", "when": EVERYBODY, "variation": "b"}, {"when": EVERYBODY, "variation": "a"}])
    ids = [rule.id for rule in config(rig).rules]
    assert ids[0] == "r1"
    assert len(ids[1]) == 36
    assert "rules[1].id" in rig.refused(command(rules=[{"id": "x", "when": EVERYBODY, "variation": "a"}] * 2)).errors


def test_a_missing_segment_is_accepted_with_a_warning(rig: Rig) -> None:
    """A rule may name a segment that somebody makes later."""
    done = update(rig, rules=[{"when": {"segment": "later"}, "variation": "b"}])
    assert [notice.code for notice in done.decision.warnings] == ["missing_segment"]


def test_a_new_value_in_one_environment_reaches_all(rig: Rig) -> None:
    """Variations belong to the flag, so a raw value that makes one changes every environment's object."""
    done = update(rig, off_value="C")
    assert len(done.revisions) == 3
    assert b'"value":"C"' in rig.state("development").flags["banner"]


def test_off_may_be_nothing(rig: Rig) -> None:
    """`off` None is stored, published as null and audited; not naming it keeps it, and a variation brings it back."""
    done = update(rig, off=None)
    assert [(change.path, change.before, change.after) for change in done.decision.changes] == [("off", "a", None)]
    assert (config(rig).off, published(rig)["off"]) == (None, None)
    update(rig, enabled=True)
    assert config(rig).off is None
    assert orjson.loads(rig.state("development").flags["banner"])["off"] == "a"
    update(rig, off="b")
    assert published(rig)["off"] == "b"


def test_a_flag_starts_without_off_where_that_is_asked(rig: Rig) -> None:
    """For every environment, or for single ones on top of it."""
    single = {"production": ConfigFields(off="on")}
    rig.do(CreateFlag(project="shop", key="quiet", config=ConfigFields(off=None), environments=single))
    shown = [orjson.loads(rig.state(key).flags["quiet"])["off"] for key in ("development", "production")]
    assert shown == [None, "on"]


def test_toggle_flips_or_sets_and_is_audited_as_such(rig: Rig) -> None:
    """None flips; the same again changes nothing."""
    toggle = ToggleFlag(project="shop", flag="banner", environment="production", reason="launch")
    done = rig.do(toggle)
    assert done.audit is not None
    assert (done.audit.action, done.audit.reason, done.audit.target_key) == ("flag.toggled", "launch", "banner")
    assert [(change.path, change.before, change.after) for change in done.audit.changes] == [("enabled", False, True)]
    assert list(done.audit.revisions.values()) == [rig.state().revision]
    again = rig.do(ToggleFlag(project="shop", flag="banner", environment="production", enabled=True))
    assert (again.audit, again.revisions) == (None, {})


def test_a_change_of_enabled_alone_is_a_toggle_whatever_the_command(rig: Rig) -> None:
    """The audit tells what happened, not which route was used."""
    done = update(rig, enabled=True)
    assert done.audit is not None
    assert done.audit.action == "flag.toggled"


def test_both_switches_must_be_on(rig: Rig) -> None:
    """`enabled` in the snapshot is the flag's switch and the environment's together."""
    update(rig, enabled=True)
    assert published(rig)["enabled"] is True
    rig.do(UpdateFlag(project="shop", flag="banner", is_active=False))
    assert published(rig)["enabled"] is False


def test_a_kill_switches_off_and_is_always_audited(rig: Rig) -> None:
    """A kill of what is off already makes no revision but is recorded."""
    update(rig, enabled=True)
    kill = KillFlag(project="shop", flag="banner", environment="production", reason="fire")
    first, second = rig.do(kill), rig.do(kill)
    assert first.audit is not None
    assert second.audit is not None
    assert (first.audit.action, first.audit.reason, len(first.revisions)) == ("flag.killed", "fire", 1)
    assert (second.audit.action, second.revisions) == ("flag.killed", {})
    assert published(rig)["enabled"] is False


@pytest.mark.parametrize(("delta_ms", "survives"), [(-1, True), (0, False), (1, False)])
def test_a_kill_from_the_edge_yields_to_a_newer_enable_only(rig: Rig, delta_ms: int, *, survives: bool) -> None:
    """Older than the last deliberate change: superseded and recorded; on a tie the kill wins."""
    update(rig, enabled=True)
    edge_at = rig.clock.wall_ms() + delta_ms
    done = rig.do(KillFlag(project="shop", flag="banner", environment="production", edge_at=edge_at))
    assert published(rig)["enabled"] is survives
    assert done.audit is not None
    assert done.audit.action == ("flag.kill_superseded" if survives else "flag.killed")
    assert done.audit.edge_at == edge_at


def test_an_archived_flag_cannot_be_configured(rig: Rig) -> None:
    """Archived flags are immutable."""
    rig.do(ArchiveFlag(project="shop", flag="banner"))
    assert rig.refused(command(enabled=True)).code == "flag_archived"


def test_if_match_of_a_config_is_its_own_version(rig: Rig) -> None:
    """A config counts its own edits."""
    update(rig, enabled=True)
    stale = UpdateConfig(
        project="shop",
        flag="banner",
        environment="production",
        fields=ConfigFields(off="b"),
        if_match=1,
    )
    assert rig.refused(stale).kind is Kind.PRECONDITION


def test_a_new_environment_has_every_flag_switched_off(rig: Rig) -> None:
    """It starts at revision 1 with all flags, credentials and secrets of its project."""
    update(rig, enabled=True)
    done = rig.do(CreateEnvironment(project="shop", name="QA"))
    state = rig.state("qa")
    assert (state.revision, list(done.revisions.values())) == (1, [1])
    assert b'"enabled":false' in state.flags["banner"]
    assert state.secrets is not None
    assert state.limits == b"{}"
    rig.do(DeleteEnvironment(project="shop", environment="qa"))
    assert rig.refused(DeleteEnvironment(project="shop", environment="qa")).kind is Kind.NOT_FOUND


def test_unknown_things_are_not_found(rig: Rig) -> None:
    """Each part of the path is named by its own refusal."""
    codes = [
        rig.refused(ToggleFlag(project=project, flag=flag, environment=environment)).code
        for project, flag, environment in (
            ("nope", "banner", "production"),
            ("shop", "nope", "production"),
            ("shop", "banner", "nope"),
        )
    ]
    assert codes == ["project_not_found", "flag_not_found", "environment_not_found"]


LONG = "x" * 201
WHEN = {"when": EVERYBODY}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"fallthrough": "on"}, "fallthrough"),
        ({"fallthrough": {"variation": "a", "value": "A"}}, "fallthrough"),
        ({"fallthrough": {"variation": "a", "experiment": "e"}}, "fallthrough.experiment"),
        ({"fallthrough": {"split": []}}, "fallthrough.split"),
        ({"fallthrough": {"split": {}}}, "fallthrough.split.weights"),
        ({"fallthrough": {"split": {"weights": [["a", 100_000]], "by": ""}}}, "fallthrough.split.by"),
        ({"fallthrough": {"split": {"weights": [["a", 100_000]], "salt": 7}}}, "fallthrough.split.salt"),
        ({"fallthrough": {"split": {"weights": ["a"]}}}, "fallthrough.split.weights[0]"),
        ({"fallthrough": {"split": {"weights": [["a", True]]}}}, "fallthrough.split.weights[0]"),
        ({"fallthrough": {"split": {"weights": [["a", 100_000]]}, "experiment": 7}}, "fallthrough.experiment"),
        ({"fallthrough": {"ramp": 1}}, "fallthrough.ramp"),
        ({"fallthrough": {"ramp": {"to": "a", "to_value": "A", "else": "b"}}}, "fallthrough.ramp"),
        ({"fallthrough": {"ramp": {"to": "a", "else": "b", "every_s": 0}}}, "fallthrough.ramp.every_s"),
        ({"fallthrough": {"ramp": {"to": "a", "else": "b", "start_at": -5}}}, "fallthrough.ramp.start_at"),
        ({"off_value": 7}, "off_value"),
        ({"rules": "all"}, "rules"),
        ({"rules": [WHEN] * 201}, "rules"),
        ({"rules": ["all"]}, "rules[0]"),
        ({"rules": [{**WHEN, "variation": "a", "id": ""}]}, "rules[0].id"),
        ({"rules": [{**WHEN, "variation": "a", "name": 7}]}, "rules[0].name"),
        ({"rules": [{**WHEN, "variation": "a", "name": LONG}]}, "rules[0].name"),
        ({"rules": [{**WHEN, "variation": "a", "name": "\x00"}]}, "rules[0].name"),
        ({"rules": [{**WHEN, "variation": "a", "is_active": 1}]}, "rules[0].is_active"),
        ({"rules": [WHEN]}, "rules[0]"),
        ({"rules": [{"when": {"all": [], "extra": 1}, "variation": "a"}]}, "rules[0].when.extra"),
        ({"rules": [{"when": {"all": [EVERYBODY] * 1001}, "variation": "a"}]}, "rules[0].when.all"),
        ({"rules": [{"when": {"attribute": "x", "op": 7}, "variation": "a"}]}, "rules[0].when.op"),
        ({"targets": ["u"]}, "targets[0]"),
        ({"targets": [{"variation": "a", "units": "u"}]}, "targets[0].units"),
        ({"targets": [{"variation": "a", "units": ["u"] * 10_001}]}, "targets[0].units"),
        ({"targets": [{"variation": "a", "units": [], "unit": "u"}]}, "targets[0].unit"),
    ],
)
def test_every_malformed_part_is_refused_at_its_place(rig: Rig, fields: dict[str, Any], path: str) -> None:
    """Whatever the shape of the JSON, the answer names the place and nothing is stored."""
    assert path in rig.refused(command(**fields)).errors


def test_operators_keep_what_they_need_and_no_more(rig: Rig) -> None:
    """`exists` has no values, `fold_case` is kept, a split may have a salt of its own."""
    when = {
        "all": [
            {"attribute": "x", "op": "exists", "values": []},
            {"attribute": "x", "op": "in", "values": ("a", "b"), "fold_case": True},
        ]
    }
    split = {"split": {"weights": [["a", 100_000]], "salt": "own"}}
    update(rig, rules=[{"when": when, "serve": split}])
    rule = published(rig)["rules"][0]
    assert rule["when"]["all"] == [
        {"attribute": "x", "op": "exists"},
        {"attribute": "x", "op": "in", "values": ["a", "b"], "fold_case": True},
    ]
    assert rule["serve"]["split"]["salt"] == "own"
