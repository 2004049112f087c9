"""What a decision is given beside the command, and what it gives back.

`Facts` carries time, randomness and the actor, so that deciding reads no clock and no random source itself; `View` is
the read-only lookup of what is stored; a `Decision` says what to store, nothing more. The storage carries it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from upstream.domain.entities import (
    Change,
    ChangeRequest,
    Credential,
    Entity,
    Environment,
    Flag,
    FlagConfig,
    JsonObject,
    Member,
    OneTimeToken,
    Organisation,
    Project,
    Schedule,
    Segment,
)
from upstream.domain.permissions import Actor


class Entropy(Protocol):
    """A source of randomness."""

    def token(self, size: int) -> bytes:
        """Return `size` random bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The circumstances of one command.

    `is_reviewed` says that somebody else has approved it (`review`), `note` where it comes from, for the audit.
    """

    now_ms: int
    entropy: Entropy
    actor: Actor
    is_reviewed: bool = False
    note: str | None = None

    def new_id(self) -> str:
        """Return a fresh UUID4 text."""
        raw = bytearray(self.entropy.token(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        digits = raw.hex()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that the caller should know although the command was carried out."""

    code: str
    detail: str


class View(Protocol):
    """Read-only lookups in the state that the command finds. Deleted things are not seen; archived flags are.

    A `reference` is an id or a key.
    """

    def organisation(self, organisation_id: str) -> Organisation | None:
        """Return an organisation."""

    def first_organisation(self) -> Organisation | None:
        """Return the oldest organisation."""

    def project(self, organisation_id: str, reference: str) -> Project | None:
        """Return a project of the organisation."""

    def projects(self, organisation_id: str) -> Sequence[Project]:
        """Return all projects of the organisation."""

    def environments(self, project_id: str) -> Sequence[Environment]:
        """Return the project's environments in their order."""

    def flag(self, project_id: str, reference: str) -> Flag | None:
        """Return a flag of the project."""

    def flags(self, project_id: str) -> Sequence[Flag]:
        """Return all flags of the project."""

    def requiring(self, project_id: str) -> Sequence[Flag]:
        """Return those of the project's flags that have prerequisites."""

    def config(self, flag_id: str, environment_id: str) -> FlagConfig | None:
        """Return a flag's config in one environment."""

    def configs(self, flag_id: str) -> Mapping[str, FlagConfig]:
        """Return a flag's configs by environment id."""

    def project_configs(self, project_id: str) -> Sequence[FlagConfig]:
        """Return all configs of the project's flags."""

    def segment(self, project_id: str, reference: str) -> Segment | None:
        """Return a segment of the project."""

    def segments(self, project_id: str) -> Sequence[Segment]:
        """Return all segments of the project."""

    def credential(self, organisation_id: str, credential_id: str) -> Credential | None:
        """Return a key or token of the organisation."""

    def member(self, organisation_id: str, reference: str) -> Member | None:
        """Return a member of the organisation, by id or e-mail address."""

    def member_by_email(self, email: str) -> Member | None:
        """Return whoever uses the address, in any organisation."""

    def version(self, entity_id: str, environment_id: str, version: int) -> Any:
        """Return a version that a flag, config or segment had, or None; `environment_id` is empty but for configs."""

    def version_now(self, kind: str, entity_id: str, environment_id: str) -> int | None:
        """Return at which version a `flag`, `config` or `segment` is now, by its id; None where it is gone."""

    def config_at(self, flag_id: str, environment_id: str, revision: int) -> FlagConfig | None:
        """Return the config that was in force at a revision of its environment; None if there was none yet."""

    def schedule(self, project_id: str, schedule_id: str) -> Schedule | None:
        """Return a scheduled change of the project."""

    def change_request(self, project_id: str, request_id: str) -> ChangeRequest | None:
        """Return a change request of the project."""

    def waiting_schedules(self, project_id: str) -> int:
        """Return how many of the project's scheduled changes are still to come."""

    def waiting_requests(self, project_id: str) -> Sequence[ChangeRequest]:
        """Return the project's change requests that are open or approved."""

    def one_time_token(self, token_hash: str) -> OneTimeToken | None:
        """Return the invitation or reset with that hash, expired or not."""

    def one_time_tokens(self, member_id: str) -> Sequence[OneTimeToken]:
        """Return the member's invitation or reset."""

    def has_members(self) -> bool:
        """Tell whether there is any member in any organisation; nobody becomes the first one meanwhile."""

    def owners(self, organisation_id: str) -> Sequence[Member]:
        """Return the owners of the organisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a command comes to.

    `entity` is what the caller asked about, `target` what the audit names (the entity itself unless given). `save` is
    to be inserted (version 1) or replaced (its version less one), `remove` to be deleted with all that hangs on it.
    With nothing saved and nothing removed the command changed nothing; it is audited all the same when `is_event` (a
    kill). `signs_out` is the id of a member whose sign-ins, but `keeps_sign_in`, end with this transaction. `secret` is
    the raw text of a new key or one-time token. `report` is what the caller is told beside the changes. A command that
    comes to many decisions has them in `parts`, which are carried out in their order before it, each with an audit
    entry of its own. `rests_on` is what beside these was looked at and copied from: had it been another, so were this.
    """

    action: str
    entity: Entity
    target: Entity | None = None
    save: tuple[Entity, ...] = ()
    remove: tuple[Entity, ...] = ()
    changes: tuple[Change, ...] = ()
    warnings: tuple[Notice, ...] = ()
    project_id: str | None = None
    environment_id: str | None = None
    reason: str | None = None
    edge_at: int | None = None
    secret: str | None = None
    is_event: bool = False
    signs_out: str | None = None
    keeps_sign_in: str | None = None
    report: JsonObject | None = None
    parts: "tuple[Decision, ...]" = ()
    rests_on: tuple[Entity, ...] = ()
