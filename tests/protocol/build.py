"""Builders of environments and their objects for tests of the change stream."""

from collections.abc import Iterable, Mapping
from typing import Any

from relay.protocol.changes import EnvironmentRef, State
from relay.protocol.hashing import canonical
from relay.protocol.state import build_state

COMMITTED_AT = "2026-11-21T06:30:00.000Z"


def environment_ref(number: int = 1) -> EnvironmentRef:
    return EnvironmentRef(
        id=f"{number:08x}-0000-4000-8000-000000000000",
        key=f"env-{number}",
        name=f"Environment {number}",
        project_id="00000000-0000-4000-8000-0000000000aa",
        project_key="shop",
    )


def flag(version: int = 1, **members: Any) -> bytes:
    return canonical(
        {
            "id": "00000000-0000-4000-8000-0000000000f1",
            "name": "New checkout",
            "type": "boolean",
            "version": version,
            "salt": "salt",
            "enabled": True,
            "variations": [{"key": "on", "value": True}, {"key": "off", "value": False}],
            "off": "off",
            "fallthrough": {"variation": "on"},
            "rules": [],
            "targets": [],
            "prerequisites": [],
            "client_side": True,
            "analytics": True,
            "metadata": {},
            **members,
        }
    )


def segment(version: int = 1, include: Iterable[str] = ()) -> bytes:
    return canonical(
        {"version": version, "name": "Beta", "include": list(include), "exclude": [], "when": None},
    )


def credential(credential_id: str, fingerprint: str = "0" * 64, **members: Any) -> bytes:
    return canonical(
        {
            "id": credential_id,
            "hash": fingerprint,
            "kind": "server",
            "scopes": ["flags:read"],
            "projects": None,
            "expires_at": None,
            "origins": [],
            **members,
        }
    )


def state(
    revision: int = 1,
    *,
    number: int = 1,
    epoch: str = "e1",
    flags: Mapping[str, bytes] | None = None,
    segments: Mapping[str, bytes] | None = None,
    credentials: Mapping[str, bytes] | None = None,
    for_server: bool = False,
) -> State:
    """Return a small environment as a relay holds it."""
    return build_state(
        environment_ref(number),
        epoch,
        revision,
        flags={"checkout": flag()} if flags is None else flags,
        segments={} if segments is None else segments,
        credentials=None if for_server else credentials or {"c1": credential("c1")},
        limits=None if for_server else b'{"evaluations_per_s":100}',
        secrets=None if for_server else b'{"secure_mode_secret":"s2","stream_secret":"s1"}',
    )
