"""A command that waits in the database comes back as it went in."""

from dataclasses import fields
from typing import Any, get_args

import orjson
import pytest

from upstream.domain.access_commands import (
    CreateKey,
    UpdateMember,
)
from upstream.domain.command_codec import UnknownCommand, decode, encode
from upstream.domain.commands import (
    Batch,
    Command,
    ConfigFields,
    CreateFlag,
    CreateProject,
    NewEnvironment,
    ToggleFlag,
    UpdateConfig,
    UpdateFlag,
)
from upstream.domain.entities import CredentialKind, FlagKind, FlagType, Role
from upstream.domain.flag_commands import (
    AddRule,
    AddTargets,
    AddVariation,
    CopyFlag,
    PromoteFlag,
    RampUp,
    ReorderRules,
    RollOut,
    TagFlag,
    UpdateRule,
)
from upstream.domain.governance_commands import ApplyRequest, RevertFlag
from upstream.domain.unset import (
    UNSET,
)

COMMANDS: list[Command] = [
    CreateFlag(
        project="shop", key="a", type=FlagType.NUMBER, kind=FlagKind.OPS, config=ConfigFields(enabled=True),
        environments={"production": ConfigFields(off=None, rules=[{"when": {"all": []}, "value": 1}])},
    ),
    UpdateFlag(project="shop", flag="a", type=FlagType.STRING, confirm_type_change=True, owner=None),
    UpdateConfig(project="shop", flag="a", environment="e", fields=ConfigFields(fallthrough={"variation": "on"})),
    ToggleFlag(project="shop", flag="a", environment="e", enabled=False, if_match=3),
    UpdateMember(member="m", role=Role.ADMIN),
    CreateKey(kind=CredentialKind.CLIENT, project="shop", environment="e"),
    CreateProject(name="Shop", environments=(NewEnvironment(key="live", critical=True),)),
    PromoteFlag(project="shop", flag="a", source="s", environment="e", parts=("rules",), if_match=2),
    CopyFlag(project="shop", flag="a", into="other", keep_enabled=True),
    TagFlag(project="shop", flag="a", add=("x",)),
    AddRule(project="shop", flag="a", environment="e", rule={"when": {"all": []}, "value": None}, position=0),
    UpdateRule(project="shop", flag="a", environment="e", rule="r", changes={"name": None}),
    ReorderRules(project="shop", flag="a", environment="e", rules=("r", "s")),
    AddTargets(project="shop", flag="a", environment="e", variation="on", units=("u", 7)),
    RollOut(project="shop", flag="a", environment="e", percentage=12.5),
    RampUp(project="shop", flag="a", environment="e", ramp={"to": "on", "start_at": None}),
    AddVariation(project="shop", flag="a", variation={"value": None}),
    CreateFlag(project="shop", name="A", template="ab_test", flavor="json"),
    UpdateFlag(project="shop", flag="a", name="A", base_version=3),
    RevertFlag(project="shop", flag="a", environment="e", revision=7),
    ApplyRequest(project="shop", request="r"),
    Batch(commands=(ToggleFlag(project="shop", flag="a", environment="e"), UpdateFlag(project="shop", flag="b"))),
]  # fmt: skip


def plain(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_survives_the_database(command: Command) -> None:
    """Through JSON text and back it is equal, and what was not set is still not set."""
    again = decode(plain(encode(command)))
    assert type(again) is type(command)
    assert plain(encode(again)) == plain(encode(command))
    unset = {each.name for each in fields(command) if getattr(command, each.name) is UNSET}
    assert unset == {each.name for each in fields(again) if getattr(again, each.name) is UNSET}


def test_enumerations_come_back_as_such() -> None:
    """The domain compares types by identity."""
    again = decode(plain(encode(COMMANDS[0])))
    assert isinstance(again, CreateFlag)
    assert again.type is FlagType.NUMBER
    assert again.environments["production"].off is None
    assert again.environments["production"].enabled is UNSET


def test_every_command_can_be_named() -> None:
    """Two commands with one name would be confused."""
    names = [kind.__name__ for kind in get_args(Command)]
    assert len(names) == len(set(names)) > 20


@pytest.mark.parametrize(
    "value",
    [{}, {"command": "Explode"}, {"command": "ToggleFlag"}, {**encode(COMMANDS[3]), "more": 1}],
    ids=["empty", "unknown", "without what it needs", "with more"],
)
def test_what_is_no_command_is_refused(value: dict[str, Any]) -> None:
    """A row that another version wrote is named, and carried out in no form."""
    with pytest.raises(UnknownCommand):
        decode(value)
