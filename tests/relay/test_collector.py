"""The collector's owner: what stays is not walked again, and circles that grew old do not pile up for ever."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from relay.sync import collector
from relay.sync.collector import FROZEN_EVERY_S, GROWN_BY_MIB, freeze_young, keep_collected, own_collector
from tests.clocks import FakeClock


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the process's collector as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Circle:
    """Refers to itself."""

    def __init__(self, freed: list[int]) -> None:
        self.itself = self
        self._freed = freed

    def __del__(self) -> None:
        self._freed.append(1)


def test_no_full_collection_runs_by_itself() -> None:
    """What was loaded is left out from the start, and the oldest generation has no threshold that is ever met."""
    own_collector()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[2] > 1_000_000


def test_only_its_owner_freezes_what_is_young() -> None:
    """Where nobody walks what was frozen, as in the upstream, circles must stay with the interpreter's collections."""
    gc.unfreeze()
    freeze_young()
    assert gc.get_freeze_count() == 0
    own_collector()
    gc.unfreeze()
    freeze_young()
    assert gc.get_freeze_count() > 0


async def test_old_circles_are_found_once_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Young ones within seconds; old ones, which were frozen, when the process is much larger than at the last walk."""
    size_mib = [100.0]
    monkeypatch.setattr(collector, "_resident_mib", lambda: size_mib[0])
    clock, freed = FakeClock(), list[int]()
    own_collector()
    gc.disable()
    keeping = asyncio.create_task(keep_collected(clock.sleep))
    try:
        Circle(freed)
        await clock.advance(FROZEN_EVERY_S)
        assert freed == [1], "young"
        old = Circle(freed)
        await clock.advance(FROZEN_EVERY_S)
        del old
        await clock.advance(FROZEN_EVERY_S)
        assert freed == [1], "frozen while it was in use"
        size_mib[0] += size_mib[0] + GROWN_BY_MIB + 1
        await clock.advance(FROZEN_EVERY_S)
        assert freed == [1, 1]
    finally:
        gc.enable()
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
