"""Flags in chunks: each is one function that answers all of its flags, so that an attribute is looked up once for all.

How flags are laid out in chunks changes no answer. A change makes only the chunks anew that it touches, and costs a
large environment a look at its chunks and not at its flags.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from relay.engine.evaluate import evaluate
from relay.engine.model import Environment, Evaluation, Fixed, Flag
from relay.engine.source import Function, Source, is_compilable, shared_clauses, weight_of

CHUNK: Final = 32
"""Flags in one function at most: enough to share what they look up."""
CHUNK_PARTS: Final = 256
"""Parts in one function at most, unless a single flag has more: few enough to compile in some milliseconds."""
_WEIGHED_PER_STEP: Final = 256


class Chunk:
    """Some flags, all of them visible to browsers or none.

    `fixed` are those that answer everybody alike; the function answers the others, `moving`, in their order.
    """

    __slots__ = ("fixed", "flags", "function", "keys", "moving", "weight")

    def __init__(self, flags: Iterable[Flag], weight: int) -> None:
        self.flags = tuple(flags)
        self.keys = tuple(flag.key for flag in self.flags)
        self.fixed = {flag.key: answer for flag in self.flags if (answer := fixed_answer(flag)) is not None}
        self.moving = tuple(flag for flag in self.flags if flag.key not in self.fixed)
        self.weight = weight
        self.function: Function | None = None

    def compile(self) -> None:
        """Make the function."""
        source = Source(is_shared=True, shared_clauses=shared_clauses(self.moving))
        parts = [source.flag(flag) if is_compilable(flag) else source.call(interpreted(flag)) for flag in self.moving]
        self.function = source.function(f"[{', '.join(parts)}]")


def fixed_answer(flag: Flag) -> Evaluation | None:
    """Return what a flag answers to everybody at any time, None if there is more than one answer."""
    if not flag.enabled:
        return flag.off
    is_simple = not (flag.prerequisites or flag.targets or flag.rules) and flag.group is None
    return flag.fallthrough.outcome if is_simple and isinstance(flag.fallthrough, Fixed) else None


def interpreted(flag: Flag) -> Function:
    """Return what answers a flag that is too large to be worth compiling."""

    def run(context: dict[str, Any], _unit: str | None, _raw: bytes | None, now_ms: int, run: Any) -> Evaluation:
        return evaluate(run.program.environment, flag.key, context, now_ms)

    return run


def differing(before: Mapping[str, Flag], after: Mapping[str, Flag]) -> Iterator[str]:
    """Yield the keys of the flags that came, went or changed: revisions share what did not."""
    if before is after:
        return
    for key, flag in after.items():
        if before.get(key) is not flag:
            yield key
    for key in before:
        if key not in after:
            yield key


def lay_out(
    environment: Environment, before: Sequence[Chunk], changed: frozenset[str], *, is_public: bool
) -> Generator[None, None, tuple[Chunk, ...]]:
    """Return chunks of the flags that browsers may see, or of all others, pausing (`yield`) after every few of them.

    Those of `before` in which nothing is `changed` are kept; the others are made anew, with what is new where there is
    room.
    """
    found = ((key, environment.flags.get(key)) for key in changed)
    wanted = {key: flag for key, flag in found if flag is not None and flag.client_side is is_public}
    remade = [] if not changed else [chunk for chunk in before if not changed.isdisjoint(chunk.keys)]
    held = {key for chunk in remade for key in chunk.keys}
    yield
    new: deque[tuple[Flag, int]] = deque()
    # In the order of the environment, not of the set, so that every process lays the same flags out alike.
    for key in environment.flags if wanted else ():
        if key in wanted and key not in held:
            new.append((wanted[key], weight_of(wanted[key])))
            if len(new) % _WEIGHED_PER_STEP == 0:
                yield
    chunks: list[Chunk] = []
    is_remade = set(map(id, remade))
    for chunk in before:
        is_same = id(chunk) not in is_remade
        left = chunk.flags if is_same else _left(chunk, wanted, changed)
        weight = chunk.weight
        if not is_same:
            left, weight = _fitting(left, new)
        added = _taken(new, CHUNK - len(left), CHUNK_PARTS - weight)
        if is_same and not added:
            chunks.append(chunk)
        elif left or added:
            chunks.append(Chunk([*left, *(flag for flag, _ in added)], weight + sum(each for _, each in added)))
            yield
    while new:
        more = _taken(new, CHUNK, CHUNK_PARTS) or [new.popleft()]
        chunks.append(Chunk((flag for flag, _ in more), sum(each for _, each in more)))
        yield
    return tuple(chunks)


def _fitting(left: tuple[Flag, ...], new: deque[tuple[Flag, int]]) -> tuple[tuple[Flag, ...], int]:
    """Return as many flags as one function may hold, and their weight; those that have outgrown it become new ones."""
    weights = list(map(weight_of, left))
    while len(weights) > 1 and sum(weights) > CHUNK_PARTS:
        new.append((left[len(weights) - 1], weights.pop()))
    return left[: len(weights)], sum(weights)


def _left(chunk: Chunk, wanted: Mapping[str, Flag], changed: frozenset[str]) -> tuple[Flag, ...]:
    """Return what is left of a chunk: its flags as they are now, without those that went to other chunks or away."""
    now = (wanted.get(flag.key) if flag.key in changed else flag for flag in chunk.flags)
    return tuple(flag for flag in now if flag is not None)


def _taken(new: deque[tuple[Flag, int]], places: int, parts: int) -> list[tuple[Flag, int]]:
    """Take flags off the front for as long as there is room for them."""
    taken: list[tuple[Flag, int]] = []
    while new and len(taken) < places and new[0][1] <= parts:
        taken.append(new.popleft())
        parts -= taken[-1][1]
    return taken
