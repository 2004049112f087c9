"""What the authority keeps, as frozen values.

Owns the shape of every stored thing; decides nothing and reads nothing. Times are epoch milliseconds (UTC), ids are
UUID texts, and JSON parts (serves, conditions, metadata) are plain JSON values that are never changed in place.
Every entity that people edit has a `version` that grows by one with each change of that entity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias

from relay.engine import model
from relay.protocol import keys

Json: TypeAlias = Any
JsonObject: TypeAlias = Mapping[str, Any]
FlagType: TypeAlias = model.FlagType
CredentialKind: TypeAlias = keys.Kind
NumberFormat: TypeAlias = Literal["integer", "float"]
FlagTemplate: TypeAlias = Literal["kill_switch", "gradual_rollout", "ab_test"]
TemplateFlavor: TypeAlias = Literal["string", "number", "json"]


class FlagKind(StrEnum):
    """What a flag is for; only people read it."""

    RELEASE = "release"
    EXPERIMENT = "experiment"
    OPS = "ops"
    PERMISSION = "permission"


class Role(StrEnum):
    """What a member may do; `permissions` holds the table."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """A tenant: nothing below it is ever visible to another one."""

    id: str
    name: str
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person. `projects` limits them to project ids (None = all); the e-mail address is unique everywhere."""

    id: str
    organisation_id: str
    email: str
    name: str
    role: Role
    password_hash: str | None
    projects: tuple[str, ...] | None
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """One link of a sign-in's chain of refresh tokens; `family` is the sign-in, `hash` the SHA-256 of the raw token."""

    id: str
    member_id: str
    family: str
    hash: str
    issued_at: int
    expires_at: int
    used_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Owns environments, flags and segments. The key is immutable and unique in the organisation."""

    id: str
    organisation_id: str
    key: str
    name: str
    description: str | None
    mau_limit: int | None
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One place where flags are evaluated; the unit of revisions, streams and keys.

    `revision` and the hashes belong to the published content and are written by the change log alone; `version` counts
    the edits of this entity. With `require_review`, flags change here through approved change requests only.
    """

    id: str
    project_id: str
    key: str
    name: str
    sort: int
    critical: bool
    stream_secret: str
    secure_mode_secret: str
    version: int
    created_at: int
    updated_at: int
    revision: int = 0
    content_hash: str = ""
    credentials_hash: str = ""
    require_review: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One value that a flag can serve; `key` is unique in the flag, `name` is for people."""

    key: str
    value: Json
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prerequisite:
    """Another flag of the project (by key) that must be enabled and, where given, serve one of `variations`."""

    flag: str
    variations: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """What a flag is in every environment. The key is immutable and unique among the project's flags not deleted.

    `number_format` is how a number flag's values are declared; None infers it from them.
    """

    id: str
    project_id: str
    key: str
    name: str
    description: str | None
    type: FlagType
    kind: FlagKind
    tags: tuple[str, ...]
    metadata: JsonObject
    is_active: bool
    client_side_enabled: bool
    analytics_enabled: bool
    prerequisites: tuple[Prerequisite, ...]
    mutual_exclusion_group: str | None
    variations: tuple[Variation, ...]
    owner: str | None
    expires_at: int | None
    archived_at: int | None
    deleted_at: int | None
    version: int
    created_at: int
    updated_at: int
    number_format: NumberFormat | None = None

    def variation(self, key: str) -> Variation | None:
        """Return the variation with that key."""
        return next((variation for variation in self.variations if variation.key == key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a flag in one environment; an inactive one is kept but left out of the snapshot."""

    id: str
    when: JsonObject
    serve: JsonObject
    name: str | None = None
    is_active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Units that get one variation whatever the rules say."""

    variation: str
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagConfig:
    """A flag in one environment. `enabled_at` is the time of the last deliberate change of `enabled`.

    `off` is a variation, or None: while the flag is off, the default in the caller's code holds.
    """

    flag_id: str
    environment_id: str
    enabled: bool
    enabled_at: int
    off: str | None
    fallthrough: JsonObject
    rules: tuple[Rule, ...]
    targets: tuple[Target, ...]
    salt: str
    version: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A named group of units of a project: listed ones, and those whose context fulfils `when`."""

    id: str
    project_id: str
    key: str
    name: str
    description: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    when: JsonObject | None
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key or API token; the raw text is never kept.

    `hash` is its SHA-256 and goes to relays, `h2` the SHA-256 of "edge:" + raw text and is never streamed. A server or
    client key has an `environment_id`; relay keys and tokens may be limited to `projects` and `environments` (ids;
    None means all of the organisation). `replaces` is the id of the key that this one was rotated from.
    """

    id: str
    organisation_id: str
    kind: CredentialKind
    name: str
    hash: str
    h2: str
    hint: str
    scopes: tuple[str, ...]
    projects: tuple[str, ...] | None
    environments: tuple[str, ...] | None
    environment_id: str | None
    origins: tuple[str, ...]
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    created_by: str | None
    version: int
    created_at: int
    updated_at: int
    replaces: str | None = None

    def covers(self, environment: Environment) -> bool:
        """Tell whether this key belongs in the stream of `environment`, which is of the same organisation."""
        if self.environment_id is not None:
            return self.environment_id == environment.id
        if self.projects is not None and environment.project_id not in self.projects:
            return False
        return self.environments is None or environment.id in self.environments

    def is_alive(self, now_ms: int) -> bool:
        """Tell whether this key is neither revoked nor expired at `now_ms`."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now_ms)


class ScheduleStatus(StrEnum):
    """What became of a scheduled change."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Commands (as `command_codec` writes them) to be carried out at `run_at`, for whoever `actor` then is.

    `preview` is the difference as it was scheduled. `actor` is `{type, id, name}`; what they may do is looked up when
    the time comes. `result` says what came of it.
    """

    id: str
    project_id: str
    commands: tuple[JsonObject, ...]
    run_at: int
    preview: JsonObject
    status: ScheduleStatus
    actor: JsonObject
    reason: str | None
    result: JsonObject | None
    version: int
    created_at: int
    updated_at: int


class RequestStatus(StrEnum):
    """Where a change request stands."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    APPLIED = "applied"
    VOIDED = "voided"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequest:
    """Commands that somebody proposes and somebody else reviews, bound to the versions that both have seen.

    `bound` lists `{entity_id, environment_id, version}`; an edit of any of these voids the request. `preview` is the
    difference as it was proposed, `author` is `{type, id, name}`, `reviews` are `{by, verdict, comment, at}`.
    """

    id: str
    project_id: str
    title: str
    description: str | None
    commands: tuple[JsonObject, ...]
    bound: tuple[JsonObject, ...]
    preview: JsonObject
    status: RequestStatus
    author: JsonObject
    reviews: tuple[JsonObject, ...]
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeToken:
    """Lets somebody choose a password: `kind` is `invitation` or `reset`, `hash` the SHA-256 of the raw token.

    A member has one at most. It is never edited: used, replaced or taken back, it is gone.
    """

    version: ClassVar[int] = 1

    id: str
    member_id: str
    kind: Literal["invitation", "reset"]
    hash: str
    created_by: str | None
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference that a command made: a dotted path and the JSON on both sides (None = absent).

    `pointer` is the same place as an RFC 6901 JSON pointer, which also tells keys with dots apart; empty in entries
    that were written before there were pointers.
    """

    path: str
    before: Json
    after: Json
    pointer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what to which thing, when, from where, and the revisions that it made. Never edited, never deleted.

    `via` is the door that it came through, `address` the network address that the request came from.
    """

    id: str
    organisation_id: str
    at: int
    actor_type: str
    actor_id: str | None
    actor_name: str
    action: str
    target_type: str
    target_id: str
    target_key: str | None
    project_id: str | None
    environment_id: str | None
    changes: tuple[Change, ...]
    reason: str | None = None
    edge_at: int | None = None
    request_id: str | None = None
    via: str = "api"
    address: str | None = None
    revisions: Mapping[str, int] = field(default_factory=dict)


Entity: TypeAlias = (
    Organisation
    | Member
    | OneTimeToken
    | Project
    | Environment
    | Flag
    | FlagConfig
    | Segment
    | Credential
    | Schedule
    | ChangeRequest
)
