"""What can be asked of flags part by part, and from one place to another, as frozen values.

Part of `commands.Command`. `if_match` is the version of the flag's config in the environment; for variations and copies
it is the flag's own. Rules, variations and ramps are JSON as requests write them; what is wrong with them is told by
whoever decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from upstream.domain.entities import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteFlag:
    """Copy a flag's configuration from the environment `source` into `environment`.

    `parts` chooses among enabled, off, fallthrough, rules and targets; None = all. The salt stays.
    """

    project: str
    flag: str
    source: str
    environment: str
    parts: Sequence[str] | None = None
    reason: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFlag:
    """Make a new flag like another one, in the same project or in `into`; disabled unless `keep_enabled`.

    Configs go to the environments of the same key. `if_match` is the version of the flag that is copied.
    """

    project: str
    flag: str
    into: str | None = None
    key: str | None = None
    name: str | None = None
    keep_enabled: bool = False
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TagFlag:
    """Add tags to a flag and take others away, whatever else it is tagged with."""

    project: str
    flag: str
    add: Sequence[str] = ()
    remove: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRule:
    """Add a rule `{name?, when, serve|variation|value, is_active?}` at `position` (from 0); None = last."""

    project: str
    flag: str
    environment: str
    rule: JsonObject
    position: int | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRule:
    """Change the members of a rule that `changes` names."""

    project: str
    flag: str
    environment: str
    rule: str
    changes: JsonObject
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRule:
    """Take a rule away."""

    project: str
    flag: str
    environment: str
    rule: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReorderRules:
    """Put the rules into the order of `rules`, which lists the ids of exactly those that are there."""

    project: str
    flag: str
    environment: str
    rules: Sequence[str]
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTargets:
    """Let units get one variation whatever the rules say; those that were another variation's move."""

    project: str
    flag: str
    environment: str
    variation: str
    units: Sequence[str | int]
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTargets:
    """Let units be targets of `variation` no longer; None = of none."""

    project: str
    flag: str
    environment: str
    units: Sequence[str | int]
    variation: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollOut:
    """Serve one variation to `percentage` percent of the units, where no rule matches, and `off` to the rest.

    `variation` None: true in a boolean flag, else what the fallthrough serves now. `by` None: as now.
    """

    project: str
    flag: str
    environment: str
    percentage: float
    variation: str | None = None
    by: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RampUp:
    """Serve one variation to a share of the units that grows with time, where no rule matches.

    `ramp` is `{to, else?, start_at?, increment?, every_s?, target?, by?}` with shares in percent. Without `else` the
    rest gets `off`; without `start_at` it begins now, with null not yet.
    """

    project: str
    flag: str
    environment: str
    ramp: JsonObject
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVariation:
    """Add a variation `{key?, value, name?}` to a flag; `if_match` is the flag's version."""

    project: str
    flag: str
    variation: JsonObject
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateVariation:
    """Change the `value` or `name` of a variation, wherever it is served; `if_match` is the flag's version."""

    project: str
    flag: str
    variation: str
    changes: JsonObject
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteVariation:
    """Take a variation away that is served nowhere; `if_match` is the flag's version."""

    project: str
    flag: str
    variation: str
    if_match: int | None = None
