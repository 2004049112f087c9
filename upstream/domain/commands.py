"""Everything that can be asked of the authority, as frozen values.

Names follow the action; `project`, `environment`, `flag` and `segment` take an id or a key. A field left at `UNSET` is
kept as it is; None clears where the field may be null. `if_match` is the version the caller saw: when it is given and
is not the current one, nothing happens and the answer is a version conflict with both sides. `base_version`, instead
of it, is the version that the caller started from: what others changed since is kept, unless it is the same field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from upstream.domain.access_commands import (
    ChangePassword,
    ChoosePassword,
    CreateKey,
    CreateMember,
    CreateOrganisation,
    CreateToken,
    DeleteMember,
    Found,
    InviteMember,
    RenameMyself,
    ResetPassword,
    RevokeKey,
    RevokeToken,
    RotateKey,
    RotateToken,
    UpdateKey,
    UpdateMember,
    UpdateOrganisation,
    UpdateToken,
)
from upstream.domain.entities import (
    FlagKind,
    FlagTemplate,
    FlagType,
    Json,
    JsonObject,
    NumberFormat,
    TemplateFlavor,
)
from upstream.domain.flag_commands import (
    AddRule,
    AddTargets,
    AddVariation,
    CopyFlag,
    DeleteRule,
    DeleteVariation,
    PromoteFlag,
    RampUp,
    RemoveTargets,
    ReorderRules,
    RollOut,
    TagFlag,
    UpdateRule,
    UpdateVariation,
)
from upstream.domain.governance_commands import GovernanceCommand
from upstream.domain.unset import UNSET, Unset


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateProject:
    """Create a project; it gets development, staging and production unless `environments` names others."""

    name: str | None = None
    key: str | None = None
    description: str | None = None
    mau_limit: int | None = None
    environments: Sequence["NewEnvironment"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEnvironment:
    """An environment that is made together with its project."""

    key: str | None = None
    name: str | None = None
    critical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateProject:
    """Change a project's texts or limit."""

    project: str
    name: str | Unset = UNSET
    description: str | Unset | None = UNSET
    mau_limit: int | Unset | None = UNSET
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteProject:
    """Delete a project with all that it owns; its keys die and its streams end."""

    project: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateEnvironment:
    """Add an environment; every flag of the project is there at once, switched off."""

    project: str
    name: str | None = None
    key: str | None = None
    sort: int | None = None
    critical: bool = False
    require_review: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneEnvironment:
    """Add an environment in which every flag is as it is in another one, with the same salts; keys are not copied."""

    project: str
    environment: str
    name: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReorderEnvironments:
    """Put the environments of a project into this order; all of them are named."""

    project: str
    environments: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateEnvironment:
    """Change an environment's name, place, `critical` mark, or whether changes in it need a review."""

    project: str
    environment: str
    name: str | Unset = UNSET
    sort: int | Unset = UNSET
    critical: bool | Unset = UNSET
    require_review: bool | Unset = UNSET
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteEnvironment:
    """Delete an environment: its keys die, its streams end."""

    project: str
    environment: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFields:
    """The parts of a flag in one environment that a request names.

    A serve, here and in rules, is `{"variation": KEY}`, `{"value": JSON}` (the variation is found or made), a split or
    a ramp. `off` is a variation key, or None for no value (the default in the caller's code); `off_value` a raw value
    instead. `rules` are `{id?, name?, when, serve|variation|value, is_active?}`, `targets` are `{variation|value,
    units}`; both replace the whole list.
    """

    enabled: bool | Unset = UNSET
    off: str | Unset | None = UNSET
    off_value: Json | Unset = UNSET
    fallthrough: JsonObject | Unset = UNSET
    rules: Sequence[JsonObject] | Unset = UNSET
    targets: Sequence[JsonObject] | Unset = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFlag:
    """Create a flag in every environment of the project, disabled unless `environments` says otherwise.

    `variations` are `{key?, value, name?}`. `default_value` is the value served by `off` and `fallthrough` where these
    are not given; without it a boolean flag serves `off` when disabled and `on` when enabled. `number_format` is for
    number flags only; None infers it from the values. `config` holds for every environment, `environments` (by id or
    key) on top of it for single ones. A `template` makes type, variations and configs, on top of which the rest holds;
    `flavor` is the type of an ab_test's values.
    """

    project: str
    name: str | None = None
    key: str | None = None
    description: str | None = None
    template: FlagTemplate | None = None
    flavor: TemplateFlavor | None = None
    type: FlagType | None = None
    kind: FlagKind | Unset = UNSET
    tags: Sequence[str] = ()
    metadata: JsonObject = field(default_factory=dict)
    is_active: bool | Unset = UNSET
    client_side_enabled: bool = True
    analytics_enabled: bool = True
    prerequisites: Sequence[str | JsonObject] = ()
    mutual_exclusion_group: str | None = None
    variations: Sequence[JsonObject] | None = None
    default_value: Json | Unset = UNSET
    number_format: NumberFormat | None = None
    owner: str | None = None
    expires_at: int | None = None
    config: ConfigFields = field(default_factory=ConfigFields)
    environments: Mapping[str, ConfigFields] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFlag:
    """Change what a flag is in every environment.

    A new `type` needs `confirm_type_change`: it replaces the variations, and the rules, targets and serves of every
    environment, by the type's defaults, and clears `number_format` unless a new one is given. `variations` replaces the
    whole list.
    """

    project: str
    flag: str
    name: str | Unset = UNSET
    description: str | Unset | None = UNSET
    type: FlagType | Unset = UNSET
    confirm_type_change: bool = False
    kind: FlagKind | Unset = UNSET
    tags: Sequence[str] | Unset = UNSET
    metadata: JsonObject | Unset = UNSET
    is_active: bool | Unset = UNSET
    client_side_enabled: bool | Unset = UNSET
    analytics_enabled: bool | Unset = UNSET
    number_format: NumberFormat | Unset | None = UNSET
    prerequisites: Sequence[str | JsonObject] | Unset = UNSET
    mutual_exclusion_group: str | Unset | None = UNSET
    variations: Sequence[JsonObject] | Unset = UNSET
    owner: str | Unset | None = UNSET
    expires_at: int | Unset | None = UNSET
    if_match: int | None = None
    base_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFlag:
    """Delete a flag; its key is free at once. Flags that others require need `force`."""

    project: str
    flag: str
    force: bool = False
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFlag:
    """Hide a flag and stop serving it. Flags that others require need `force`."""

    project: str
    flag: str
    force: bool = False
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreFlag:
    """Bring an archived flag back as it was."""

    project: str
    flag: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig:
    """Change a flag in one environment; `if_match` is the version of that config."""

    project: str
    flag: str
    environment: str
    fields: ConfigFields
    if_match: int | None = None
    base_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToggleFlag:
    """Switch a flag in one environment on or off, or to the other side when `enabled` is None."""

    project: str
    flag: str
    environment: str
    enabled: bool | None = None
    reason: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillFlag:
    """Switch a flag off in an emergency.

    `edge_at` is the corrected time at a relay where the kill took effect already; a newer deliberate change of
    `enabled` supersedes it, which is recorded.
    """

    project: str
    flag: str
    environment: str
    reason: str | None = None
    edge_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSegment:
    """Create a segment in a project."""

    project: str
    name: str | None = None
    key: str | None = None
    description: str | None = None
    include: Sequence[str | int] = ()
    exclude: Sequence[str | int] = ()
    when: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSegment:
    """Change a segment; lists are replaced as a whole."""

    project: str
    segment: str
    name: str | Unset = UNSET
    description: str | Unset | None = UNSET
    include: Sequence[str | int] | Unset = UNSET
    exclude: Sequence[str | int] | Unset = UNSET
    when: JsonObject | Unset | None = UNSET
    if_match: int | None = None
    base_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSegment:
    """Delete a segment. One that rules or other segments name needs `force`."""

    project: str
    segment: str
    force: bool = False
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProject:
    """Make a project equal to a document that `transfer.project_document` made, or that somebody wrote in its form.

    Without a `project` a new one is made. A member that the document leaves out is kept as it is. Flags and segments
    that are not in the document are deleted only when `prune` is set; environments never are.
    """

    project: str | None
    document: JsonObject
    prune: bool = False
    create_environments: bool = True
    confirm_type_change: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Several commands in one transaction: all of them or none, and one revision for each environment concerned.

    Each is decided in the state that the ones before it leave, and has an audit entry of its own.
    """

    commands: Sequence["Command"]


Command: TypeAlias = (
    Batch
    | ImportProject
    | CreateOrganisation
    | Found
    | UpdateOrganisation
    | CreateMember
    | UpdateMember
    | DeleteMember
    | InviteMember
    | ResetPassword
    | ChoosePassword
    | ChangePassword
    | RenameMyself
    | CreateProject
    | UpdateProject
    | DeleteProject
    | CreateEnvironment
    | CloneEnvironment
    | ReorderEnvironments
    | UpdateEnvironment
    | DeleteEnvironment
    | CreateFlag
    | UpdateFlag
    | DeleteFlag
    | ArchiveFlag
    | RestoreFlag
    | UpdateConfig
    | ToggleFlag
    | KillFlag
    | CreateSegment
    | UpdateSegment
    | DeleteSegment
    | CreateKey
    | UpdateKey
    | RotateKey
    | RevokeKey
    | CreateToken
    | UpdateToken
    | RotateToken
    | RevokeToken
    | PromoteFlag
    | CopyFlag
    | TagFlag
    | AddRule
    | UpdateRule
    | DeleteRule
    | ReorderRules
    | AddTargets
    | RemoveTargets
    | RollOut
    | RampUp
    | AddVariation
    | UpdateVariation
    | DeleteVariation
    | GovernanceCommand
)


def given(command: Any, *names: str) -> dict[str, Any]:
    """Return those of the named fields that the command sets."""
    values = {name: getattr(command, name) for name in names}
    return {name: value for name, value in values.items() if value is not UNSET}
