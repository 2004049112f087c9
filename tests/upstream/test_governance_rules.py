"""What schedules and change requests refuse, decided without the API: limits, permissions, what has changed."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain import requests, schedules
from upstream.domain.access_commands import (
    CreateKey,
    CreateToken,
)
from upstream.domain.actors import actor_again, person, recorded
from upstream.domain.bindings import bound_by, holds, named
from upstream.domain.command_codec import encode
from upstream.domain.commands import (
    Batch,
    Command,
    CreateFlag,
    CreateProject,
    CreateSegment,
    DeleteFlag,
    DeleteSegment,
    ToggleFlag,
    UpdateFlag,
    UpdateSegment,
)
from upstream.domain.deferral import pinned, project_concerned
from upstream.domain.entities import CredentialKind
from upstream.domain.errors import Rejected
from upstream.domain.facts import Facts
from upstream.domain.governance_commands import (
    ApplyRequest,
    CancelSchedule,
    CreateSchedule,
    FailSchedule,
    ProposeChange,
    ReviewRequest,
    RunSchedule,
)
from upstream.domain.permissions import Actor, system_actor
from upstream.storage import deferral
from upstream.storage.schedules import fail, run
from upstream.storage.view import StoredView

RENAME = UpdateFlag(project="shop", flag="a", name="New")


def facts_of(rig: Rig, actor: Actor | None = None) -> Facts:
    return Facts(now_ms=rig.clock.wall_ms(), entropy=rig.entropy, actor=actor or rig.system)


def propose(rig: Rig, command: Command, actor: Actor | None = None) -> Any:
    facts = facts_of(rig, actor)
    return rig.look(lambda c: deferral.propose(c, command, "Change", facts)).decision.entity


def schedule(rig: Rig, command: Command, in_ms: int = 1_000) -> Any:
    facts = facts_of(rig)
    return rig.look(lambda c: deferral.schedule(c, command, facts.now_ms + in_ms, facts)).decision.entity


def token(rig: Rig, name: str, *scopes: str) -> Actor:
    made = rig.make(CreateToken(name=name, scopes=scopes or ("flags:write",)))
    return Actor(
        type="token", id=made.id, name=name, organisation_id=rig.organisation_id, scopes=frozenset(made.scopes)
    )


@pytest.fixture(name="shop")
def shop_fixture(rig: Rig) -> Rig:
    """The rig with a flag `a`."""
    rig.do(CreateFlag(project="shop", key="a"))
    return rig


def test_a_project_has_a_limited_number_waiting(shop: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of scheduled changes and of open requests: what is over it is refused with the remedy."""
    monkeypatch.setattr(schedules, "MAX_WAITING", 1)
    monkeypatch.setattr(requests, "MAX_WAITING", 1)
    first = schedule(shop, RENAME)
    with pytest.raises(Rejected, match="cancel some") as refused:
        schedule(shop, RENAME)
    assert refused.value.code == "too_many_schedules"
    shop.do(CancelSchedule(project="shop", schedule=first.id))
    schedule(shop, RENAME)
    propose(shop, RENAME)
    with pytest.raises(Rejected, match="withdraw some") as refused:
        propose(shop, RENAME)
    assert refused.value.code == "too_many_requests_open"


def test_a_request_holds_a_limited_number_of_changes(shop: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch counts with all of its commands."""
    monkeypatch.setattr(requests, "MAX_COMMANDS", 1)
    with pytest.raises(Rejected) as refused:
        propose(shop, Batch(commands=(RENAME, ToggleFlag(project="shop", flag="a", environment="staging"))))
    assert refused.value.code == "request_too_long"


def test_a_long_comment_is_refused(shop: Rig) -> None:
    """Comments have the limit of descriptions."""
    request = propose(shop, RENAME, token(shop, "author"))
    command = ReviewRequest(project="shop", request=request.id, verdict="approved", comment="x" * 10_001)
    assert list(shop.refused(command).errors) == ["comment"]


def test_only_the_installation_carries_schedules_out(shop: Rig) -> None:
    """And not before their time."""
    made = schedule(shop, RENAME)
    for command in (
        RunSchedule(project="shop", schedule=made.id),
        FailSchedule(project="shop", schedule=made.id, code="x", detail="x"),
    ):
        assert (
            shop.refused(command, token(shop, "somebody", "flags:write", "projects:write")).code == "permission_missing"
        )
    assert shop.refused(RunSchedule(project="shop", schedule=made.id)).code == "schedule_not_due"


def test_commands_of_another_version_are_not_guessed_at(shop: Rig) -> None:
    """A schedule that a newer version wrote fails with that reason."""
    kept = CreateSchedule(
        project="shop", commands=[{"command": "Explode"}], run_at=shop.clock.wall_ms() + 1, preview={}
    )
    made = shop.make(kept)
    shop.clock.jump_wall(1)
    done = shop.look(lambda c: run(c, made.id, shop.clock.wall_ms(), shop.entropy))
    assert done is not None
    after: Any = done.decision.entity
    assert after.result["code"] == "unknown_command"
    assert shop.look(lambda c: run(c, made.id, shop.clock.wall_ms(), shop.entropy)) is None
    assert shop.look(lambda c: fail(c, made.id, "x", "x", facts_of(shop))) is None


def test_a_binding_that_does_not_hold_is_found_when_it_is_applied(shop: Rig) -> None:
    """Also where the edit could not void it, as when two processes wrote at the same moment."""
    author, reviewer = token(shop, "author"), token(shop, "reviewer")
    request = propose(shop, RENAME, author)
    shop.do(ReviewRequest(project="shop", request=request.id, verdict="approved"), reviewer)
    shop.look(lambda c: c.exec_driver_sql("UPDATE flags SET version = version + 1"))
    refused = shop.refused(ApplyRequest(project="shop", request=request.id), author)
    assert refused.code == "request_outdated"
    assert refused.extra["changed"][0]["key"] == "a"
    assert "flag 'a'" in refused.detail


def test_what_a_change_makes_anew_is_bound_to_nothing(shop: Rig) -> None:
    """What exists is bound once, at the version before the first of the changes."""
    done = shop.do(
        Batch(
            commands=(
                CreateFlag(project="shop", key="b"),
                UpdateFlag(project="shop", flag="b", name="B"),
                UpdateFlag(project="shop", flag="a", name="A"),
                ToggleFlag(project="shop", flag="a", environment="production"),
                CreateSegment(project="shop", key="s"),
                UpdateSegment(project="shop", segment="s", name="S"),
            )
        )
    )
    bound = shop.view(lambda view: bound_by(done.decisions, view))
    assert [(each["type"], each["key"], each["version"]) for each in bound] == [("flag", "a", 1), ("config", "a", 1)]
    assert shop.view(lambda view: [holds(each, view) for each in bound]) == [False, False]
    assert [named(each) for each in bound] == ["The flag 'a'", "The config of the flag 'a'"]
    done = shop.do(DeleteSegment(project="shop", segment="s"))
    gone = shop.view(lambda view: bound_by(done.decisions, view))
    assert [(each["type"], each["version"]) for each in gone] == [("segment", 2)]
    assert not shop.view(lambda view: holds(gone[0], view))
    done = shop.do(DeleteFlag(project="shop", flag="b"))
    deleted = shop.view(lambda view: bound_by(done.decisions, view))
    assert not shop.view(lambda view: holds(deleted[0], view))
    config = {**bound[1], "environment_id": "nowhere", "key": None}
    assert not shop.view(lambda view: holds(config, view))
    assert named(config) == "The config of the flag"


def test_what_waits_names_things_by_id(shop: Rig) -> None:
    """What is not there yet keeps its key."""
    project, production = shop.project, shop.environment()
    flag = shop.view(lambda view: view.flag(project.id, "a"))
    assert flag is not None
    command = ToggleFlag(project="shop", flag="a", environment="production")
    kept = shop.view(lambda view: pinned(command, project, view))
    assert kept == ToggleFlag(project=project.id, flag=flag.id, environment=production.id)
    later = shop.view(lambda view: pinned(replace(command, flag="later", environment="x"), project, view))
    assert later == ToggleFlag(project=project.id, flag="later", environment="x")
    assert encode(kept)["flag"] == flag.id


@pytest.mark.parametrize(
    "commands",
    [
        (CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"),),
        (CreateFlag(project="shop", key="x"), CreateProject(key="other")),
    ],
    ids=["secret", "two projects"],
)
def test_what_is_not_of_one_project_cannot_wait(rig: Rig, commands: tuple[Command, ...]) -> None:
    """Nor what answers with a secret, whatever permission it needs."""
    done = rig.do(Batch(commands=commands))
    with pytest.raises(Rejected) as refused:
        rig.view(lambda view: project_concerned(commands, done.decisions, view, facts_of(rig)))
    assert refused.value.code == "cannot_wait"


def test_a_project_that_deletes_its_last_schedules_is_one_transaction(shop: Rig) -> None:
    """A command of the installation's own waits in its name."""
    made = schedule(shop, RENAME)
    assert made.actor == {"type": "system", "id": None, "name": "system"}
    shop.clock.jump_wall(1_000)
    done = shop.look(lambda c: run(c, made.id, shop.clock.wall_ms(), shop.entropy))
    assert done is not None
    assert [(entry.actor_type, entry.via) for entry in done.audits] == [("system", "schedule")] * 2


def test_actors_are_found_again_as_they_are_now(rig: Rig) -> None:
    """The installation always; a key of an application, which changes nothing here, never."""
    facts = facts_of(rig)
    system = recorded(system_actor(rig.organisation_id))
    assert rig.view(lambda view: actor_again(system, rig.organisation_id, view, facts)).type == "system"
    key = rig.make(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    for kept in ({"type": "token", "id": key.id, "name": "k"}, {"type": "key", "id": key.id, "name": "k"}):
        with pytest.raises(Rejected) as refused:
            rig.view(partial(_again, kept, rig.organisation_id, facts))
        assert refused.value.code == "actor_gone"


def _again(kept: Any, organisation_id: str, facts: Facts, view: StoredView) -> Actor:
    return actor_again(kept, organisation_id, view, facts)


def test_behind_the_installation_stands_itself(rig: Rig) -> None:
    """And behind a token that it made, that token; a chain of tokens that is too long to be followed has none."""
    assert rig.view(lambda view: person(rig.system, view)) == "system"
    first = token(rig, "first", "keys:write", "flags:write")
    assert rig.view(lambda view: person(first, view)) == first.id
    last = first
    for number in range(20):
        made: Any = rig.do(CreateToken(name=str(number), scopes=("keys:write", "flags:write")), last).decision.entity
        last = replace(first, id=made.id, name=made.name)
    with pytest.raises(Rejected) as refused:
        rig.view(lambda view: person(last, view))
    assert refused.value.code == "person_unknown"


def test_proposing_takes_what_it_is_given(shop: Rig) -> None:
    """The decider trusts whoever tried the commands, and checks the title."""
    untitled = ProposeChange(project="shop", title="", commands=[], bound=[], preview={})
    assert list(shop.refused(untitled).errors) == ["title"]
