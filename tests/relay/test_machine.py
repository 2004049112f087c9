"""What is read from Linux, and that nothing is made up where it is not there."""

from pathlib import Path

import pytest

from relay import machine


@pytest.mark.parametrize(
    ("text", "limit"),
    [("536870912\n", {(): 536_870_912.0}), ("max\n", {}), ("9223372036854771712\n", {}), (None, {})],
    ids=["limited", "v2 without limit", "v1 without limit", "no cgroup"],
)
def test_the_limit_of_the_container_is_told_where_it_has_one(
    text: str | None, limit: dict[tuple[str, ...], float], tmp_path: Path
) -> None:
    """The first file that is there counts; "no limit" is no sample, so that no ratio is made with it."""
    file = tmp_path / "memory.max"
    if text is not None:
        file.write_text(text)
    assert machine.memory_limit((tmp_path / "missing", file)) == limit


def test_threads_are_counted_by_the_kernel(tmp_path: Path) -> None:
    """One directory per thread; nothing where there is no /proc."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    assert machine.threads(tmp_path) == {(): 3.0}
    assert machine.threads(tmp_path / "missing") == {}
    assert machine.threads()[()] >= 1
