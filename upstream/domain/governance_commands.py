"""What can be asked about history, scheduled changes and change requests, as frozen values.

Commands that wait carry others as JSON (`command_codec`). They are part of `commands.Command`; what they come to is
decided in `reverts`, `schedules` and `requests`, and which commands they stand for is said in `steps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from upstream.domain.entities import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertFlag:
    """Restore what a flag was, as a new version: the flag itself, or with `environment` its config there.

    Give a `version`, or, for a config, the environment's `revision` at which the wanted version was in force.
    """

    project: str
    flag: str
    environment: str | None = None
    version: int | None = None
    revision: int | None = None
    reason: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertSegment:
    """Restore what a segment was, as a new version."""

    project: str
    segment: str
    version: int
    reason: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSchedule:
    """Keep commands, which have been tried, to be carried out at `run_at` (epoch milliseconds).

    `preview` is what they would do now.
    """

    project: str
    commands: Sequence[JsonObject]
    run_at: int
    preview: JsonObject
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSchedule:
    """Let go of a scheduled change that has not been carried out."""

    project: str
    schedule: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSchedule:
    """Carry out a scheduled change whose time has come; done by the installation itself."""

    project: str
    schedule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailSchedule:
    """Note with what a scheduled change was refused when its time came; done by the installation itself."""

    project: str
    schedule: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeChange:
    """Open a change request over commands that have been tried.

    `bound` are the versions that they were tried on, `preview` is what they would do.
    """

    project: str
    title: str
    commands: Sequence[JsonObject]
    bound: Sequence[JsonObject]
    preview: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendRequest:
    """Replace what a request holds by all of its commands and one more, tried together; its approval is gone."""

    project: str
    request: str
    commands: Sequence[JsonObject]
    bound: Sequence[JsonObject]
    preview: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """Change how a request's author describes it; what it does stays, and so does its approval."""

    project: str
    request: str
    title: str | None = None
    description: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRequest:
    """Approve or reject somebody else's request."""

    project: str
    request: str
    verdict: Literal["approved", "rejected"]
    comment: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawRequest:
    """Take back one's own request."""

    project: str
    request: str
    comment: str | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """Carry out an approved request, in one transaction with its being applied."""

    project: str
    request: str
    comment: str | None = None
    if_match: int | None = None


GovernanceCommand = (
    RevertFlag
    | RevertSegment
    | CreateSchedule
    | CancelSchedule
    | RunSchedule
    | FailSchedule
    | ProposeChange
    | AmendRequest
    | UpdateRequest
    | ReviewRequest
    | WithdrawRequest
    | ApplyRequest
)
