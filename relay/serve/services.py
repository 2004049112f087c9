"""What the routes need of the rest of the process: one value, put together where the process is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.clock import Clock
from relay.events.intake import Intake
from relay.metrics import RelayMetrics
from relay.protocol.changes import ChangeSet
from relay.serve.access import Access
from relay.serve.answers import Counters, Ledger
from relay.serve.broadcast import Broadcast
from relay.settings import Serve
from relay.sync.store import Store


class History(Protocol):
    """An authority's change log, for followers that were away longer than the window in memory reaches back."""

    async def changes(self, environment_id: str, after: int, upto: int) -> Sequence[ChangeSet] | None:
        """Return every change set with `after` < revision <= `upto`, in order; None if they are not all kept."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The seams of `build_app`. Only an authority has a `history`; its store's head is then beyond doubt."""

    store: Store
    access: Access
    streams: Broadcast
    intake: Intake
    ledger: Ledger
    settings: Serve
    clock: Clock
    metrics: RelayMetrics
    history: History | None = None


def serve_with(  # noqa: PLR0913 - one argument per seam
    *,
    store: Store,
    intake: Intake,
    counters: Counters,
    settings: Serve,
    clock: Clock,
    metrics: RelayMetrics,
    history: History | None = None,
) -> Services:
    """Return the services with their own parts made: the authenticator, the stream registry, the ledger."""
    access = Access(store, clock, metrics)
    return Services(
        store=store,
        access=access,
        streams=Broadcast(store, access, settings.streams, clock, metrics),
        intake=intake,
        ledger=Ledger(counters, metrics),
        settings=settings,
        clock=clock,
        metrics=metrics,
        history=history,
    )
