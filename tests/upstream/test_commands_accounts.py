"""Founding, renaming and what one does about oneself, where the API cannot show it."""

from dataclasses import replace
from typing import Any

from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.access_commands import (
    ChangePassword,
    CreateMember,
    DeleteMember,
    Found,
    InviteMember,
    RenameMyself,
    UpdateOrganisation,
)
from upstream.domain.entities import Role
from upstream.domain.errors import Kind
from upstream.domain.permissions import Actor, system_actor

FOUND = Found(organisation="Halyard", email="Olga@acme.example", name="Olga", password_hash="x")


def actor_of(rig: Rig, **fields: Any) -> Actor:
    return Actor(type="member", id="m", name="Ann", organisation_id=rig.organisation_id, **fields)


def test_an_organisation_that_a_first_start_left_behind_is_taken_over(rig: Rig) -> None:
    """Older versions made the organisation first; one without members is renamed instead of being orphaned."""
    done = rig.do(FOUND, system_actor())
    assert done.audit is not None
    assert (done.audit.action, done.audit.organisation_id) == ("organisation.founded", rig.organisation_id)
    organisation = rig.view(lambda view: view.organisation(rig.organisation_id))
    owner = rig.view(lambda view: view.member(rig.organisation_id, "olga@acme.example"))
    assert organisation is not None
    assert owner is not None
    assert (organisation.name, owner.role, owner.projects) == ("Halyard", Role.OWNER, None)


def test_two_who_found_at_once_are_not_both_first(rig: Rig) -> None:
    """Whoever is decided second is refused, although nobody was there when they asked."""
    rig.do(FOUND, system_actor())
    again = replace(FOUND, email="second@acme.example")
    assert rig.refused(again, system_actor()).code == "already_set_up"


def test_only_the_installation_founds_and_only_members_are_themselves(rig: Rig) -> None:
    """No permission gives what belongs to the installation, or to somebody for themselves."""
    assert rig.refused(FOUND, actor_of(rig, role=Role.OWNER)).code == "permission_missing"
    for command in (RenameMyself(name="x"), ChangePassword(verified="x", password_hash="y", sign_in="z")):
        assert rig.refused(command).code == "permission_missing"


def test_whoever_was_removed_meanwhile_changes_nothing(rig: Rig) -> None:
    """A member who is deleted between the request and the transaction is not found."""
    member = rig.make(CreateMember(email="ann@acme.example"))
    rig.do(DeleteMember(member=member.id))
    assert rig.refused(RenameMyself(name="x"), replace(actor_of(rig), id=member.id)).code == "member_not_found"


def test_a_rename_of_an_organisation_needs_all_of_it(rig: Rig) -> None:
    """Whoever is limited to projects does not rename what others share; an unknown one is not found."""
    limited = replace(actor_of(rig, role=Role.OWNER), projects=frozenset({rig.project.id}))
    assert rig.refused(UpdateOrganisation(name="x"), limited).code == "wrong_project"
    assert rig.refused(UpdateOrganisation(name="x"), system_actor("nowhere")).kind is Kind.NOT_FOUND
    assert rig.do(UpdateOrganisation(name="Acme")).audit is None


def test_one_token_at_most_waits_for_a_member(rig: Rig) -> None:
    """Each new one takes the place of the one before, and removing the member removes it."""
    member = rig.make(CreateMember(email="ann@acme.example"))
    for _ in range(3):
        rig.do(InviteMember(member=member.id, valid_ms=1_000))
    assert len(rig.view(lambda view: view.one_time_tokens(member.id))) == 1
    rig.do(DeleteMember(member=member.id))
    assert rig.view(lambda view: view.one_time_tokens(member.id)) == []
