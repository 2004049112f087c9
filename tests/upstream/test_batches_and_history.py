"""Several commands as one transaction, what a command would do, and the versions that are kept."""

from typing import Any

import pytest

from tests.upstream.management import P, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import Batch, CreateFlag, DeleteFlag, ToggleFlag, UpdateFlag
from upstream.domain.errors import Rejected
from upstream.storage.entity_history import version_of, versions_of


def test_a_batch_makes_one_revision_and_an_entry_for_each_command(rig: Rig) -> None:
    """Later commands see what earlier ones did; followers see it all at once."""
    before = rig.state().revision
    done = rig.do(
        Batch(
            commands=(
                CreateFlag(project="shop", key="a"),
                UpdateFlag(project="shop", flag="a", name="Alpha"),
                ToggleFlag(project="shop", flag="a", environment="production", enabled=True),
            )
        )
    )
    state = rig.state()
    assert state.revision == before + 1
    assert b'"enabled":true' in state.flags["a"]
    assert [entry.action for entry in done.audits] == ["flag.created", "flag.updated", "flag.toggled"]
    assert {entry.revisions[rig.environment().id] for entry in done.audits} == {state.revision}


def test_a_batch_whose_last_command_is_refused_leaves_nothing(rig: Rig) -> None:
    """All of it or nothing."""
    before = rig.dump()
    with pytest.raises(Rejected, match="nowhere"):
        rig.do(Batch(commands=(CreateFlag(project="shop", key="a"), DeleteFlag(project="shop", flag="nowhere"))))
    assert rig.dump() == before


def test_every_version_is_kept_with_the_revision_that_published_it(rig: Rig) -> None:
    """Newest first; a version says when it came and by which audit entry."""
    created = rig.do(CreateFlag(project="shop", key="a", name="One"))
    flag: Any = created.decision.entity
    renamed = rig.do(UpdateFlag(project="shop", flag="a", name="Two"))
    toggled = rig.do(ToggleFlag(project="shop", flag="a", environment="production", enabled=True))
    environment = rig.environment().id
    versions = rig.look(lambda connection: versions_of(connection, flag.id, "", limit=10))
    assert [(each.entity.version, each.entity.name) for each in versions] == [(2, "Two"), (1, "One")]
    assert renamed.audit is not None
    assert versions[0].audit_id == renamed.audit.id
    config = rig.look(lambda connection: version_of(connection, flag.id, environment, 2))
    assert config is not None
    assert config.entity == toggled.decision.entity
    assert config.revisions == toggled.revisions
    assert rig.look(lambda connection: version_of(connection, flag.id, environment, 3)) is None


async def test_a_dry_run_answers_with_the_difference_and_changes_nothing(world: World) -> None:
    """Any write; who depends on the flag is named."""
    await world.api.made(f"{P}/flags", {"key": "needs", "prerequisites": ["checkout"]})
    before = await world.api.shown(f"{P}/flags/checkout")
    reply = await world.api.post(f"{P}/flags/checkout:toggle?dry_run=1", {"environment": "production", "enabled": True})
    assert reply.status == 200
    assert reply.body == {
        "dry_run": True,
        "changes": [
            {
                "target": {"type": "flag", "key": "checkout"}, "environment": "production",
                "path": "enabled", "before": False, "after": True,
            },
        ],
        "warnings": [],
        "affected": {
            "flags": ["checkout"], "segments": [], "environments": ["production"], "dependents": ["needs"],
        },
    }  # fmt: skip
    assert await world.api.shown(f"{P}/flags/checkout") == before
    refused = await world.api.post(f"{P}/flags/nowhere:toggle?dry_run=1", {"environment": "production"})
    assert (refused.status, refused.code) == (404, "flag_not_found")


async def test_a_dry_run_that_is_refused_says_what_the_write_would_say(world: World) -> None:
    """The same 412 with both sides."""
    reply = await world.api.patch(f"{P}/flags/checkout?dry_run=1", {"name": "New"}, if_match='"v9"')
    assert (reply.status, reply.code) == (412, "version_conflict")


async def test_a_dry_run_on_a_segment_names_the_flags_that_use_it(world: World) -> None:
    """Who would feel it: every environment, and the flags whose rules name the segment."""
    rules = [{"when": {"segment": "testers"}, "value": True}]
    await world.api.made(f"{P}/flags", {"key": "uses-it", "rules": rules})
    reply = await world.api.patch(f"{P}/segments/testers?dry_run=1", {"include": ["bob"]})
    assert reply.body["affected"]["segments"] == ["testers"]
    assert reply.body["affected"]["dependents"] == ["uses-it"]
    reply = await world.api.patch(f"{P}/environments/staging?dry_run=1", {"name": "Stage"})
    assert reply.body["affected"]["environments"] == ["staging"]
