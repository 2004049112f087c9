"""What flags become when people create, change and end them."""

from typing import Any

import orjson
import pytest

from relay.engine.parse import parse_flag
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import (
    ArchiveFlag,
    ConfigFields,
    CreateFlag,
    DeleteFlag,
    RestoreFlag,
    UpdateConfig,
    UpdateFlag,
)
from upstream.domain.entities import Flag, FlagConfig, FlagType, JsonObject
from upstream.domain.errors import Kind


def create(rig: Rig, **fields: Any) -> Flag:
    flag: Flag = rig.make(CreateFlag(project="shop", **fields))
    return flag


def config_of(rig: Rig, flag: Flag, environment: str = "production") -> FlagConfig:
    environment_id = rig.environment(environment).id
    config = rig.view(lambda view: view.config(flag.id, environment_id))
    assert config is not None
    return config


def values(flag: Flag) -> dict[str, Any]:
    return {variation.key: variation.value for variation in flag.variations}


def test_keys_are_made_from_names_and_made_unique(rig: Rig) -> None:
    """Two flags called "New Dashboard" become new_dashboard and new_dashboard_2."""
    assert [create(rig, name="New Dashboard").key for _ in range(3)] == [
        "new_dashboard",
        "new_dashboard_2",
        "new_dashboard_3",
    ]


@pytest.mark.parametrize(
    ("name", "key"),
    [("Größe & Preis", "groe_preis"), ("日本", "flag"), ("evaluate", "evaluate_2")],
)
def test_a_made_key_is_always_allowed(rig: Rig, name: str, key: str) -> None:
    """Names without usable letters, and route words, still lead to a key."""
    assert create(rig, name=name).key == key


@pytest.mark.parametrize(
    "key",
    ["Upper", "", "-x", "a b", "x" * 129, "evaluate", "0b0f3b2e-8a44-4b83-9a3c-f4a0e4a3b111"],
)
def test_a_bad_key_is_refused_with_its_field(rig: Rig, key: str) -> None:
    """Keys outside the pattern, route words and UUIDs are invalid."""
    rejected = rig.refused(CreateFlag(project="shop", key=key, name="X"))
    assert rejected.kind is Kind.INVALID
    assert list(rejected.errors) == ["key"]


def test_an_explicit_duplicate_is_a_conflict_until_the_flag_is_deleted(rig: Rig) -> None:
    """A key is taken while its flag lives, archived included, and free at once after deletion."""
    create(rig, key="banner")
    assert rig.refused(CreateFlag(project="shop", key="banner")).kind is Kind.CONFLICT
    rig.do(ArchiveFlag(project="shop", flag="banner"))
    assert rig.refused(CreateFlag(project="shop", key="banner")).code == "key_taken"
    rig.do(DeleteFlag(project="shop", flag="banner"))
    assert create(rig, key="banner").version == 1


@pytest.mark.parametrize(
    ("flag_type", "variations"),
    [
        (FlagType.BOOLEAN, {"on": True, "off": False}),
        (FlagType.STRING, {"default": ""}),
        (FlagType.NUMBER, {"default": 0}),
        (FlagType.JSON, {"default": {}}),
    ],
)
def test_a_type_has_its_usual_variations(rig: Rig, flag_type: FlagType, variations: dict[str, Any]) -> None:
    """Without variations a flag gets those of its type."""
    assert values(create(rig, name="x", type=flag_type)) == variations


def test_a_new_flag_is_off_everywhere(rig: Rig) -> None:
    """A flag has a config with a salt of its own in every environment, disabled."""
    flag = create(rig, name="x")
    configs = rig.view(lambda view: view.configs(flag.id))
    assert len(configs) == 3
    assert not any(config.enabled for config in configs.values())
    assert len({config.salt for config in configs.values()}) == 3
    assert {(config.off, config.fallthrough["variation"]) for config in configs.values()} == {("off", "on")}


def test_raw_values_find_or_make_variations(rig: Rig) -> None:
    """A rule's raw value uses the variation that has it, and makes one that does not exist."""
    rules: list[JsonObject] = [
        {"when": {"all": []}, "value": "blue"},
        {"when": {"all": []}, "serve": {"value": "red"}},
    ]
    flag = create(rig, name="x", default_value="blue", config=ConfigFields(rules=rules))
    assert values(flag) == {"default": "blue", "red": "red"}
    config = config_of(rig, flag)
    assert [rule.serve for rule in config.rules] == [{"variation": "default"}, {"variation": "red"}]
    assert config.off == "default"


def test_one_and_true_are_different_values_but_one_and_one_point_zero_are_not(rig: Rig) -> None:
    """Values are compared as JSON, numbers by value."""
    rules = [{"when": {"all": []}, "value": 1.0}]
    flag = create(rig, name="x", default_value=1, config=ConfigFields(rules=rules))
    assert values(flag) == {"default": 1}
    rejected = rig.refused(CreateFlag(project="shop", name="y", default_value=1, config=ConfigFields(off_value=True)))
    assert list(rejected.errors) == ["config.off_value"]


def test_single_environments_can_start_differently(rig: Rig) -> None:
    """`environments` is applied on top of `config`, by key."""
    flag = create(rig, name="x", environments={"development": ConfigFields(enabled=True)})
    assert config_of(rig, flag, "development").enabled
    assert not config_of(rig, flag).enabled


def test_every_problem_is_named_at_once(rig: Rig) -> None:
    """One refusal lists what is wrong with texts, values, rules, serves and environments together."""
    command = CreateFlag(
        project="shop",
        key="Bad Key",
        name="",
        type=FlagType.STRING,
        variations=[{"key": "a", "value": 1}, {"key": "a", "value": "x", "color": "red"}],
        prerequisites=["Not A Key"],
        config=ConfigFields(
            off="nowhere",
            rules=[
                {"when": {"attribute": "plan", "op": "equal", "values": ["pro"]}, "serve": {"variation": "z"}},
                {"when": {"attribute": "age", "op": "gt", "values": ["old"]}, "serve": {}, "colour": 1},
            ],
            fallthrough={"split": {"weights": [["a", 1]]}},
        ),
        environments={"moon": ConfigFields()},
    )
    first = rig.refused(command).errors
    assert set(first) >= {"key", "name", "variations[0].value", "variations[1].key", "variations[1].color"}
    assert "prerequisites[0]" in first
    # Configs are read once the flag itself makes sense.
    second = rig.refused(
        CreateFlag(
            project="shop",
            name="x",
            default_value="v",
            config=command.config,
            environments=command.environments,
        ),
    ).errors
    assert set(second) >= {
        "environments.moon",
        "config.off",
        "config.rules[0].when.op",
        "config.rules[0].serve.variation",
        "config.rules[1].when.values[0]",
        "config.rules[1].serve",
        "config.rules[1].colour",
        "config.fallthrough.split.weights",
    }
    assert "did you mean 'equals'" in second["config.rules[0].when.op"][0]


@pytest.mark.parametrize(
    ("flag_type", "value"),
    [
        ("boolean", 1),
        ("boolean", None),
        ("string", 1),
        ("number", "1"),
        ("number", True),
        ("json", "x"),
        ("json", None),
    ],
)
def test_a_value_must_have_the_flags_type(rig: Rig, flag_type: str, value: Any) -> None:
    """A value of another type is refused at its field."""
    command = CreateFlag(project="shop", name="x", type=FlagType(flag_type), variations=[{"value": value}])
    assert list(rig.refused(command).errors) == ["variations[0].value"]


def test_number_format_is_float_as_soon_as_one_value_is(rig: Rig) -> None:
    """`1.0` makes a number flag a float flag; whole numbers keep it an integer one."""
    create(rig, key="whole", default_value=1)
    create(rig, key="part", variations=[{"value": 1}, {"value": 1.0, "key": "b"}])
    flags = rig.state().flags
    assert b'"number_format":"integer"' in flags["whole"]
    assert b'"number_format":"float"' in flags["part"]


@pytest.mark.parametrize(
    ("fields", "published", "read"),
    [
        ({"default_value": 1, "number_format": "float"}, b'"number_format":"float"', 1.0),
        ({"variations": [{"value": 1}, {"value": 2}], "number_format": "float"}, b'"number_format":"float"', 1.0),
        ({"default_value": 2.0, "number_format": "integer"}, b'"number_format":"integer"', 2),
        ({"type": FlagType.NUMBER, "number_format": "float"}, b'"number_format":"float"', 0.0),
    ],
)
def test_a_declared_number_format_holds(rig: Rig, fields: dict[str, Any], published: bytes, read: float) -> None:
    """What is declared is stored and published whatever the values look like, and the engine serves that very type."""
    flag = create(rig, key="share", **fields)
    assert flag.number_format == fields["number_format"]
    text = rig.state().flags["share"]
    assert published in text
    served = parse_flag("share", orjson.loads(text)).off.value
    assert (type(served), served) == (type(read), read)


def test_a_number_format_is_changed_cleared_and_audited(rig: Rig) -> None:
    """An update declares it, None infers it again, a new type drops it; the diff names it each time."""
    create(rig, key="limit", default_value=1)
    seen = []
    for change in (
        {"number_format": "float"},
        {"name": "Limit"},
        {"number_format": None},
        {"number_format": "integer"},
        {"type": FlagType.STRING, "confirm_type_change": True},
        {"type": FlagType.NUMBER, "confirm_type_change": True, "number_format": "float"},
    ):
        done = rig.do(UpdateFlag(project="shop", flag="limit", **change))
        changes = {each.path: (each.before, each.after) for each in done.decision.changes}
        published = orjson.loads(rig.state().flags["limit"]).get("number_format")
        seen.append((changes.get("number_format"), published))
    assert seen == [
        ((None, "float"), "float"),
        (None, "float"),
        (("float", None), "integer"),
        ((None, "integer"), "integer"),
        (("integer", None), None),
        ((None, "float"), "float"),
    ]


LARGE = 2**53 + 1


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (CreateFlag(project="shop", key="x", number_format="float"), "number_format"),
        (CreateFlag(project="shop", key="x", default_value="a", number_format="float"), "number_format"),
        (CreateFlag(project="shop", key="x", default_value=0.5, number_format="integer"), "default_value"),
        (CreateFlag(project="shop", key="x", default_value=1e300, number_format="integer"), "default_value"),
        (CreateFlag(project="shop", key="x", default_value=LARGE, number_format="float"), "default_value"),
        (
            CreateFlag(project="shop", key="x", variations=[{"value": 1}, {"value": 1.5}], number_format="integer"),
            "variations[1].value",
        ),
        (
            CreateFlag(
                project="shop", key="x", default_value=1, number_format="integer", config=ConfigFields(off_value=0.5)
            ),
            "config.off_value",
        ),
        (UpdateFlag(project="shop", flag="half", number_format="integer"), "number_format"),
        (
            UpdateFlag(project="shop", flag="whole", variations=[{"key": "default", "value": 0.5}]),
            "variations[0].value",
        ),
        (UpdateFlag(project="shop", flag="text", number_format="float"), "number_format"),
        (
            UpdateFlag(
                project="shop", flag="whole", type=FlagType.STRING, confirm_type_change=True, number_format="float"
            ),
            "number_format",
        ),
        (
            UpdateConfig(project="shop", flag="whole", environment="production", fields=ConfigFields(off_value=0.5)),
            "off_value",
        ),
    ],
)
def test_a_number_format_that_does_not_fit_is_refused(rig: Rig, command: Any, path: str) -> None:
    """For another type, or where a value cannot be kept as it is: at the member that is to blame."""
    create(rig, key="half", default_value=0.5)
    create(rig, key="whole", default_value=1, number_format="integer")
    create(rig, key="text", default_value="a")
    before = rig.dump()
    assert list(rig.refused(command).errors) == [path]
    assert rig.dump() == before


def test_a_type_change_must_be_confirmed_and_tells_what_it_replaced(rig: Rig) -> None:
    """Without confirmation nothing happens; with it every environment is reset and the answer says what was lost."""
    rules = [{"when": {"all": []}, "value": True}]
    create(rig, key="x", environments={"production": ConfigFields(enabled=True, rules=rules)})
    update = UpdateFlag(project="shop", flag="x", type=FlagType.STRING)
    assert list(rig.refused(update).errors) == ["type"]
    done = rig.do(UpdateFlag(project="shop", flag="x", type=FlagType.STRING, confirm_type_change=True))
    flag = done.decision.entity
    assert isinstance(flag, Flag)
    assert values(flag) == {"default": ""}
    config = config_of(rig, flag)
    assert (config.rules, config.enabled, config.off) == ((), False, "default")
    lost = {notice.detail for notice in done.decision.warnings}
    assert any("rules" in detail and "production" in detail for detail in lost)


def test_variations_in_use_cannot_be_taken_away(rig: Rig) -> None:
    """Replacing the variations is refused where an environment still serves one that would be gone."""
    create(rig, key="x", default_value="a")
    rejected = rig.refused(UpdateFlag(project="shop", flag="x", variations=[{"key": "other", "value": "b"}]))
    assert rejected.errors["environments.production.off"] == ("There is no variation 'default'.",)


def test_an_update_keeps_what_it_does_not_name(rig: Rig) -> None:
    """Absent keeps, null clears."""
    create(rig, key="x", name="X", description="about", owner="me", tags=["a"])
    flag = rig.make(UpdateFlag(project="shop", flag="x", description=None))
    assert (flag.name, flag.description, flag.owner, flag.tags, flag.version) == ("X", None, "me", ("a",), 2)


def test_an_update_that_changes_nothing_is_nothing(rig: Rig) -> None:
    """No new version, no audit entry, no revision."""
    create(rig, key="x", name="X")
    before = rig.dump()
    done = rig.do(UpdateFlag(project="shop", flag="x", name="X", tags=[]))
    assert done.audit is None
    assert rig.dump() == before


def test_a_stale_author_gets_both_sides(rig: Rig) -> None:
    """`if_match` of another version is refused with the expected version and the entity as it is."""
    create(rig, key="x", name="X")
    rig.do(UpdateFlag(project="shop", flag="x", name="Y"))
    rejected = rig.refused(UpdateFlag(project="shop", flag="x", name="Z", if_match=1))
    assert rejected.kind is Kind.PRECONDITION
    assert rejected.expected == 1
    assert isinstance(rejected.current, Flag)
    assert (rejected.current.version, rejected.current.name) == (2, "Y")


def test_prerequisite_cycles_are_refused_with_the_path(rig: Rig) -> None:
    """The refusal shows the way round."""
    create(rig, key="c")
    create(rig, key="b", prerequisites=["c"])
    create(rig, key="a", prerequisites=[{"flag": "b", "variations": ["on"]}])
    rejected = rig.refused(UpdateFlag(project="shop", flag="c", prerequisites=["a"]))
    assert rejected.code == "prerequisite_cycle"
    assert "c → a → b → c" in rejected.errors["prerequisites"][0]


def test_a_diamond_is_no_cycle(rig: Rig) -> None:
    """Two ways to the same prerequisite are fine."""
    create(rig, key="root")
    create(rig, key="left", prerequisites=["root"])
    create(rig, key="right", prerequisites=["root"])
    assert rig.do(CreateFlag(project="shop", key="top", prerequisites=["left", "right"])).decision.warnings == ()


def test_a_missing_prerequisite_is_accepted_with_a_warning(rig: Rig) -> None:
    """A prerequisite may be created later."""
    done = rig.do(CreateFlag(project="shop", key="a", prerequisites=["later"]))
    assert [notice.code for notice in done.decision.warnings] == ["missing_prerequisite"]
    # The cycle is found when it would close, although the edge was there before the flag.
    assert rig.refused(CreateFlag(project="shop", key="later", prerequisites=["a"])).code == "prerequisite_cycle"


def test_chains_of_prerequisites_are_bounded(rig: Rig) -> None:
    """What a relay would set aside as too deep is refused."""
    create(rig, key="f0")
    for number in range(1, 16):
        create(rig, key=f"f{number}", prerequisites=[f"f{number - 1}"])
    assert "prerequisites" in rig.refused(CreateFlag(project="shop", key="f16", prerequisites=["f15"])).errors


@pytest.mark.parametrize("command", [DeleteFlag, ArchiveFlag])
def test_a_flag_that_others_require_goes_only_by_force(rig: Rig, command: type[DeleteFlag | ArchiveFlag]) -> None:
    """The refusal lists the flags that require it."""
    create(rig, key="base")
    create(rig, key="top", prerequisites=["base"])
    rejected = rig.refused(command(project="shop", flag="base"))
    assert (rejected.kind, rejected.extra) == (Kind.CONFLICT, {"used_by": ["top"]})
    rig.do(command(project="shop", flag="base", force=True))
    assert "base" not in rig.state().flags


def test_an_archived_flag_is_immutable_until_restored(rig: Rig) -> None:
    """Archived flags are not served, refuse changes, and come back as they were."""
    flag = create(rig, key="x", name="X")
    rig.do(ArchiveFlag(project="shop", flag="x"))
    assert "x" not in rig.state().flags
    assert rig.refused(UpdateFlag(project="shop", flag="x", name="Y")).code == "flag_archived"
    restored = rig.make(RestoreFlag(project="shop", flag=flag.id))
    assert (restored.name, restored.archived_at) == ("X", None)
    assert "x" in rig.state().flags
    assert rig.refused(RestoreFlag(project="shop", flag="x")).kind is Kind.CONFLICT


def test_metadata_is_flat(rig: Rig) -> None:
    """Clients get metadata as it is, so only scalars are accepted."""
    rejected = rig.refused(CreateFlag(project="shop", name="x", metadata={"a": 1, "b": {"c": 1}}))
    assert list(rejected.errors) == ["metadata.b"]


DEEP: dict[str, Any] = {}
for _ in range(20):
    DEEP = {"deeper": DEEP}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"variations": []}, "variations"),
        ({"variations": ["on"]}, "variations[0]"),
        ({"variations": [{"key": 7, "value": True}]}, "variations[0].key"),
        ({"variations": [{"key": "no spaces", "value": True}]}, "variations[0].key"),
        ({"variations": [{"value": True, "name": "x" * 201}]}, "variations[0].name"),
        ({"variations": [{"value": number} for number in range(101)]}, "variations[100]"),
        ({"default_value": 1 << 70}, "default_value"),
        ({"default_value": DEEP}, "default_value"),
        ({"variations": [{"value": "a"}], "type": FlagType.STRING, "default_value": 7}, "default_value"),
        ({"tags": ["t"] * 51}, "tags"),
        ({"tags": [" "]}, "tags[0]"),
        ({"mutual_exclusion_group": ""}, "mutual_exclusion_group"),
        ({"description": "x" * 10_001}, "description"),
        ({"prerequisites": ["a"] * 51}, "prerequisites"),
        ({"prerequisites": [7]}, "prerequisites[0]"),
        ({"prerequisites": ["a", "a"]}, "prerequisites[1]"),
        ({"prerequisites": ["self"]}, "prerequisites[0]"),
        ({"prerequisites": [{"flag": "a", "variations": []}]}, "prerequisites[0].variations"),
        ({"prerequisites": [{"flag": "a", "value": 1}]}, "prerequisites[0].value"),
    ],
)
def test_every_malformed_part_is_refused_at_its_place(rig: Rig, fields: dict[str, Any], path: str) -> None:
    """Whatever the shape of the JSON, the answer names the place and nothing is stored."""
    assert path in rig.refused(CreateFlag(project="shop", key="self", **fields)).errors


@pytest.mark.parametrize(
    ("value", "flag_type", "key"),
    [
        (True, "boolean", "on"),
        ("Big Red", "string", "big_red"),
        (2.5, "number", "2_5"),
        ({"a": 1}, "json", "variation"),
    ],
)
def test_types_and_variation_keys_follow_from_values(rig: Rig, value: Any, flag_type: str, key: str) -> None:
    """The type is inferred from the first variation, and its key made from the value."""
    flag = create(rig, name="x", variations=[{"value": value}])
    assert (flag.type, list(values(flag))) == (flag_type, [key])


def test_a_missing_variation_of_a_prerequisite_is_a_warning(rig: Rig) -> None:
    """The required flag may get that variation later."""
    create(rig, key="base")
    rig.do(CreateFlag(project="shop", key="top", prerequisites=[{"flag": "base", "variations": ["blue"]}]))
    done = rig.do(UpdateFlag(project="shop", flag="top", prerequisites=[{"flag": "base", "variations": ["red"]}]))
    assert [notice.code for notice in done.decision.warnings] == ["missing_variation"]


def test_a_type_can_change_together_with_its_variations(rig: Rig) -> None:
    """Given variations become those of the new type; the group is published."""
    create(rig, key="x", mutual_exclusion_group="checkout")
    assert b'"group":"checkout"' in rig.state().flags["x"]
    update = UpdateFlag(
        project="shop", flag="x", type=FlagType.NUMBER, confirm_type_change=True, variations=[{"key": "n", "value": 1}]
    )
    assert values(rig.make(update)) == {"n": 1}
