"""What an evaluation looks like on the native routes and streams, and that it is counted.

One shape for every native answer: `value`, `variation`, `reason`, and `error_code` on errors. Everything that was
answered is counted under its source, unless the flag has analytics off.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from relay.engine.model import Evaluation
from relay.metrics import RelayMetrics
from relay.sync.store import Configuration

Source = Literal["single", "bulk", "stream"]
Context = dict[str, Any]


class Counters(Protocol):
    """Where counts go: at the relay `relay.events.counters`, at the upstream its own table."""

    def count(  # noqa: PLR0913, PLR0917 - as cheap to call as can be
        self,
        environment_id: str,
        flag_id: str,
        variation: str | None,
        reason: str,
        source: str,
        n: int = 1,
        error_code: str | None = None,
    ) -> None:
        """Count `n` evaluations."""
        ...


def native(evaluation: Evaluation) -> dict[str, Any]:
    """Return the members that every native answer has."""
    members = {"value": evaluation.value, "variation": evaluation.variation, "reason": evaluation.reason}
    if evaluation.error_code is not None:
        members["error_code"] = evaluation.error_code
    return members


class Ledger:
    """Counts what was answered: for the authority by flag and outcome, for this process's metrics by source."""

    def __init__(self, counters: Counters, metrics: RelayMetrics) -> None:
        self._counters = counters
        self._metrics = metrics

    def enter(
        self, configuration: Configuration, evaluations: Mapping[str, Evaluation], source: Source, times: int = 1
    ) -> None:
        """Count answered evaluations, given by flag key; `times` clients had the same answers."""
        flags = configuration.environment.flags
        environment_id = configuration.ref.id
        count = self._counters.count
        for key, evaluation in evaluations.items():
            flag = flags[key]
            if flag.analytics:
                count(
                    environment_id,
                    flag.id,
                    evaluation.variation,
                    evaluation.reason,
                    source,
                    times,
                    evaluation.error_code,
                )
        self._metrics.evaluations.add(source, n=len(evaluations) * times)
