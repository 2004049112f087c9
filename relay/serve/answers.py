"""What an evaluation looks like on the native routes and streams, and that it is counted.

One shape for every native answer: `value`, `variation`, `reason`, and `error_code` on errors. Everything that was
answered is counted under its source, unless the flag has analytics off.
"""

from collections.abc import Callable, Mapping
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

    def enter(self, configuration: Configuration, evaluations: Mapping[str, Evaluation], source: Source) -> None:
        """Count answered evaluations, given by flag key."""
        flags = configuration.environment.flags
        environment_id = configuration.ref.id
        count = self._counters.count
        for key, evaluation in evaluations.items():
            flag = flags[key]
            if flag.analytics:
                count(
                    environment_id, flag.id, evaluation.variation, evaluation.reason, source, 1, evaluation.error_code
                )
        self._metrics.evaluations.add(source, n=len(evaluations))


class SharedFrames:
    """Bytes that many clients are sent after one change: whoever has the same answers gets the same object.

    Holds the frames of the newest configuration that was asked for, up to a maximum; the engine gives equal answers as
    the same object, so their identities name a frame. The answers are kept beside it, or an identity could pass on.
    """

    def __init__(self, max_frames: int = 1_024) -> None:
        self._max_frames = max_frames
        self._configuration: Configuration | None = None
        self._frames: dict[tuple[object, ...], tuple[Mapping[str, Evaluation], bytes]] = {}

    def get(
        self,
        configuration: Configuration,
        evaluations: Mapping[str, Evaluation],
        make: Callable[[Configuration, Mapping[str, Evaluation]], bytes],
    ) -> bytes:
        """Return the frame that tells of these evaluations, made at most once."""
        if configuration is not self._configuration or len(self._frames) >= self._max_frames:
            self._configuration = configuration
            self._frames = {}
        name = (*evaluations, *map(id, evaluations.values()))
        found = self._frames.get(name)
        if found is None:
            found = self._frames[name] = (evaluations, make(configuration, evaluations))
        return found[1]
