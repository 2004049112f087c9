"""The spool against a model, under any order of calls, crashes and halvings: nothing lost, nothing made up."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from relay.events.disk import Disk
from relay.events.reader import Batch
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import Events
from tests.clocks import FakeClock

SETTINGS = Events.model_validate(
    {"segment_bytes": 65_536, "spool_bytes": 2**30, "commit_s": 0, "forward_batch_events": 4}
)
# What a process that is killed leaves does not depend on the synchronisation; only power loss does.
DISK = Disk(sync=lambda _descriptor: None)

Step = tuple[str, list[int]]

appends: st.SearchStrategy[Step] = st.tuples(
    st.just("append"), st.lists(st.sampled_from([0, 10, 30_000]), min_size=1, max_size=5)
)
operations: st.SearchStrategy[Step] = appends | st.tuples(
    st.sampled_from(["peek", "acknowledge", "split", "crash", "close"]), st.builds(list)
)


@dataclass
class Model:
    """A spool in a directory, and what it must still give out."""

    directory: Path
    spool: Spool
    expected: list[bytes] = field(default_factory=list)
    seen: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    names: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))
    copies: int = 0

    async def append(self, sizes: list[int]) -> None:
        records = [b"%d " % next(self.names) + b"x" * size for size in sizes]
        await self.spool.append(records)
        self.expected += records

    async def peek(self) -> Batch | None:
        batch = await self.spool.peek()
        assert (batch is None) == (not self.expected)
        if batch is not None:
            assert list(batch.records) == self.expected[: len(batch.records)]
            assert self.seen.setdefault(batch.id, batch.records) == batch.records
        assert self.spool.stats().records == len(self.expected)
        return batch

    async def acknowledge(self) -> None:
        if batch := await self.peek():
            await self.spool.acknowledge(batch)
            del self.expected[: len(batch.records)]

    async def split(self) -> None:
        batch = await self.peek()
        if batch is not None and len(batch.records) > 1:
            await self.spool.split(batch)

    async def crash(self) -> None:
        """Go on with a copy of the files as they are now, as after a kill."""
        self.copies += 1
        image = self.directory.with_name(f"image{self.copies}")
        shutil.copytree(self.directory, image)
        await self.spool.close()
        self.directory = image
        self.spool = await opened(image)

    async def close(self) -> None:
        await self.spool.close()
        self.spool = await opened(self.directory)


async def opened(directory: Path) -> Spool:
    return await Spool.open(directory, SETTINGS, FakeClock(), RelayMetrics(), DISK)


async def play(directory: Path, steps: list[Step]) -> None:
    model = Model(directory, await opened(directory))
    for name, sizes in steps:
        await (model.append(sizes) if name == "append" else getattr(model, name)())
    while model.expected:
        await model.acknowledge()
    assert await model.peek() is None
    await model.spool.close()


@given(st.lists(operations, max_size=12))
def test_no_order_of_calls_and_crashes_loses_or_repeats_a_record(steps: list[Step]) -> None:
    """Every record comes out once, in order; a batch that was seen before has the records that it had."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory) / "spool", steps))
