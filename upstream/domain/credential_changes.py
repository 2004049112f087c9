"""Decides what becomes of keys and tokens: edited, rotated, revoked.

A successor may do what its predecessor may, so whoever makes one, or lengthens a key's life, must be allowed all of
that themselves and must not outlive their own token by it. Shortening and ending needs no more than managing keys.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from relay.protocol.edge import edge_key
from relay.protocol.keys import ENTROPY_BYTES, fingerprint, hint, mint
from upstream.domain.access_commands import (
    RevokeKey,
    RevokeToken,
    RotateKey,
    RotateToken,
    UpdateKey,
    UpdateToken,
)
from upstream.domain.commands import (
    given,
)
from upstream.domain.credentials import checked_end, checked_origins, only_project, word_for
from upstream.domain.diff import changes_between
from upstream.domain.entities import Credential
from upstream.domain.errors import Kind, Problems, Rejected, not_found
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import check_version, is_changed, next_version
from upstream.domain.naming import check_text
from upstream.domain.permissions import BY_SCOPE, actions, contains
from upstream.domain.unset import (
    UNSET,
    Unset,
)


def update_key(command: UpdateKey, view: View, facts: Facts) -> Decision:
    """Change a key's name, origins or end."""
    return _updated(command, "key", command.origins, view, facts)


def update_token(command: UpdateToken, view: View, facts: Facts) -> Decision:
    """Change a token's name or end."""
    return _updated(command, "token", UNSET, view, facts)


def _updated(
    command: UpdateKey | UpdateToken,
    word: str,
    origins: Sequence[str] | Unset,
    view: View,
    facts: Facts,
) -> Decision:
    credential = _alive(command.credential, word, view, facts)
    check_version(credential, command.if_match)
    problems = Problems()
    after = replace(credential, **given(command, "name"))
    check_text(problems, "name", after.name)
    if origins is not UNSET:
        after = replace(after, origins=checked_origins(problems, credential.kind, origins))
    if command.expires_at is not UNSET and command.expires_at != credential.expires_at:
        after = replace(after, expires_at=_new_end(problems, credential, command.expires_at, facts))
    problems.check(f"The {word} cannot be used as it is.")
    saved = next_version(after, facts) if is_changed(credential, after) else None
    return _decision("updated", saved or credential, credential, saved)


def _new_end(problems: Problems, credential: Credential, expires_at: int | None, facts: Facts) -> int | None:
    before = credential.expires_at
    is_sooner = expires_at is not None and (before is None or expires_at < before)
    if is_sooner:
        return checked_end(problems, expires_at, replace(facts, actor=replace(facts.actor, expires_at=None)))
    _check_breadth(credential, facts)
    return checked_end(problems, expires_at, facts)


def rotate_key(command: RotateKey, view: View, facts: Facts) -> Decision:
    """Make a key's successor."""
    return _rotated(command, "key", view, facts)


def rotate_token(command: RotateToken, view: View, facts: Facts) -> Decision:
    """Make a token's successor."""
    return _rotated(command, "token", view, facts)


def _rotated(command: RotateKey | RotateToken, word: str, view: View, facts: Facts) -> Decision:
    old = _alive(command.credential, word, view, facts)
    _check_breadth(old, facts)
    raw = mint(old.kind, facts.entropy.token(ENTROPY_BYTES))
    successor = replace(
        old,
        id=facts.new_id(),
        hash=fingerprint(raw),
        h2=edge_key(raw),
        hint=hint(raw),
        expires_at=_same_life(old, facts),
        last_used_at=None,
        created_by=facts.actor.id,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
        replaces=old.id,
    )
    leaving = next_version(_ending(old, command.overlap_ms, facts), facts)
    ends = tuple(replace(change, path=f"replaced.{change.path}") for change in changes_between(old, leaving))
    return replace(
        _decision("rotated", successor, None, successor),
        save=(successor, leaving),
        changes=changes_between(None, successor) + ends,
        secret=raw,
    )


def _same_life(old: Credential, facts: Facts) -> int | None:
    """Return the end of a successor, which gets as long a life as the key before had, within that of the actor."""
    own_end = facts.actor.expires_at
    if old.expires_at is None:
        return own_end
    end = facts.now_ms + old.expires_at - old.created_at
    return end if own_end is None else min(end, own_end)


def _ending(old: Credential, overlap_ms: int, facts: Facts) -> Credential:
    if overlap_ms <= 0:
        return replace(old, revoked_at=facts.now_ms)
    end = facts.now_ms + overlap_ms
    return replace(old, expires_at=end if old.expires_at is None else min(end, old.expires_at))


def revoke_key(command: RevokeKey, view: View, facts: Facts) -> Decision:
    """End a server, client or relay key."""
    return _revoked(command.credential, "key", view, facts)


def revoke_token(command: RevokeToken, view: View, facts: Facts) -> Decision:
    """End a token."""
    return _revoked(command.credential, "token", view, facts)


def _revoked(credential_id: str, word: str, view: View, facts: Facts) -> Decision:
    credential = _reached(credential_id, word, view, facts)
    is_over = credential.revoked_at is not None
    saved = None if is_over else next_version(replace(credential, revoked_at=facts.now_ms), facts)
    return _decision("revoked", saved or credential, credential, saved)


def _decision(
    verb: Literal["updated", "rotated", "revoked"],
    entity: Credential,
    before: Credential | None,
    saved: Credential | None,
) -> Decision:
    return Decision(
        action=f"{word_for(entity)}.{verb}",
        entity=entity,
        save=(saved,) if saved else (),
        changes=changes_between(before, entity),
        project_id=only_project(entity),
        environment_id=entity.environment_id,
    )


def _reached(credential_id: str, word: str, view: View, facts: Facts) -> Credential:
    credential = view.credential(facts.actor.organisation_id, credential_id)
    if credential is None or word_for(credential) != word:
        raise not_found(word, credential_id)
    if not contains(facts.actor, credential.projects):
        raise Rejected(Kind.FORBIDDEN, f"This {word} reaches beyond the projects you may use.", code="wrong_project")
    return credential


def _alive(credential_id: str, word: str, view: View, facts: Facts) -> Credential:
    credential = _reached(credential_id, word, view, facts)
    if not credential.is_alive(facts.now_ms):
        raise Rejected(Kind.CONFLICT, f"This {word} has ended; make a new one.", code=f"{word}_ended")
    return credential


def _check_breadth(credential: Credential, facts: Facts) -> None:
    beyond = [scope for scope in credential.scopes if not BY_SCOPE[scope] <= actions(facts.actor)]
    if beyond:
        detail = f"It may do what you may not ({', '.join(beyond)}), so you can only end it."
        raise Rejected(Kind.FORBIDDEN, detail, code="permission_missing", extra={"needed": beyond})
