"""What of the served configurations is set aside when they are evaluated: counted for metrics, listed for people.

Worked out when somebody asks, once per environment and content, so that a change costs nothing for it. May be asked
from another thread than the store's: what it looks at is immutable.
"""

from collections import Counter

from relay.engine.environment import Gap, gaps
from relay.sync.store import Configuration, Store


class GapBook:
    """The gaps of a store's environments."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[tuple[str, str], tuple[Gap, ...]]] = {}

    def of(self, configuration: Configuration) -> tuple[Gap, ...]:
        """Return the gaps of one environment."""
        # The content by its name: holding the environment itself would keep a replaced one in memory until then.
        content = (configuration.state.content_hash, configuration.overlay_version)
        known = self._known.get(configuration.ref.id)
        if known is None or known[0] != content:
            known = self._known[configuration.ref.id] = content, tuple(gaps(configuration.environment))
        return known[1]

    def counts(self) -> dict[tuple[str, ...], float]:
        """Return how many gaps there are by environment (project/key) and kind."""
        held = dict(self._store.configurations)
        for gone in self._known.keys() - held.keys():
            self._known.pop(gone, None)
        counted: Counter[tuple[str, ...]] = Counter()
        for each in held.values():
            counted.update((f"{each.ref.project_key}/{each.ref.key}", gap.kind) for gap in self.of(each))
        return {labels: float(count) for labels, count in counted.items()}
