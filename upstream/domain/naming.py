"""Keys: which ones are allowed, and how one is made from a name.

A key is what people and programs write in paths and code, so it never looks like an id and is never a word that a
route uses; every path part can then take an id or a key without doubt.
"""

import re
import unicodedata
from collections.abc import Container

from upstream.domain.errors import Kind, Problems, Rejected

KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
VARIATION_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

ROUTE_WORDS = frozenset(
    {
        "analytics",
        "archive",
        "audit",
        "audit-log",
        "auth",
        "bootstrap",
        "changes",
        "client",
        "copy",
        "deliveries",
        "docs",
        "environments",
        "evaluate",
        "events",
        "experiments",
        "explain",
        "export",
        "flags",
        "health",
        "history",
        "import",
        "ingest",
        "keys",
        "kill",
        "livez",
        "login",
        "logout",
        "me",
        "members",
        "metrics",
        "new",
        "openfeature",
        "openapi.json",
        "projects",
        "promote",
        "readyz",
        "relays",
        "reorder",
        "restore",
        "results",
        "rules",
        "schedules",
        "segments",
        "startupz",
        "status",
        "stream",
        "telemetry",
        "templates",
        "toggle",
        "tokens",
        "track",
        "ui",
        "users",
        "webhooks",
    },
)

NAME_CHARACTERS = 200
TEXT_CHARACTERS = 10_000
_STEM_CHARACTERS = 110


def is_id(reference: str) -> bool:
    """Tell whether a path part names a thing by id rather than by key."""
    return UUID.fullmatch(reference) is not None


def is_allowed(key: str) -> bool:
    """Tell whether a key can be given to a thing at all."""
    return KEY.fullmatch(key) is not None and not is_id(key) and key not in ROUTE_WORDS


def check_key(problems: Problems, path: str, key: str) -> None:
    """Note what is wrong with a key that somebody chose."""
    if KEY.fullmatch(key) is None:
        problems.add(
            path,
            "Use 1 to 128 characters: lowercase letters, digits, '.', '_' and '-', starting with a letter or digit.",
        )
    elif is_id(key):
        problems.add(path, "A key must not look like a UUID, which would be taken for an id.")
    elif key in ROUTE_WORDS:
        problems.add(path, f"{key!r} is a word of the API's own paths; choose another key.")


def key_from(name: str, taken: Container[str], fallback: str) -> str:
    """Return an allowed key made from a name that is not in `taken`: `New Dashboard` → `new_dashboard`, `…_2`."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "_", ascii_name).strip("_")[:_STEM_CHARACTERS].rstrip("_") or fallback
    candidate, number = stem, 1
    while candidate in taken or not is_allowed(candidate):
        number += 1
        candidate = f"{stem}_{number}"
    return candidate


def choose_key(  # noqa: PLR0913 - each of them is needed
    problems: Problems,
    thing: str,
    *,
    key: str | None,
    name: str | None,
    taken: Container[str],
    path: str = "key",
) -> str:
    """Return the key of a new thing: the chosen one if it is allowed and free, else one made from the name.

    Raises:
        Rejected: CONFLICT when the chosen key is taken.
    """
    if key is None:
        return key_from(name or "", taken, fallback=thing.replace(" ", "_"))
    check_key(problems, path, key)
    if key in taken:
        raise Rejected(
            Kind.CONFLICT,
            f"There is a {thing} {key!r} already.",
            {path: [f"{key!r} is taken; choose another key, or leave it out to get one made from the name."]},
            code="key_taken",
        )
    return key


def check_text(problems: Problems, path: str, text: str | None, *, limit: int = NAME_CHARACTERS) -> None:
    """Note what is wrong with a text for people."""
    if text is None:
        return
    if len(text) > limit:
        problems.add(path, f"At most {limit} characters are kept; this has {len(text)}.")
    if "\x00" in text:
        problems.add(path, "A text cannot contain the NUL character.")


def check_name(problems: Problems, path: str, name: str | None) -> None:
    """Note what is wrong with a name, which must say something."""
    check_text(problems, path, name)
    if name is not None and not name.strip():
        problems.add(path, "A name cannot be empty.")
