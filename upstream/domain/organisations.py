"""Decides about organisations: the very first one with its owner, further ones, and their names."""

from dataclasses import replace

from upstream.domain.access_commands import (
    CreateOrganisation,
    Found,
    UpdateOrganisation,
)
from upstream.domain.commands import (
    given,
)
from upstream.domain.diff import changes_between
from upstream.domain.entities import Member, Organisation, Role
from upstream.domain.errors import Kind, Problems, Rejected, not_found
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import check_version, is_changed, next_version
from upstream.domain.members import check_email
from upstream.domain.naming import check_name, check_text

_INVALID = "The organisation cannot be used as it is."


def create_organisation(command: CreateOrganisation, view: View, facts: Facts) -> Decision:  # noqa: ARG001 - every decider has the same signature
    """Found a tenant."""
    problems = Problems()
    check_name(problems, "name", command.name)
    problems.check(_INVALID)
    organisation = _organisation(command.name, facts)
    changes = changes_between(None, organisation)
    return Decision(action="organisation.created", entity=organisation, save=(organisation,), changes=changes)


def found(command: Found, view: View, facts: Facts) -> Decision:
    """Make the first organisation and its owner in one step, so that neither is ever there without the other."""
    if view.has_members():
        detail = "Somebody is here already. Sign in, or have an admin invite you."
        raise Rejected(Kind.CONFLICT, detail, code="already_set_up")
    problems = Problems()
    check_name(problems, "organisation", command.organisation)
    check_text(problems, "name", command.name)
    email = check_email(problems, command.email)
    problems.check(_INVALID)
    # One without members was left behind by a first start of an older version that did not come to its end.
    left = view.first_organisation()
    organisation = (
        _organisation(command.organisation, facts)
        if left is None
        else next_version(replace(left, name=command.organisation), facts)
    )
    owner = Member(
        id=facts.new_id(),
        organisation_id=organisation.id,
        email=email,
        name=command.name,
        role=Role.OWNER,
        password_hash=command.password_hash,
        projects=None,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    return Decision(
        action="organisation.founded",
        entity=owner,
        target=organisation,
        save=(organisation, owner),
        changes=changes_between(left, organisation) + changes_between(None, owner, prefix="owner"),
    )


def update_organisation(command: UpdateOrganisation, view: View, facts: Facts) -> Decision:
    """Rename the organisation."""
    if facts.actor.projects is not None:
        detail = "Whoever is limited to some projects cannot change the organisation."
        raise Rejected(Kind.FORBIDDEN, detail, code="wrong_project")
    organisation = view.organisation(facts.actor.organisation_id)
    if organisation is None:
        raise not_found("organisation", facts.actor.organisation_id)
    check_version(organisation, command.if_match)
    after = replace(organisation, **given(command, "name"))
    problems = Problems()
    check_name(problems, "name", after.name)
    problems.check(_INVALID)
    saved = next_version(after, facts) if is_changed(organisation, after) else None
    return Decision(
        action="organisation.updated",
        entity=saved or organisation,
        save=(saved,) if saved else (),
        changes=changes_between(organisation, after),
    )


def _organisation(name: str, facts: Facts) -> Organisation:
    return Organisation(
        id=facts.new_id(),
        name=name,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
