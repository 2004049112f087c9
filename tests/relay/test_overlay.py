"""The set of overlays: which flags are forced off where, and what ends that."""

from dataclasses import replace

import pytest

from relay.changes.overlay import Overlay, Overlays, Position, Stage, contains, is_undone

OVERLAY = Overlay(
    id="o1",
    project="shop",
    environment="production",
    environment_id="env",
    flag="beta",
    credential_id="c",
    at_ms=0,
    expires_at_ms=1,
)


def test_the_set_tells_which_flags_are_off_where() -> None:
    """Each environment has its own; an overlay that was dropped forces nothing."""
    overlays = Overlays()
    overlays.add(OVERLAY, 10)
    overlays.add(replace(OVERLAY, id="o2", flag="gamma"), 10)
    overlays.add(replace(OVERLAY, id="o3", environment_id="other"), 10)
    assert {each.flag for each in overlays.of_environment("env")} == {"beta", "gamma"}
    overlays.drop("o1")
    assert {each.flag for each in overlays.of_environment("env")} == {"gamma"}
    assert (len(overlays), "o1" in overlays, overlays.drop("o1")) == (2, False, None)


def test_the_newest_pending_kill_of_a_flag_and_a_token_is_found() -> None:
    """One of another environment, flag or token is another one, and one that is committed waits for nothing."""
    overlays = Overlays()
    others = (
        replace(OVERLAY, environment_id="other"),
        replace(OVERLAY, flag="gamma"),
        replace(OVERLAY, credential_id="d"),
    )
    for number, overlay in enumerate((OVERLAY, *others, OVERLAY)):
        overlays.add(replace(overlay, id=f"o{number}"), 10)
    assert overlays.find_pending("env", "beta", "c") is overlays.all()[4]
    overlays.move("o4", Position("e1", 5))
    assert overlays.find_pending("env", "beta", "c") is overlays.all()[0]
    assert overlays.find_pending("env", "beta", "d") is overlays.all()[3]
    assert overlays.find_pending("other", "gamma", "c") is None


def test_an_overlay_is_over_when_its_time_is() -> None:
    """By the clock that never jumps."""
    overlays = Overlays()
    overlays.add(OVERLAY, 10)
    assert overlays.over(9.9) == ()
    assert overlays.over(10) == (OVERLAY,)


def test_an_overlay_knows_how_far_its_kill_has_come() -> None:
    """Pending until the authority has it; one that is gone does not come back by news of it."""
    overlays = Overlays()
    overlays.add(OVERLAY, 10)
    assert overlays.all()[0].stage is Stage.PENDING
    overlays.move("o1", Position("e1", 5))
    assert overlays.all()[0].stage is Stage.COMMITTED
    overlays.drop("o1")
    overlays.move("o1", None)
    assert overlays.all() == ()


@pytest.mark.parametrize(
    ("served", "committed", "expected"),
    [
        (Position("e1", 5), Position("e1", 5), "contained"),
        (Position("e1", 6), Position("e1", 5), "contained"),
        (Position("e1", 4), Position("e1", 5), "neither"),
        (Position("e2", 9), Position("e1", 5), "undone"),
        (None, Position("e1", 5), "neither"),
        (Position("e1", 5), None, "neither"),
    ],
)
def test_what_a_configuration_contains(served: Position | None, committed: Position | None, expected: str) -> None:
    """Revisions are compared within a lineage only; another lineage may not have the kill."""
    assert contains(served, committed) is (expected == "contained")
    assert is_undone(served, committed) is (expected == "undone")
