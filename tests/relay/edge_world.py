"""Kills over a real outbox directory and a configuration of which a test says where it stands."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relay.changes.kills import Kills, Order, Serving
from relay.changes.outbox import Outbox
from relay.changes.overlay import Position
from relay.metrics import RelayMetrics
from relay.protocol.edge import edge_key
from relay.protocol.overlays import ForcedOff
from relay.settings import Changes
from tests.clocks import FakeClock

ENVIRONMENT = "20000000-0000-4000-8000-000000000001"
START = Position("e1", 1)
TOKEN = "hal_token_of_the_test"
ORDER = Order(
    project="shop",
    project_id="project-shop",
    environment="production",
    environment_id=ENVIRONMENT,
    flag="beta",
    flag_id="flag-beta",
    credential_id="credential-1",
    edge_key=edge_key(TOKEN),
    reason="fire",
)
OTHER = replace(ORDER, flag="gamma", flag_id="flag-gamma")


@dataclass
class Edge:
    """The kills of a relay.

    `served` and `kept` are where its configuration and its snapshot file stand; the authority's clock is ahead by
    `offset_ms`.
    """

    path: Path
    clock: FakeClock = field(default_factory=FakeClock)
    metrics: RelayMetrics = field(default_factory=RelayMetrics)
    served: Position | None = START
    kept: Position | None = START
    max_kills: int = 10
    offset_ms: int = 0
    told: list[frozenset[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin again with nothing but what is on the disk, as after kill -9."""
        self.told.clear()
        self.outbox = Outbox.open(self.path, self.max_kills)
        self.kills = Kills(
            self.outbox,
            Serving(self._hold, lambda _: self.served, lambda _: self.kept),
            relay_id="relay-1",
            settings=Changes(max_kills=self.max_kills, overlay_ttl_s=3_600),
            clock=self.clock,
            authority_ms=lambda: self.clock.wall_ms() + self.offset_ms,
            metrics=self.metrics,
        )

    def _hold(self, environment_id: str, overlays: tuple[ForcedOff, ...]) -> None:
        assert environment_id == ENVIRONMENT
        self.told.append(frozenset(each.flag for each in overlays))

    @property
    def off(self) -> frozenset[str]:
        """The flags that are forced off now."""
        return self.told[-1] if self.told else frozenset()

    @property
    def files(self) -> list[str]:
        return sorted(file.name for file in self.path.iterdir())

    @property
    def shown(self) -> list[Any]:
        return [(each["flag"], each["state"]) for each in self.kills.status()]
