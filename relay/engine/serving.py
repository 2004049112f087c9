"""Reads what a flag serves: from JSON to finished answers, one `Evaluation` for each variation a place can serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.engine import literals
from relay.engine.bucketing import BUCKETS
from relay.engine.context import UNIT, attribute
from relay.engine.model import Attribute, ErrorCode, Evaluation, Fixed, MetadataValue, Ramp, Reason, Serve, Split
from relay.engine.node import Node

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, the last that RFC 3339 can write."""
LONGEST_STEP_S = 10**9


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes the answers of one flag. Without an `off` variation it serves no value while it is off."""

    variations: Mapping[str, Any]
    off: str | None
    version: int
    metadata: Mapping[str, MetadataValue]

    def known(self, node: Node) -> str:
        """Read the key of one of the flag's variations."""
        key = node.text()
        if key not in self.variations:
            raise node.refused(f"there is no variation {key!r}")
        return key

    def switched_off(self, reason: Reason, **more: Any) -> Evaluation:
        """Make an answer that serves the off variation, or no value where there is none."""
        return self.served(self.off, reason, **more)

    def served(self, variation: str | None, reason: Reason, **more: Any) -> Evaluation:
        """Make an answer that serves a variation; None serves no value."""
        return Evaluation(
            None if variation is None else self.variations[variation],
            variation,
            reason,
            version=self.version,
            flag_metadata=self.metadata,
            **more,
        )

    def without_unit(self, path: str) -> Evaluation:
        """Make the answer for a context that lacks the attribute by which units are told apart."""
        return self.switched_off(
            Reason.ERROR,
            error_code=ErrorCode.TARGETING_KEY_MISSING,
            error_detail=f"the context has no {path!r}, a string that is not empty or an integer",
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a flag serves something: one of its rules, or the fallthrough, which has no rule."""

    answers: Answers
    salt: str
    fixed: Reason
    rule_id: str | None = None
    rule_index: int | None = None

    def answer(self, node: Node, reason: Reason, experiment: str | None = None) -> Evaluation:
        """Make the answer that serves the variation which the node names."""
        return self.answers.served(
            self.answers.known(node), reason, rule_id=self.rule_id, rule_index=self.rule_index, experiment=experiment
        )


def parse_serve(node: Node, place: Place) -> Serve:
    """Read a fixed variation, a split or a ramp.

    Raises:
        InvalidConfig: it is none of them, or one that cannot be used.
    """
    form, inner = node.choice("variation", "split", "ramp")
    match form:
        case "variation":
            return Fixed(place.answer(inner, place.fixed))
        case "split":
            experiment = node.find("experiment")
            return _split(inner, place, None if experiment is None else experiment.text())
        case _:
            return _ramp(inner, place)


def _split(node: Node, place: Place, experiment: str | None) -> Split:
    by, salt, weights = _by(node), node.find("salt"), node.member("weights")
    bounds: list[int] = []
    outcomes: list[Evaluation] = []
    for pair in weights.items():
        match pair.items():
            case [variation, weight]:
                bounds.append((bounds[-1] if bounds else 0) + weight.integer(0, BUCKETS))
                outcomes.append(place.answer(variation, Reason.SPLIT, experiment))
            case _:
                raise pair.refused("must be a variation and its weight")
    if not bounds or bounds[-1] != BUCKETS:
        raise weights.refused(f"must add up to {BUCKETS}, not {bounds[-1] if bounds else 0}")
    return Split(by, place.salt if salt is None else salt.text(), tuple(bounds), tuple(outcomes))


def _ramp(node: Node, place: Place) -> Ramp:
    return Ramp(
        by=_by(node),
        salt=place.salt,
        start_at_ms=_moment(node.find("start_at")),
        increment=node.member("increment").integer(0, BUCKETS),
        every_s=node.member("every_s").integer(1, LONGEST_STEP_S),
        target=node.member("target").integer(0, BUCKETS),
        to=place.answer(node.member("to"), Reason.SPLIT),
        otherwise=place.answer(node.member("else"), Reason.SPLIT),
    )


def _by(node: Node) -> Attribute:
    by = node.find("by")
    return attribute(UNIT if by is None else by.text())


def _moment(node: Node | None) -> int | None:
    if node is None:
        return None
    moment = literals.moment_ms(node.value)
    if moment is None or not 0 <= moment <= LATEST_MS:
        raise node.refused("must be an RFC 3339 time, epoch milliseconds or null")
    return int(moment)
