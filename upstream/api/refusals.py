"""Log lines about refused credentials, at a bounded rate: an attack must not fill the disk.

The same refusal of the same credential is logged once a minute, and all of them together at most ten times a second.
Every refusal is counted all the same.
"""

import logging
from typing import Final

from cachetools import TTLCache

from relay.clock import Clock
from relay.metrics import RelayMetrics
from relay.serve.guard import Scope

logger = logging.getLogger(__name__)

_SAME_EVERY_S: Final = 60.0
_LINES_PER_S: Final = 10
_REMEMBERED: Final = 1_000


class RefusalLog:
    """Counts and logs refusals."""

    def __init__(self, clock: Clock, metrics: RelayMetrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._logged: TTLCache[tuple[str, str], None] = TTLCache(_REMEMBERED, _SAME_EVERY_S, clock.monotonic)
        self._second = 0
        self._lines = 0

    def note(self, reason: str, shown: str, detail: str, scope: Scope) -> None:
        """Count one refusal, and log why; `shown` says of whom without giving the credential away."""
        self._metrics.refused_keys.add(reason)
        if not self._may_log(reason, shown):
            return
        client = scope.get("client")
        logger.warning(
            "key refused: %s",
            detail,
            extra={"reason": reason, "key": shown, "path": scope["path"], "client": client[0] if client else None},
        )

    def note_failure(self, what: str, error: Exception) -> None:
        """Log, at the same bounded rate, that something beside the request failed."""
        if self._may_log("failure", what):
            logger.warning("%s: %s", what, error)

    def _may_log(self, reason: str, shown: str) -> bool:
        if (reason, shown) in self._logged:
            return False
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > _LINES_PER_S:
            return False
        self._logged[reason, shown] = None
        return True
