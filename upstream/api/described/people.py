"""Schemas and examples of who may do what, and of what they did: keys, tokens, members, sign-ins, the audit log."""

from collections.abc import Mapping
from typing import Any, Final

from upstream.api.described.parts import (
    ID,
    NUMBER,
    OBJECT,
    SWITCH,
    TEXT,
    TIME,
    Described,
    Schema,
    list_of,
    map_of,
    noted,
    nullable,
    one_of,
    page_of,
    record,
    ref,
)
from upstream.api.described.things import AT, CHECKOUT, EDITED, EDITED_EXAMPLE, PRODUCTION, SHOP, WARNINGS

_CREDENTIAL: Final[Mapping[str, Schema]] = {
    "id": ID,
    "kind": one_of("server", "client", "relay", "token"),
    "name": TEXT,
    "hint": noted(TEXT, "How the key begins and ends, to be recognised by."),
    "scopes": list_of(TEXT),
    "projects": nullable(list_of(ID)),
    "environments": nullable(list_of(ID)),
    "environment_id": nullable(ID),
    "origins": list_of(TEXT),
    "expires_at": nullable(TIME),
    "last_used_at": nullable(TIME),
    "revoked_at": nullable(TIME),
    "created_by": nullable(TEXT),
    "replaces": nullable(ID),
    **EDITED,
}
_KEY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "9a0c2d57-7a51-4d4e-9a4b-3a1d8a4c5e21",
    "kind": "server",
    "name": "backend",
    "hint": "hal_server_4f…9x",
    "scopes": [],
    "projects": None,
    "environments": None,
    "environment_id": PRODUCTION,
    "origins": [],
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
    "created_by": None,
    "replaces": None,
    **EDITED_EXAMPLE,
}
_TOKEN_EXAMPLE: Final[dict[str, Any]] = {
    **_KEY_EXAMPLE,
    "kind": "token",
    "name": "deploy",
    "hint": "hal_token_7c…2k",
    "scopes": ["flags:write"],
    "environment_id": None,
}
_MEMBER: Final[Mapping[str, Schema]] = {
    "id": ID,
    "email": TEXT,
    "name": TEXT,
    "role": one_of("owner", "admin", "developer", "viewer"),
    "projects": noted(nullable(list_of(ID)), "null = all of the organisation."),
    "status": noted(one_of("invited", "active"), "Invited = without a password yet."),
    **EDITED,
}
_MEMBER_EXAMPLE: Final[dict[str, Any]] = {
    "id": "c0a7d8f0-2b6c-4c1e-8f54-8b8f6c3e9d10", "email": "ada@example.com", "name": "Ada", "role": "developer",
    "projects": None, "status": "active", **EDITED_EXAMPLE,
}  # fmt: skip
_AUDIT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "f7b1a2c3-0d4e-4f5a-8b6c-7d8e9f0a1b2c",
    "at": AT,
    "actor": {"type": "member", "id": _MEMBER_EXAMPLE["id"], "name": "Ada"},
    "action": "flag.toggled",
    "target": {"type": "flag", "id": CHECKOUT, "key": "new-checkout"},
    "project_id": SHOP,
    "environment_id": PRODUCTION,
    "changes": [{"path": "enabled", "before": False, "after": True}],
    "patch": [{"op": "replace", "path": "/enabled", "value": True}],
    "reason": None,
    "edge_at": None,
    "request_id": "671d23d4-8",
    "via": "api",
    "address": "192.0.2.1",
    "revisions": {PRODUCTION: 42},
}

_SESSION: Final[Mapping[str, Schema]] = {
    "access_token": noted(TEXT, "Goes into Authorization: Bearer."),
    "refresh_token": noted(TEXT, "Gives new tokens once."),
    "token_type": {"const": "Bearer"},
    "expires_in": noted(NUMBER, "Seconds for which the access token is valid."),
}

PEOPLE: Final[Mapping[str, Described]] = {
    "Credential": Described(record(_CREDENTIAL, WARNINGS, "A key or token, without its text."), _KEY_EXAMPLE),
    "CredentialPage": page_of("Credential", _KEY_EXAMPLE),
    "NewKey": Described(
        record({**_CREDENTIAL, "key": noted(TEXT, "Shown this once.")}, WARNINGS),
        {**_KEY_EXAMPLE, "key": "hal_server_0123456789abcdefghijklmnopqrstuvABCDEF"},
    ),
    "NewToken": Described(
        record({**_CREDENTIAL, "token": noted(TEXT, "Shown this once.")}, WARNINGS),
        {**_TOKEN_EXAMPLE, "token": "hal_token_0123456789abcdefghijklmnopqrstuvABCDEF"},
    ),
    "Member": Described(record(_MEMBER, WARNINGS), _MEMBER_EXAMPLE),
    "NewMember": Described(
        record(
            {**_MEMBER, "invitation": noted(nullable(ref("OneTimeToken")), "For a member without a password.")},
            WARNINGS,
        ),
        {
            **_MEMBER_EXAMPLE,
            "status": "invited",
            "invitation": {"token": "hal_invite_…", "expires_at": "2026-11-28T06:30:00.000Z"},
        },
    ),
    "OneTimeToken": Described(
        record({"token": noted(TEXT, "Shown this once; for `/auth/accept`."), "expires_at": TIME}),
        {"token": "hal_invite_…", "expires_at": "2026-11-28T06:30:00.000Z"},
    ),
    "Organisation": Described(
        record({"id": ID, "name": TEXT, **EDITED}, WARNINGS),
        {"id": "1d7f4c52-3b0a-4a39-8c55-2f0f0e7d6a44", "name": "Acme", **EDITED_EXAMPLE},
    ),
    "MemberPage": page_of("Member", _MEMBER_EXAMPLE),
    "AuditEntry": Described(
        record(
            {
                "id": ID,
                "at": TIME,
                "actor": record({"type": TEXT, "id": nullable(TEXT), "name": TEXT}),
                "action": TEXT,
                "target": record({"type": TEXT, "id": TEXT, "key": nullable(TEXT)}),
                "project_id": nullable(ID),
                "environment_id": nullable(ID),
                "changes": list_of(ref("Change")),
                "patch": noted(list_of(OBJECT), "The changes as an RFC 6902 JSON patch."),
                "reason": nullable(TEXT),
                "edge_at": noted(nullable(TIME), "When it was done at a relay."),
                "request_id": nullable(TEXT),
                "via": TEXT,
                "address": noted(nullable(TEXT), "Where the request came from."),
                "revisions": noted(map_of(NUMBER), "The revisions that it made, by environment id."),
            }
        ),
        _AUDIT_EXAMPLE,
    ),
    "AuditPage": page_of("AuditEntry", _AUDIT_EXAMPLE),
    "AuditReport": Described(
        record(
            {
                "is_intact": SWITCH,
                "sealed": NUMBER,
                "unsealed": noted(NUMBER, "Entries that are so new that they have no seal yet."),
                "mark": noted(nullable(TEXT), "To be kept, and sent as `expect` of a later verification."),
                "faults": list_of(
                    record({"kind": TEXT, "number": nullable(NUMBER), "audit_id": nullable(TEXT), "detail": TEXT})
                ),
                "all_faults_named": SWITCH,
            }
        ),
        {
            "is_intact": True,
            "sealed": 1_204,
            "unsealed": 2,
            "mark": f"1204:{'7c' * 32}",
            "faults": [],
            "all_faults_named": True,
        },
    ),
    "Session": Described(
        record(_SESSION),
        {"access_token": "eyJhbGciOi…", "refresh_token": "hal_refresh_…", "token_type": "Bearer", "expires_in": 3_600},
    ),
    "Caller": Described(
        record(
            {
                "type": one_of("member", "key", "token", "system"),
                "id": nullable(TEXT),
                "name": TEXT,
                "organisation": nullable(record({"id": ID, "name": TEXT})),
                "role": nullable(one_of("owner", "admin", "developer", "viewer")),
                "scopes": list_of(TEXT),
                "projects": noted(nullable(list_of(ID)), "null = all of the organisation."),
                "permissions": list_of(TEXT),
            }
        ),
        {
            "type": "token",
            "id": _TOKEN_EXAMPLE["id"],
            "name": "deploy",
            "organisation": {"id": "1d7f4c52-3b0a-4a39-8c55-2f0f0e7d6a44", "name": "Acme"},
            "role": None,
            "scopes": ["flags:write"],
            "projects": None,
            "permissions": ["flags:read", "flags:write"],
        },
    ),
}
