"""What a command changed, path by path, for the audit log and webhooks.

Compares two entities as people know them: bookkeeping (versions, times) and secrets (hashes, environment secrets) are
left out. Objects are compared member by member, lists as a whole.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import orjson

from upstream.domain.entities import Change, Entity, Json

HIDDEN = frozenset(
    {
        "id",
        "organisation_id",
        "project_id",
        "flag_id",
        "environment_id",
        "version",
        "created_at",
        "updated_at",
        "enabled_at",
        "salt",
        "password_hash",
        "hash",
        "h2",
        "revision",
        "content_hash",
        "credentials_hash",
        "stream_secret",
        "secure_mode_secret",
        "last_used_at",
        "created_by",
    },
)


def document(entity: Entity) -> dict[str, Json]:
    """Return what people know of an entity, as plain JSON."""
    shown = {field.name: getattr(entity, field.name) for field in fields(entity) if field.name not in HIDDEN}
    plain: dict[str, Json] = orjson.loads(orjson.dumps(shown))
    return plain


def changes_between(before: Entity | None, after: Entity | None, prefix: str = "") -> tuple[Change, ...]:
    """Return the differences of an entity; None on one side = it was created or deleted.

    `prefix` says where the entity stands in what is shown: `MEMBER` or `MEMBER.KEY`; the key may have dots itself.
    """
    left = document(before) if before is not None else {}
    right = document(after) if after is not None else {}
    found: list[Change] = []
    _compare(tuple(prefix.split(".", 1)) if prefix else (), left, right, found)
    return tuple(found)


def _compare(path: tuple[str, ...], before: Any, after: Any, found: list[Change]) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            _compare((*path, name), before.get(name), after.get(name), found)
    elif orjson.dumps(before, option=orjson.OPT_SORT_KEYS) != orjson.dumps(after, option=orjson.OPT_SORT_KEYS):
        found.append(Change(path=".".join(path), before=before, after=after, pointer=_pointer(path)))


def _pointer(path: Sequence[str]) -> str:
    """Return the RFC 6901 JSON pointer of a path."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def patch_of(changes: Sequence[Change]) -> list[dict[str, Json]]:
    """Return differences as an RFC 6902 JSON patch, from what was before to what is after.

    It applies to the document without its null members, as null and absent mean the same here; in it each key of
    `environments` is an object from the start.
    """
    return [_operation(change) for change in changes]


def _operation(change: Change) -> dict[str, Json]:
    pointer = change.pointer or _pointer(change.path.split("."))
    if change.after is None:
        return {"op": "remove", "path": pointer}
    return {"op": "add" if change.before is None else "replace", "path": pointer, "value": change.after}
