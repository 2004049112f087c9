"""How well sketches count: `python -m tests.protocol.sketch_accuracy` prints it; `measure` is what a test asserts.

Units are hashed for real, and every seed has units of its own. Each of 20 relays sees a part of the units, half of
which the next one sees too.
"""

import sys
from math import sqrt

from relay.protocol.sketch import UnitSketch

RELAYS = 20


def error_of(units: int, seed: int) -> float:
    """Return the relative error of the estimate for units seen by 20 relays."""
    part = units // RELAYS
    merged = UnitSketch()
    for relay in range(RELAYS):
        sketch = UnitSketch()
        start = relay * part
        for unit in range(start, start + part + part // 2):
            sketch.add(f"seed-{seed}-user-{unit % units}")
        # As the authority gets it.
        merged.merge(UnitSketch.from_bytes(sketch.to_bytes()))
    return merged.estimate() / units - 1


def measure(units: int, seeds: int) -> tuple[float, float]:
    """Return the root mean square and the largest of the errors."""
    errors = [error_of(units, seed) for seed in range(seeds)]
    return sqrt(sum(error * error for error in errors) / seeds), max(map(abs, errors))


if __name__ == "__main__":
    for units, seeds in ((1_000, 50), (10_000, 50), (100_000, 30), (1_000_000, 10)):
        typical, largest = measure(units, seeds)
        sys.stdout.write(f"{units:>9} units, {seeds} seeds: typical {typical:.2%}, largest {largest:.2%}\n")
