"""What an evaluation costs in this process: the compiled program beside the interpreter, which is the reference.

Both answer the same questions in turn, so what else the machine does falls on both. Times are CPU times of this
process, each figure is the median of the rounds, and a ratio is the median of the ratios of the rounds. No services.
"""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from relay.engine.evaluate import evaluate, evaluate_all
from relay.engine.model import Environment
from relay.engine.program import Program, build, compile_steps
from tests.engine.build import ON, clause, environment, flag, rule

SIZES: Final = (10, 350, 1_000, 5_000)
ROUNDS: Final = 15
FLAGS_PER_ROUND: Final = 5_000
SINGLE_CALLS: Final = 2_000
CONTEXT: Final = {
    "targetingKey": "user-123",
    "country": "FR",
    "plan": "free",
    "age": 17,
    "email": "somebody@example.org",
    "version": "1.9.3",
}


def _half(share: int) -> dict[str, Any]:
    return {"split": {"weights": [["on", share], ["off", 100_000 - share]]}}


def _simple(number: int) -> dict[str, Any]:
    return flag(salt=f"salt-{number}")


def _heavy(number: int) -> dict[str, Any]:
    """Return a flag of three rules with two clauses each, one of which serves a split, and a split for all others."""
    rules = [
        rule({"all": [clause("country", "in", "DE", "AT", "CH"), clause("plan", "equals", "pro")]}, ON, "r1"),
        rule({"any": [clause("age", "gte", 18 + number % 5), clause("email", "ends_with", "@example.com")]}, ON, "r2"),
        rule({"all": [clause("version", "semver_gte", "2.1.0"), clause("plan", "exists")]}, _half(50_000), "r3"),
    ]
    return flag(salt=f"salt-{number}", rules=rules, fallthrough=_half(20_000))


KINDS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {"simple": _simple, "heavy": _heavy}


def _seconds(call: Callable[[], object], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def _alternated(
    reference: Callable[[], object], compiled: Callable[[], object], times: int
) -> tuple[float, float, float]:
    """Return the median time of one call of each, measured in turn, and the median ratio."""
    rounds = [(_seconds(reference, times), _seconds(compiled, times)) for _ in range(ROUNDS)]
    first, second = (statistics.median(each) for each in zip(*rounds, strict=True))
    return first, second, statistics.median(one / other for one, other in rounds)


def _compiled(held: Environment) -> Program:
    program = build(held)
    for _ in compile_steps(program):
        pass
    return program


def measured(kind: str, size: int) -> dict[str, float]:
    """Measure one environment of flags of one kind."""
    held = environment({f"flag-{number}": KINDS[kind](number) for number in range(size)})
    build_s = statistics.median(_seconds(lambda: _compiled(held), 1) for _ in range(3))
    program = _compiled(held)
    if program.evaluate_all(CONTEXT, 0) != evaluate_all(held, CONTEXT, 0):
        raise AssertionError("the compiled program answers something else than the interpreter")
    gc.collect()
    every, every_compiled, ratio = _alternated(
        lambda: evaluate_all(held, CONTEXT, 0),
        lambda: program.evaluate_all(CONTEXT, 0),
        max(1, FLAGS_PER_ROUND // size),
    )
    one, one_compiled, single_ratio = _alternated(
        lambda: evaluate(held, "flag-3", CONTEXT, 0), lambda: program.evaluate("flag-3", CONTEXT, 0), SINGLE_CALLS
    )
    return {
        "reference_ns_per_flag": round(every / size * 1e9),
        "compiled_ns_per_flag": round(every_compiled / size * 1e9),
        "ratio": round(ratio, 2),
        "build_us_per_flag": round(build_s / size * 1e6, 1),
        "reference_single_ns": round(one * 1e9),
        "compiled_single_ns": round(one_compiled * 1e9),
        "single_ratio": round(single_ratio, 2),
    }


def bench_engine() -> dict[str, dict[str, dict[str, float]]]:
    """Measure every kind at every size."""
    return {kind: {str(size): measured(kind, size) for size in SIZES} for kind in KINDS}
