"""The compiled form of an environment: the same answers as `relay.engine.evaluate`, for a fraction of the time.

Flags are compiled in chunks, each one function that answers all of its flags (`relay.engine.chunks`); a flag that is
asked for alone gets a function of its own when that first happens. A change makes the chunks anew that it touches. What
is not compiled, since it is too large or nobody has done so yet, is interpreted: no answer waits longer than for one
flag to be compiled. Nothing here decides anything: meaning stands in the interpreter, and a differential test holds the
two equal.
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.engine.bucketing import winner
from relay.engine.chunks import Chunk, differing, interpreted, lay_out
from relay.engine.context import UNIT, attribute, lookup, unit_of
from relay.engine.evaluate import Run, belongs, evaluate, no_context, no_flag, too_deep
from relay.engine.model import Environment, Evaluation, Flag, Segment
from relay.engine.source import MAX_PARTS, Function, Source, bytes_of, is_compilable, parts_of, read_as
from relay.engine.steps import finished

COMPILED_AT_MOST: Final = 8
"""Flags that are compiled for being asked for together; each takes a fraction of a millisecond, mostly."""
_CHEAPER_TOGETHER: Final = 32
"""How many flags of all that are compiled cost as little as one that is interpreted, and rather more."""
_CHUNKS_PER_STEP: Final = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """The flags of a program for one kind of client: the fixed ones with their answers, then the keys of the others."""

    fixed: Mapping[str, Evaluation]
    moving: Sequence[str]


@dataclass(frozen=True, slots=True)
class Program:
    """One revision of an environment, ready to be evaluated. Made by `build`."""

    environment: Environment
    public: tuple[Chunk, ...] = field(repr=False, compare=False)
    private: tuple[Chunk, ...] = field(repr=False, compare=False)
    _single: dict[str, tuple[Flag, Function, bool]] = field(default_factory=dict, repr=False, compare=False)
    _segments: dict[str, tuple[Segment, Function]] = field(default_factory=dict, repr=False, compare=False)
    _layouts: dict[bool, Layout] = field(default_factory=dict, repr=False, compare=False)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """All chunks."""
        return (*self.public, *self.private)

    def evaluate(self, flag_key: str, context: Any, now_ms: int, *, may_compile: bool = True) -> Evaluation:
        """Evaluate one flag; see `relay.engine.evaluate.evaluate`.

        Whoever asks for many flags at once forbids compiling them one by one.
        """
        flag = self.environment.flags.get(flag_key)
        if flag is None:
            return no_flag(self.environment, flag_key)
        if not isinstance(context, dict):
            return no_context(flag)
        if not may_compile and flag_key not in self._single:
            return evaluate(self.environment, flag_key, context, now_ms)
        try:
            function, needs_run = self.function_of(flag)
            unit = unit_of(context.get(UNIT))
            if not needs_run:
                answer: Evaluation = function(context, unit, bytes_of(unit), now_ms, None)
                return answer
            run = _Run(self, context, now_ms)
            answer = function(context, unit, run.raw, now_ms, run)
        except RecursionError:
            return too_deep(flag)
        run.end()
        return answer

    def evaluate_all(self, context: Any, now_ms: int, *, client_side_only: bool = False) -> dict[str, Evaluation]:
        """Evaluate every flag, or those that browsers may see; see `relay.engine.evaluate.evaluate_all`."""
        if not isinstance(context, dict):
            chunks = self._chunks(client_side_only=client_side_only)
            return {flag.key: no_context(flag) for chunk in chunks for flag in chunk.flags}
        layout = self.layout(client_side_only=client_side_only)
        moving = self.evaluate_moving(context, now_ms, client_side_only=client_side_only)
        return {**layout.fixed, **dict(zip(layout.moving, moving, strict=True))}

    def evaluate_moving(
        self, context: dict[str, Any], now_ms: int, *, client_side_only: bool = False
    ) -> list[Evaluation]:
        """Evaluate the flags whose answer the context or time may change, in the order of `layout().moving`."""
        return self._answers(self._chunks(client_side_only=client_side_only), _Run(self, context, now_ms))

    def _answers(self, chunks: Sequence[Chunk], run: "_Run") -> list[Evaluation]:
        """Evaluate what moves in some chunks."""
        context, now_ms, unit, raw = run.context, run.now_ms, run.unit, run.raw
        reference: Run | None = None
        answers: list[Evaluation] = []
        for chunk in chunks:
            try:
                if chunk.function is None:
                    reference = reference or Run(self.environment, context, now_ms)
                    answers += [reference.flag(flag) for flag in chunk.moving]
                else:
                    answers += chunk.function(context, unit, raw, now_ms, run)
            except RecursionError:
                answers += [self.evaluate(flag.key, context, now_ms, may_compile=False) for flag in chunk.moving]
        run.end()
        return answers

    def evaluate_all_steps(
        self, context: dict[str, Any], now_ms: int, *, client_side_only: bool = False
    ) -> Generator[None, None, dict[str, Evaluation]]:
        """Do what `evaluate_all` does, pausing (`yield`) after every few chunks."""
        layout = self.layout(client_side_only=client_side_only)
        chunks = self._chunks(client_side_only=client_side_only)
        run, moving = _Run(self, context, now_ms), list[Evaluation]()
        yield
        for start in range(0, len(chunks), _CHUNKS_PER_STEP):
            moving += self._answers(chunks[start : start + _CHUNKS_PER_STEP], run)
            yield
        return {**layout.fixed, **dict(zip(layout.moving, moving, strict=True))}

    def evaluate_some_steps(
        self, flag_keys: Collection[str], context: dict[str, Any], now_ms: int
    ) -> Generator[None, None, dict[str, Evaluation]]:
        """Do what `evaluate_some` does, pausing (`yield`) where it is much."""
        if not self._are_many(flag_keys):
            return self.evaluate_some(flag_keys, context, now_ms)
        answers = yield from self.evaluate_all_steps(context, now_ms)
        yield
        return {key: answers[key] for key in flag_keys}

    def evaluate_some(self, flag_keys: Collection[str], context: Any, now_ms: int) -> dict[str, Evaluation]:
        """Evaluate some flags that exist: a few each alone, many together with all others, which costs far less."""
        if self._are_many(flag_keys):
            answers = self.evaluate_all(context, now_ms)
            return {key: answers[key] for key in flag_keys}
        may_compile = len(flag_keys) <= COMPILED_AT_MOST
        return {key: self.evaluate(key, context, now_ms, may_compile=may_compile) for key in flag_keys}

    def _are_many(self, flag_keys: Collection[str]) -> bool:
        return len(flag_keys) > max(COMPILED_AT_MOST, len(self.environment.flags) // _CHEAPER_TOGETHER)

    def layout(self, *, client_side_only: bool = False) -> Layout:
        """Return which flags answer everybody alike, worked out when that is first asked for."""
        known = self._layouts.get(client_side_only)
        if known is None:
            chunks = self._chunks(client_side_only=client_side_only)
            fixed = {key: answer for chunk in chunks for key, answer in chunk.fixed.items()}
            moving = [flag.key for chunk in chunks for flag in chunk.moving]
            known = self._layouts[client_side_only] = Layout(fixed, moving)
        return known

    def _chunks(self, *, client_side_only: bool) -> tuple[Chunk, ...]:
        return self.public if client_side_only else (*self.public, *self.private)

    def function_of(self, flag: Flag) -> tuple[Function, bool]:
        """Return the function of one flag, compiled when it is first asked for, and whether it looks anything up."""
        known = self._single.get(flag.key)
        if known is None:
            if is_compilable(flag):
                source = Source()
                known = flag, source.function(source.flag(flag)), source.needs_run
            else:
                known = flag, interpreted(flag), True
            self._single[flag.key] = known
        return known[1:]

    def membership_of(self, segment: Segment) -> Function:
        """Return the function of one segment, compiled when it is first asked for."""
        known = self._segments.get(segment.key)
        if known is None:
            source, is_small = Source(), parts_of(segment.when) <= MAX_PARTS
            function = source.function(source.segment(segment)) if is_small else _interpreted_segment(segment)
            known = self._segments[segment.key] = segment, function
        return known[1]


class _Table(dict[str, Any]):
    """Answers of one run by key, each worked out when it is first asked for."""

    __slots__ = ("_work",)

    def __init__(self, work: Any) -> None:
        self._work = work

    def __missing__(self, key: str) -> Any:
        answer = self[key] = self._work(key)
        return answer


class _Run:
    """The evaluation of any number of flags for one context at one moment, and what they look up in common."""

    __slots__ = ("_answers", "_draws", "_members", "_reads", "context", "now_ms", "program", "raw", "unit")

    def __init__(self, program: Program, context: dict[str, Any], now_ms: int) -> None:
        self.program = program
        self.context = context
        self.now_ms = now_ms
        self.unit = unit_of(context.get(UNIT))
        self.raw = bytes_of(self.unit)
        self._answers: _Table | None = None
        self._draws: _Table | None = None
        self._members: _Table | None = None
        self._reads: _Table | None = None

    def end(self) -> None:
        """Let go of the tables, which refer to this: else only a collection would find them, and stall everybody."""
        self._answers = self._draws = self._members = self._reads = None

    def flag(self, flag: Flag) -> Evaluation:
        """Evaluate a flag."""
        answer: Evaluation = self._call(self.program.function_of(flag)[0])
        return answer

    @property
    def unsettled(self) -> Collection[str]:
        """The flags whose prerequisites lead nowhere."""
        return self.program.environment.unsettled

    @property
    def answers(self) -> _Table:
        """The answers of prerequisites; None for a flag that does not exist."""
        if self._answers is None:
            self._answers = _Table(self._answer)
        return self._answers

    @property
    def draws(self) -> _Table:
        """The flag of each exclusion group to which the unit belongs."""
        if self._draws is None:
            self._draws = _Table(self._draw)
        return self._draws

    @property
    def members(self) -> _Table:
        """Whether the context belongs to each segment; None for one that cannot be decided."""
        if self._members is None:
            self._members = _Table(self._member)
        return self._members

    @property
    def reads(self) -> _Table:
        """What is read from attributes at some cost: by the letter of the view and the attribute's path."""
        if self._reads is None:
            self._reads = _Table(self._read)
        return self._reads

    def _read(self, view: str) -> Any:
        return read_as(view[0], lookup(self.context, attribute(view[1:])))

    def _call(self, function: Function) -> Any:
        return function(self.context, self.unit, self.raw, self.now_ms, self)

    def _answer(self, key: str) -> Evaluation | None:
        flag = self.program.environment.flags.get(key)
        return None if flag is None else self.flag(flag)

    def _draw(self, group: str) -> str:
        return winner(group, self.program.environment.groups[group], self.unit or "")

    def _member(self, key: str) -> bool | None:
        segment = self.program.environment.usable.get(key)
        return None if segment is None else bool(self._call(self.program.membership_of(segment)))


def build(environment: Environment, before: Program | None = None) -> Program:
    """Lay out the program of an environment, sharing with the one before whatever did not change.

    What answers all flags is compiled by `compile_steps`, and interpreted until then.
    """
    return finished(build_steps(environment, before))


def build_steps(environment: Environment, before: Program | None = None) -> Generator[None, None, Program]:
    """Do what `build` does, pausing (`yield`) after every few flags that are new or changed."""
    held = {} if before is None else before.environment.flags
    changed = frozenset(differing(held, environment.flags))
    yield
    public = yield from lay_out(environment, () if before is None else before.public, changed, is_public=True)
    private = yield from lay_out(environment, () if before is None else before.private, changed, is_public=False)
    if before is None:
        return Program(environment, public, private)
    flags, segments = environment.flags, environment.segments
    # What was asked for alone in the meantime is in the tables of the program before, so they are read last.
    single = {key: known for key, known in before._single.items() if flags.get(key) is known[0]}  # noqa: SLF001 - one of its own
    members = {key: known for key, known in before._segments.items() if segments.get(key) is known[0]}  # noqa: SLF001
    return Program(environment, public, private, single, members)


def compile_steps(program: Program) -> Generator[None]:
    """Compile what answers all flags, in steps of a few milliseconds."""
    for chunk in program.chunks:
        if chunk.function is None:
            chunk.compile()
            yield


def _interpreted_segment(segment: Segment) -> Function:
    """Return what tells the membership in a segment that is too large to be worth compiling."""

    def run(context: dict[str, Any], _unit: str | None, _raw: bytes | None, now_ms: int, run: Any) -> bool:
        return belongs(run.program.environment, segment.key, context, now_ms)

    return run
