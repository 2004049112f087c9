"""Three-way merging of an edit that started from an older version (`base_version`).

A field that only one side changed takes that side's value, one that both changed to the same value is no conflict, and
one that both changed to different values refuses the whole edit. Fields are merged as wholes. `if_match` stays strict:
whoever gives it wants no merging, so both together are refused.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from relay.protocol.hashing import canonical
from upstream.domain.diff import document
from upstream.domain.entities import Flag, FlagConfig, JsonObject, Segment
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import View

Merged = TypeVar("Merged", Flag, FlagConfig, Segment)

CONFIG_FIELDS = ("enabled", "off", "fallthrough", "rules", "targets")
SEGMENT_FIELDS = ("name", "description", "include", "exclude", "when")
FLAG_FIELDS = (
    "name",
    "description",
    "type",
    "kind",
    "tags",
    "metadata",
    "is_active",
    "client_side_enabled",
    "analytics_enabled",
    "number_format",
    "prerequisites",
    "mutual_exclusion_group",
    "variations",
    "owner",
    "expires_at",
)


class Edit(Protocol):
    """A command that says which version it started from."""

    @property
    def if_match(self) -> int | None:
        """The version that must still be the current one."""

    @property
    def base_version(self) -> int | None:
        """The version from which to merge."""


def check_start(edit: Edit) -> None:
    """Refuse an edit that wants to merge and to be refused at once.

    Raises:
        Rejected: INVALID.
    """
    if edit.if_match is not None and edit.base_version is not None:
        sentence = "Give either base_version, to merge, or the header If-Match, to insist; not both."
        raise Rejected(Kind.INVALID, sentence, {"base_version": [sentence]})


def merged(  # noqa: PLR0913, PLR0917 - each of them is needed
    view: View,
    base_version: int | None,
    current: Merged,
    edited: Merged,
    fields: Sequence[str],
    environment_id: str = "",
) -> Merged:
    """Return `edited`, which is `current` with the edit's fields set, with what others changed since the base kept.

    Raises:
        Rejected: INVALID for a version that is not kept; PRECONDITION where both sides changed a field.
    """
    if base_version is None or base_version == current.version:
        return edited
    entity_id = current.flag_id if isinstance(current, FlagConfig) else current.id
    found = view.version(entity_id, environment_id, base_version)
    if found is None:
        sentence = f"No version {base_version} is kept of this; it is at version {current.version} now."
        raise Rejected(Kind.INVALID, sentence, {"base_version": [sentence]}, code="base_version_unknown")
    base, theirs, ours = document(found), document(current), document(edited)
    kept = [name for name in fields if _same(ours[name], base[name])]
    conflicts: dict[str, JsonObject] = {
        name: {"base": base[name], "theirs": theirs[name], "yours": ours[name]}
        for name in fields
        if name not in kept and not _same(theirs[name], base[name]) and not _same(theirs[name], ours[name])
    }
    if conflicts:
        detail = (
            f"You started from version {base_version}, and until version {current.version} others changed the same"
            f" fields to other values: {', '.join(conflicts)}."
        )
        raise Rejected(
            Kind.PRECONDITION,
            detail,
            code="merge_conflict",
            expected=base_version,
            current=current,
            extra={"conflicts": conflicts},
        )
    return replace(edited, **{name: getattr(current, name) for name in kept})


def _same(left: object, right: object) -> bool:
    return canonical(left) == canonical(right)
