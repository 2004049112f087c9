"""Decides about people.

Nobody is given more than the giver has, nobody who is limited to projects decides about somebody who reaches beyond
them, and an organisation never loses its last owner.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from upstream.domain.access_commands import (
    CreateMember,
    DeleteMember,
    UpdateMember,
)
from upstream.domain.commands import (
    given,
)
from upstream.domain.diff import changes_between
from upstream.domain.entities import Change, Member, Role
from upstream.domain.errors import Kind, Problems, Rejected, not_found
from upstream.domain.facts import Decision, Facts, Notice, View
from upstream.domain.lookup import check_version, is_changed, next_version, projects_of
from upstream.domain.naming import check_text
from upstream.domain.permissions import BY_ROLE, actions, contains
from upstream.domain.unset import (
    UNSET,
)

EMAIL = re.compile(r"[^@\s\x00]{1,64}@[^@\s\x00]{1,190}")
_INVALID = "The member cannot be used as it is."
_ENDED = Notice(code="invitation_ended", detail="The member's unused invitation or reset ended; make another one.")


def create_member(command: CreateMember, view: View, facts: Facts) -> Decision:
    """Add a person."""
    problems = Problems()
    email = check_email(problems, command.email)
    check_text(problems, "name", command.name)
    _check_owner(problems, command.role, command.projects)
    problems.check(_INVALID)
    _check_role(command.role, facts)
    if view.member_by_email(email) is not None:
        sentence = f"Somebody uses {email!r} already."
        raise Rejected(Kind.CONFLICT, sentence, {"email": [sentence]}, code="email_taken")
    member = Member(
        id=facts.new_id(),
        organisation_id=facts.actor.organisation_id,
        email=email,
        name=command.name,
        role=command.role,
        password_hash=command.password_hash,
        projects=projects_of(view, facts, command.projects),
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    return Decision(action="member.created", entity=member, save=(member,), changes=changes_between(None, member))


def update_member(command: UpdateMember, view: View, facts: Facts) -> Decision:
    """Change a person's name, role, password or projects."""
    member = ruled_member_of(view, facts, command.member)
    check_version(member, command.if_match)
    after = replace(member, **given(command, "name", "role", "password_hash"))
    if command.projects is not UNSET:
        after = replace(after, projects=projects_of(view, facts, command.projects))
    problems = Problems()
    check_text(problems, "name", after.name)
    _check_owner(problems, after.role, after.projects)
    problems.check(_INVALID)
    _check_role(after.role, facts)
    if after.role is not Role.OWNER:
        _check_last_owner(member, view)
    changes = changes_between(member, after)
    is_new_password = after.password_hash != member.password_hash
    if is_new_password:
        changes += (Change(path="password", before=None, after="changed", pointer="/password"),)
    saved = next_version(after, facts) if is_changed(member, after) or is_new_password else None
    # Whoever made it would otherwise hold the way into an account that may do more by now.
    ends_tokens = is_new_password or (after.role, after.projects) != (member.role, member.projects)
    tokens = tuple(view.one_time_tokens(member.id)) if ends_tokens else ()
    return Decision(
        action="member.updated",
        entity=saved or member,
        save=(saved,) if saved else (),
        remove=tokens,
        changes=changes,
        warnings=(_ENDED,) if tokens else (),
        signs_out=member.id if is_new_password else None,
    )


def delete_member(command: DeleteMember, view: View, facts: Facts) -> Decision:
    """Remove a person."""
    member = ruled_member_of(view, facts, command.member)
    check_version(member, command.if_match)
    _check_last_owner(member, view)
    return Decision(action="member.deleted", entity=member, remove=(member,), changes=changes_between(member, None))


def check_email(problems: Problems, email: str) -> str:
    """Return an e-mail address as it is stored, and note what is wrong with it."""
    email = email.strip().lower()
    if EMAIL.fullmatch(email) is None:
        problems.add("email", "This is no e-mail address.")
    return email


def ruled_member_of(view: View, facts: Facts, reference: str) -> Member:
    """Return a member about whom the actor may decide.

    Raises:
        Rejected: NOT_FOUND; FORBIDDEN where the member reaches farther, or may do more, than the actor.
    """
    member = view.member(facts.actor.organisation_id, reference)
    if member is None:
        raise not_found("member", reference)
    _check_reach(member.projects, facts)
    _check_role(member.role, facts)
    return member


def _check_role(role: Role, facts: Facts) -> None:
    if not BY_ROLE[role] <= actions(facts.actor):
        detail = f"Only who may do everything that the role {role} may can give it, or decide about whoever has it."
        raise Rejected(Kind.FORBIDDEN, detail, code="role_too_high")


def _check_owner(problems: Problems, role: Role, projects: Sequence[str] | None) -> None:
    # An owner who shuts themselves out of a project could be let in again by nobody.
    if role is Role.OWNER and projects is not None:
        problems.add("projects", "An owner has all projects; give another role to whoever is limited.")


def _check_reach(projects: Sequence[str] | None, facts: Facts) -> None:
    if not contains(facts.actor, projects):
        raise Rejected(Kind.FORBIDDEN, "This member reaches beyond the projects you may use.", code="wrong_project")


def _check_last_owner(member: Member, view: View) -> None:
    if member.role is not Role.OWNER:
        return
    others = [each for each in view.owners(member.organisation_id) if each.id != member.id]
    # One who has not joined yet might never do so.
    if not others or (member.password_hash is not None and all(each.password_hash is None for each in others)):
        detail = "An organisation keeps at least one owner who can sign in; make somebody else an owner first."
        raise Rejected(Kind.CONFLICT, detail, code="last_owner")
