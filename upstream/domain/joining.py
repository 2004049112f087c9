"""Decides how people come to a password: by an invitation, by a reset, or by the one they have.

Invitations and resets are one-time tokens; the raw text leaves in the decision, once, for whoever hands it on. What a
member does about themselves concerns the actor and nobody else: no command here names another member to change.
"""

from dataclasses import replace
from typing import Literal

from relay.clock import rfc3339
from relay.protocol.keys import fingerprint
from upstream.domain.access_commands import (
    ChangePassword,
    ChoosePassword,
    InviteMember,
    RenameMyself,
    ResetPassword,
)
from upstream.domain.diff import changes_between
from upstream.domain.entities import Change, Member, OneTimeToken
from upstream.domain.errors import Kind, Problems, Rejected, not_found
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import is_changed, next_version
from upstream.domain.members import ruled_member_of
from upstream.domain.naming import check_text

TOKEN_UNUSABLE = "one_time_token_invalid"  # noqa: S105 - the code of a refusal
_TOKEN_BYTES = 32
_CHANGED = Change(path="password", before=None, after="changed")


def invite_member(command: InviteMember, view: View, facts: Facts) -> Decision:
    """Let somebody in who has no password yet."""
    member = ruled_member_of(view, facts, command.member)
    if member.password_hash is not None:
        detail = f"{member.email} has joined already; reset the password if it is lost."
        raise Rejected(Kind.CONFLICT, detail, code="already_joined")
    return _handed_out("invitation", "member.invited", member, command.valid_ms, view, facts)


def reset_password(command: ResetPassword, view: View, facts: Facts) -> Decision:
    """Let somebody choose a new password; the old one and the sign-ins hold until they do."""
    member = ruled_member_of(view, facts, command.member)
    if member.password_hash is None:
        detail = f"{member.email} has not joined yet and has no password; invite them again."
        raise Rejected(Kind.CONFLICT, detail, code="not_joined")
    return _handed_out("reset", "member.password_reset", member, command.valid_ms, view, facts)


def _handed_out(  # noqa: PLR0913, PLR0917 - each of them is needed
    kind: Literal["invitation", "reset"],
    action: str,
    member: Member,
    valid_ms: int,
    view: View,
    facts: Facts,
) -> Decision:
    raw = facts.entropy.token(_TOKEN_BYTES).hex()
    token = OneTimeToken(
        id=facts.new_id(),
        member_id=member.id,
        kind=kind,
        hash=fingerprint(raw),
        created_by=facts.actor.id,
        created_at=facts.now_ms,
        expires_at=facts.now_ms + valid_ms,
    )
    return Decision(
        action=action,
        entity=member,
        save=(token,),
        remove=tuple(view.one_time_tokens(member.id)),
        changes=(Change(path=f"{kind}.expires_at", before=None, after=rfc3339(token.expires_at)),),
        secret=raw,
    )


def choose_password(command: ChoosePassword, view: View, facts: Facts) -> Decision:
    """Use an invitation or a reset."""
    token = view.one_time_token(command.token_hash)
    if token is None or token.member_id != facts.actor.id or token.expires_at <= facts.now_ms:
        detail = "This invitation or reset was used before, has expired, or never was; ask for a new one."
        raise Rejected(Kind.NOT_FOUND, detail, code=TOKEN_UNUSABLE)
    member = _myself(view, facts)
    after = replace(member, password_hash=command.password_hash)
    if command.name is not None:
        after = _named(after, command.name)
    action = "member.joined" if token.kind == "invitation" else "member.password_changed"
    return _with_password(action, member, after, None, view, facts)


def change_password(command: ChangePassword, view: View, facts: Facts) -> Decision:
    """Replace one's own password."""
    member = _myself(view, facts)
    if member.password_hash != command.verified:
        detail = "The password was changed by somebody else meanwhile; sign in again."
        raise Rejected(Kind.CONFLICT, detail, code="password_changed_meanwhile")
    after = replace(member, password_hash=command.password_hash)
    return _with_password("member.password_changed", member, after, command.sign_in, view, facts)


def _with_password(  # noqa: PLR0913, PLR0917 - each of them is needed
    action: str,
    before: Member,
    after: Member,
    keeps_sign_in: str | None,
    view: View,
    facts: Facts,
) -> Decision:
    saved = next_version(after, facts)
    return Decision(
        action=action,
        entity=saved,
        save=(saved,),
        remove=tuple(view.one_time_tokens(saved.id)),
        changes=(*changes_between(before, saved), _CHANGED),
        signs_out=saved.id,
        keeps_sign_in=keeps_sign_in,
    )


def rename_myself(command: RenameMyself, view: View, facts: Facts) -> Decision:
    """Change one's own name."""
    member = _myself(view, facts)
    after = _named(member, command.name)
    saved = next_version(after, facts) if is_changed(member, after) else None
    return Decision(
        action="member.updated",
        entity=saved or member,
        save=(saved,) if saved else (),
        changes=changes_between(member, after),
    )


def _myself(view: View, facts: Facts) -> Member:
    reference = facts.actor.id or ""
    member = view.member(facts.actor.organisation_id, reference)
    if member is None:
        raise not_found("member", reference)
    return member


def _named(member: Member, name: str) -> Member:
    problems = Problems()
    check_text(problems, "name", name)
    problems.check("The name cannot be used as it is.")
    return replace(member, name=name)
