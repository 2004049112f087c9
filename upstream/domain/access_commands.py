"""What can be asked of the authority about organisations, people, keys and tokens, as frozen values.

Part of `commands.Command`, whose page says how fields, `UNSET` and `if_match` are meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from upstream.domain.entities import CredentialKind, Role
from upstream.domain.unset import UNSET, Unset


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOrganisation:
    """Found a tenant; done by the installation itself, never by a member."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Make the first organisation and its owner; only while the authority has no member at all."""

    organisation: str
    email: str
    name: str
    password_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOrganisation:
    """Rename the organisation."""

    name: str | Unset = UNSET
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateMember:
    """Add a person. Whoever builds the command has hashed the password (argon2id)."""

    email: str
    name: str = ""
    role: Role = Role.VIEWER
    password_hash: str | None = None
    projects: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMember:
    """Change a person's name, role, password or projects."""

    member: str
    name: str | Unset = UNSET
    role: Role | Unset = UNSET
    password_hash: str | Unset | None = UNSET
    projects: Sequence[str] | Unset | None = UNSET
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteMember:
    """Remove a person and end their sign-ins."""

    member: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteMember:
    """Let a person who has no password choose one, by a token that is good for `valid_ms`; an older one dies."""

    member: str
    valid_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPassword:
    """Let a person choose a new password, by a token that is good for `valid_ms`; until then nothing ends."""

    member: str
    valid_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoosePassword:
    """Use the invitation or reset with that hash, which its holder proves; ends all sign-ins of the member."""

    token_hash: str
    password_hash: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """Replace one's own password, of which `verified` is the stored hash; ends all sign-ins but `sign_in`."""

    verified: str
    password_hash: str
    sign_in: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameMyself:
    """Change one's own name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateKey:
    """Create a server or client key of one environment, or a relay key over `projects` and `environments`.

    Projects are ids or keys; environments of a relay key are ids, or `project/environment` keys. None = all.
    """

    kind: CredentialKind
    name: str = ""
    project: str | None = None
    environment: str | None = None
    projects: Sequence[str] | None = None
    environments: Sequence[str] | None = None
    origins: Sequence[str] = ()
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateKey:
    """Change a key's name, origins (client keys) or end."""

    credential: str
    name: str | Unset = UNSET
    origins: Sequence[str] | Unset = UNSET
    expires_at: int | Unset | None = UNSET
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateKey:
    """Make a key's successor; the key itself works for `overlap_ms` more, with 0 not at all."""

    credential: str
    overlap_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeKey:
    """End a server, client or relay key."""

    credential: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateToken:
    """Create an API token with `scopes`, for `projects` (ids or keys; None = all of the organisation)."""

    name: str
    scopes: Sequence[str]
    projects: Sequence[str] | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateToken:
    """Change a token's name or end."""

    credential: str
    name: str | Unset = UNSET
    expires_at: int | Unset | None = UNSET
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateToken:
    """Make a token's successor; the token itself works for `overlap_ms` more, with 0 not at all."""

    credential: str
    overlap_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeToken:
    """End an API token."""

    credential: str
