"""Which flags have had their day, with the reasons: what `GET …/stale-flags` tells, decided without I/O.

A reason has a moment since which it holds, and evidence. Evaluations count where somebody asked for this flag (single
and SDK), never where all flags are answered at once. Archived flags are not stale; they have been dealt with. What
flags are for decides how long they may rest: a threshold of 0 days is never reached.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from relay.clock import rfc3339
from relay.engine.bucketing import BUCKETS
from relay.engine.literals import moment_ms
from upstream.domain.entities import Flag, FlagConfig, JsonObject

DAY_MS: Final = 86_400_000


class StaleReason(StrEnum):
    """Why a flag is stale."""

    NEVER_EVALUATED = "never_evaluated"
    NOT_EVALUATED_LATELY = "not_evaluated_lately"
    FULLY_ROLLED_OUT = "fully_rolled_out"
    EXPIRED = "expired"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Days after which a flag of one kind is stale; 0 = never."""

    not_evaluated_days: float
    rolled_out_days: float
    unchanged_days: float


@dataclass(frozen=True, slots=True)
class Stale:
    """One reason, the moment since which it holds, and what it was told from."""

    reason: StaleReason
    since: int
    evidence: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """A flag with its configs and the hours of its last evaluations (None = never), both by environment key."""

    flag: Flag
    configs: Mapping[str, FlagConfig]
    evaluated: Mapping[str, int | None]


def reasons_of(usage: Usage, after: Thresholds, now_ms: int) -> tuple[Stale, ...]:
    """Return why a flag is stale; nothing where it is not."""
    if usage.flag.archived_at is not None:
        return ()
    return (
        *_unevaluated(usage, after, now_ms),
        *_rolled_out(usage, after, now_ms),
        *_expired(usage, now_ms),
        *_unchanged(usage, after, now_ms),
    )


def _is_over(since_ms: int, days: float, now_ms: int) -> bool:
    return days > 0 and since_ms <= now_ms - days * DAY_MS


def _unevaluated(usage: Usage, after: Thresholds, now_ms: int) -> Iterator[Stale]:
    if not usage.flag.analytics_enabled:
        # Nothing is counted, so nothing can be told.
        return
    evidence = {"last_evaluated_at": {key: _shown(hour) for key, hour in usage.evaluated.items()}}
    last = max((hour for hour in usage.evaluated.values() if hour is not None), default=None)
    reason = StaleReason.NEVER_EVALUATED if last is None else StaleReason.NOT_EVALUATED_LATELY
    since = usage.flag.created_at if last is None else last
    if _is_over(since, after.not_evaluated_days, now_ms):
        yield Stale(reason, since, evidence)


def _shown(moment: int | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _changed_at(usage: Usage) -> int:
    return max(usage.flag.updated_at, *(config.updated_at for config in usage.configs.values()), 0)


def _rolled_out(usage: Usage, after: Thresholds, now_ms: int) -> Iterator[Stale]:
    """Yield that every environment is on and serves one variation to all, the same everywhere."""
    flag, configs = usage.flag, usage.configs.values()
    if not configs or not flag.is_active or not all(config.enabled for config in configs):
        return
    served = set[str | None]().union(*(_served(flag, config, now_ms) for config in configs))
    since = max(_changed_at(usage), *(_ramps_end(config, now_ms) for config in configs))
    if len(served) == 1 and _is_over(since, after.rolled_out_days, now_ms):
        (variation,) = served
        evidence: dict[str, Any] = {"variation": variation, "environments": list(usage.configs)}
        yield Stale(StaleReason.FULLY_ROLLED_OUT, since, evidence)


def _serves(config: FlagConfig) -> Iterator[JsonObject]:
    yield config.fallthrough
    yield from (rule.serve for rule in config.rules if rule.is_active)


def _served(flag: Flag, config: FlagConfig, now_ms: int) -> set[str | None]:
    """Return the variations that anybody may get here while the flag is on."""
    found: set[str | None] = {target.variation for target in config.targets}
    for serve in _serves(config):
        found |= _outcomes(serve, now_ms)
    if flag.prerequisites or flag.mutual_exclusion_group is not None:
        found.add(config.off)
    return found


def _outcomes(serve: JsonObject, now_ms: int) -> set[str]:
    if "split" in serve:
        return {variation for variation, weight in serve["split"]["weights"] if weight > 0}
    if "ramp" not in serve:
        return {serve["variation"]}
    ramp = serve["ramp"]
    is_whole = ramp["target"] == BUCKETS and _whole_at(ramp) <= now_ms
    return {ramp["to"]} if is_whole else {ramp["to"], ramp["else"]}


def _whole_at(ramp: JsonObject) -> float:
    """Return when a ramp has reached everybody."""
    start = moment_ms(ramp["start_at"])
    steps = -(-BUCKETS // ramp["increment"])
    return float("inf") if start is None else start + steps * ramp["every_s"] * 1_000


def _ramps_end(config: FlagConfig, now_ms: int) -> int:
    """Return when the last ramp of a config was complete; 0 where there is none that is."""
    ends = [_whole_at(serve["ramp"]) for serve in _serves(config) if "ramp" in serve]
    return max((int(end) for end in ends if end <= now_ms), default=0)


def _expired(usage: Usage, now_ms: int) -> Iterator[Stale]:
    expires_at = usage.flag.expires_at
    if expires_at is not None and expires_at <= now_ms:
        yield Stale(StaleReason.EXPIRED, expires_at, {"expires_at": rfc3339(expires_at)})


def _unchanged(usage: Usage, after: Thresholds, now_ms: int) -> Iterator[Stale]:
    since = _changed_at(usage)
    if _is_over(since, after.unchanged_days, now_ms):
        yield Stale(StaleReason.UNCHANGED, since, {"changed_at": rfc3339(since)})
