"""What each operation answers when it succeeds: one row per operation, the name of a schema (None = no body).

This is the one place to describe a new route in: add a row here, and the schema with an example in `things`,
`flag_parts`, `people` or `reports` if there is none that fits. PUT is described by its PATCH. The tests hold every
answer against its row.
"""

from collections.abc import Mapping
from typing import Final

from upstream.api.described.flag_parts import FLAG_PARTS
from upstream.api.described.parts import Described
from upstream.api.described.people import PEOPLE
from upstream.api.described.reports import REPORTS
from upstream.api.described.things import THINGS

SCHEMAS: Final[Mapping[str, Described]] = {**THINGS, **FLAG_PARTS, **PEOPLE, **REPORTS}

ANSWERS: Final[Mapping[str, str | None]] = {
    "POST /auth/login": "Session",
    "POST /auth/refresh": "Session",
    "POST /auth/logout": None,
    "POST /auth/setup": "Session",
    "POST /auth/accept": "Session",
    "POST /auth/password": None,
    "GET /auth/me": "Caller",
    "PATCH /auth/me": "Member",
    "GET /organisation": "Organisation",
    "PATCH /organisation": "Organisation",
    "GET /projects": "ProjectPage",
    "POST /projects": "Project",
    "GET /projects/{p}": "Project",
    "PATCH /projects/{p}": "Project",
    "DELETE /projects/{p}": None,
    "POST /projects:import": "Imported",
    "GET /projects/{p}/export": "ProjectDocument",
    "POST /projects/{p}/import": "Imported",
    "GET /projects/{p}/environments": "EnvironmentPage",
    "POST /projects/{p}/environments": "Environment",
    "GET /projects/{p}/environments/{e}": "Environment",
    "PATCH /projects/{p}/environments/{e}": "Environment",
    "DELETE /projects/{p}/environments/{e}": None,
    "POST /projects/{p}/environments/{e}:clone": "Environment",
    "POST /projects/{p}/environments:reorder": "EnvironmentPage",
    "GET /flag-templates": "TemplateList",
    "GET /projects/{p}/groups": "GroupList",
    "GET /projects/{p}/tags": "TagList",
    "GET /projects/{p}/flags": "FlagPage",
    "POST /projects/{p}/flags": "Flag",
    "GET /projects/{p}/flags/{f}": "Flag",
    "PATCH /projects/{p}/flags/{f}": "Flag",
    "DELETE /projects/{p}/flags/{f}": None,
    "POST /projects/{p}/flags/{f}:archive": "Flag",
    "POST /projects/{p}/flags/{f}:restore": "Flag",
    "GET /projects/{p}/stale-flags": "StaleFlagPage",
    "GET /projects/{p}/flags/{f}/environments": "FlagConfigPage",
    "GET /projects/{p}/flags/{f}/environments/{e}": "FlagConfig",
    "PATCH /projects/{p}/flags/{f}/environments/{e}": "FlagConfig",
    "POST /projects/{p}/flags/{f}:toggle": "FlagConfig",
    "POST /projects/{p}/flags/{f}:kill": "FlagConfig",
    "POST /projects/{p}/flags/{f}:promote": "FlagConfig",
    "POST /projects/{p}/flags/{f}:copy": "Flag",
    "GET /projects/{p}/flags/{f}/dependencies": "Dependencies",
    "POST /projects/{p}/flags:toggle": "ToggledFlags",
    "POST /projects/{p}/flags:archive": "ChangedFlags",
    "POST /projects/{p}/flags:tag": "ChangedFlags",
    "GET /projects/{p}/flags/{f}/environments/{e}/rules": "RuleList",
    "POST /projects/{p}/flags/{f}/environments/{e}/rules": "Rule",
    "GET /projects/{p}/flags/{f}/environments/{e}/rules/{id}": "Rule",
    "PATCH /projects/{p}/flags/{f}/environments/{e}/rules/{id}": "Rule",
    "DELETE /projects/{p}/flags/{f}/environments/{e}/rules/{id}": None,
    "POST /projects/{p}/flags/{f}/environments/{e}/rules:reorder": "FlagConfig",
    "POST /projects/{p}/flags/{f}/environments/{e}/targets:add": "FlagConfig",
    "POST /projects/{p}/flags/{f}/environments/{e}/targets:remove": "FlagConfig",
    "POST /projects/{p}/flags/{f}/environments/{e}:rollout": "FlagConfig",
    "POST /projects/{p}/flags/{f}/environments/{e}:ramp": "FlagConfig",
    "GET /projects/{p}/flags/{f}/variations": "VariationList",
    "POST /projects/{p}/flags/{f}/variations": "ChangedVariation",
    "PATCH /projects/{p}/flags/{f}/variations/{key}": "ChangedVariation",
    "DELETE /projects/{p}/flags/{f}/variations/{key}": None,
    "GET /projects/{p}/segments": "SegmentPage",
    "POST /projects/{p}/segments": "Segment",
    "GET /projects/{p}/segments/{s}": "Segment",
    "PATCH /projects/{p}/segments/{s}": "Segment",
    "DELETE /projects/{p}/segments/{s}": None,
    "GET /keys": "CredentialPage",
    "POST /keys": "NewKey",
    "GET /keys/{id}": "Credential",
    "PATCH /keys/{id}": "Credential",
    "POST /keys/{id}:rotate": "NewKey",
    "DELETE /keys/{id}": None,
    "GET /tokens": "CredentialPage",
    "POST /tokens": "NewToken",
    "GET /tokens/{id}": "Credential",
    "PATCH /tokens/{id}": "Credential",
    "POST /tokens/{id}:rotate": "NewToken",
    "DELETE /tokens/{id}": None,
    "GET /members": "MemberPage",
    "POST /members": "NewMember",
    "POST /members/{id}:invite": "OneTimeToken",
    "POST /members/{id}:reset-password": "OneTimeToken",
    "GET /members/{id}": "Member",
    "PATCH /members/{id}": "Member",
    "DELETE /members/{id}": None,
    "GET /audit": "AuditPage",
    "GET /audit:verify": "AuditReport",
    "GET /projects/{p}/audit": "AuditPage",
    "GET /projects/{p}/metrics": "CountPage",
    "GET /projects/{p}/events": "EventPage",
    "POST /explain": "Explanation",
    "POST /ingest": "Receipt",
    "POST /changes": "TakenChange",
}

# What a query parameter makes of any operation that takes it: a status, and the schema that is answered then.
ANSWERS_BY_PARAMETER: Final[Mapping[str, tuple[str, str]]] = {"dry_run": ("200", "DryRun")}

TAGS: Final[Mapping[str, str]] = {
    "auth": "Signing in, joining by invitation, one's own name and password, and who one is.",
    "organisation": "The tenant that the caller belongs to.",
    "projects": "What owns environments, flags and segments.",
    "environments": "Where flags are evaluated; the unit of revisions, streams and keys.",
    "flags": "What flags are in every environment, and what each does in one.",
    "segments": "Named groups of units, for rules to refer to.",
    "keys": "Keys of applications (server, client) and relays.",
    "tokens": "API tokens, for programs that manage.",
    "members": "The people of the organisation.",
    "audit": "Who did what.",
    "metrics": "What was counted and tracked.",
    "transfer": "A whole project as one document.",
    "explain": "Why a flag serves what it serves.",
    "relays": "What relays hand over; takes relay keys.",
}

# What parameters mean, where their routes do not say it themselves.
PARAMETERS: Final[Mapping[str, str]] = {
    "id": "Id, as it was answered; a member's e-mail address will do, too.",
    "flag": "Id or key of a flag.",
    "environment": "Id or key of an environment.",
    "name": "Name of the event.",
    "unit": "Whose events: a user's id, or whatever evaluations are made for.",
    "offset": "Entries to pass over.",
}
