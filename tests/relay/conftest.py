"""A world with one environment and one flag, in process on a clock that the test turns, or on a real listener."""

from collections.abc import AsyncIterator

import pytest

from relay.clock import SystemClock
from tests.clocks import FakeClock
from tests.relay.live import Live, serving
from tests.relay.objects import flag
from tests.relay.world import World


@pytest.fixture
def world() -> World:
    """A world on a clock that only the test turns."""
    made = World(FakeClock())
    made.snapshot({"beta": flag()})
    return made


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A world on a real listener and a real clock."""
    made = World(SystemClock())
    made.snapshot({"beta": flag()})
    async with serving(made) as served:
        yield served
