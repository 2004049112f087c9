"""Writes flags and segments as Python expressions, for `relay.engine.program` to compile.

Each expression answers exactly what the interpreter in `relay.engine.evaluate` answers. Attributes are looked up, and
read as what the operators compare (text, number, version, ...), once at the head of a function, whatever number of
clauses then asks for them. Nothing of a configuration is spliced into the text: every value, names and strings
included, is bound as a constant, so the text only ever holds names that are made here.

A function takes the context `c`, its unit `u` as text and `b` as bytes (None without one), the moment `n` in epoch
milliseconds and `x`, where memberships, prerequisites and draws of groups are looked up.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import mmh3

from relay.engine import literals, patterns
from relay.engine.bucketing import BUCKETS
from relay.engine.context import UNIT, lookup, unit_of
from relay.engine.evaluate import ON, passes, share_of, unsettled
from relay.engine.model import (
    All,
    AnyOf,
    Attribute,
    Clause,
    Condition,
    Exists,
    Fixed,
    Flag,
    InSegment,
    Needs,
    Not,
    PercentageOf,
    Prerequisite,
    Ramp,
    Segment,
    Serve,
    Split,
)
from relay.engine.operators import MAX_SEARCHED, Scalars, Texts

MAX_RULES: Final = 20
"""Rules become expressions inside expressions; Python's compiler recurses into them."""
MAX_PARTS: Final = 100
"""Conditions and outcomes of one flag or segment: some milliseconds of compiling, which nobody waits longer for."""
_MAX_ALTERNATIVES: Final = 8
_HASHES: Final = 1 << 32
_TWO: Final = 2
"""Outcomes between which one comparison decides, so that the hash need not be kept."""

Function = Callable[[dict[str, Any], str | None, bytes | None, int, Any], Any]
"""A compiled function: of context, unit, its bytes, moment and the tables of one run."""


def bytes_of(unit: str | None) -> bytes | None:
    """Return the bytes of a unit as they are hashed."""
    return None if unit is None else unit.encode("utf-8", "surrogatepass")


def _unit_bytes(value: Any) -> bytes | None:
    return bytes_of(unit_of(value))


def _subject(value: Any) -> bytes | None:
    return patterns.subject_of(value) if isinstance(value, str) else None


# How an attribute's value is read at the head of a function, by the first letter of the local that holds it.
_VIEWS: Final[dict[str, str]] = {
    "s": "{a} if {a}.__class__ is str else None",
    "n": "{a} if {a}.__class__ is int else number({a})",
    "v": "version({a})",
    "t": "moment({a})",
    "i": "address({a})",
    "c": "{a} if {a}.__class__ is str and len({a}) <= longest else None",
    "r": "subject({a})",
    "b": "unit_bytes({a})",
}

_TOOLS: Final[dict[str, Any]] = {
    "lookup": lookup,
    "number": literals.number,
    "version": literals.version,
    "moment": literals.moment_ms,
    "address": literals.address,
    "subject": _subject,
    "unit_bytes": _unit_bytes,
    "passes": passes,
    "share_of": share_of,
    "found": patterns.found,
    "longest": MAX_SEARCHED,
    "murmur3": mmh3.mmh3_32_uintdigest,
    "ON": ON,
}

_COSTLY: Final[dict[str, Callable[[Any], Any]]] = {
    "v": literals.version, "t": literals.moment_ms, "i": literals.address, "r": _subject
}  # fmt: skip
"""Readers of the views that take longer than looking them up in a table."""


def read_as(letter: str, value: Any) -> Any:
    """Return a costly view of an attribute's value."""
    return _COSTLY[letter](value)


_ORDERS: Final[dict[str, tuple[str, str]]] = {
    "gt": ("n", ">"),
    "gte": ("n", ">="),
    "lt": ("n", "<"),
    "lte": ("n", "<="),
    "semver_gt": ("v", ">"),
    "semver_gte": ("v", ">="),
    "semver_lt": ("v", "<"),
    "semver_lte": ("v", "<="),
    "before": ("t", "<"),
    "after": ("t", ">"),
}
"""View and comparison of the operators that ask for an order."""

_READ_AS: Final = {"between": "n", "semver_eq": "v", "matches": "r", "in_cidr": "i", "not_in_cidr": "i"}
"""View of the other operators that read an attribute as something else than text."""

_ALTERNATIVE: Final = frozenset({"in_cidr", "not_in_cidr", "contains", "not_contains"})
"""Operators that are written out for each of their values."""

_TEXT_FORMS: Final = {
    "equals": "equality", "in": "equality", "not_equals": "equality", "not_in": "equality",
    "contains": "containment", "not_contains": "containment",
    "starts_with": "startswith", "not_starts_with": "startswith",
    "ends_with": "endswith", "not_ends_with": "endswith",
}  # fmt: skip


_SHAREABLE: Final = frozenset({*_ORDERS, "between", "semver_eq", *_TEXT_FORMS} - _ALTERNATIVE)
"""Operators that take hardly longer than asking whether somebody has asked already."""
_SHAREABLE_VALUES: Final = 16


def shared_clauses(flags: Iterable[Flag]) -> Container[str]:
    """Return the names of the clauses that stand more than once in these flags and are tested quickly."""
    found: Counter[str] = Counter()
    for flag in flags:
        waiting = [rule.when for rule in flag.rules if not rule.needs.unknown_operators]
        while waiting:
            match waiting.pop():
                case All(conditions) | AnyOf(conditions):
                    waiting += conditions
                case Not(inner):
                    waiting.append(inner)
                case Clause(op=op, values=values) as clause if op in _SHAREABLE and len(values) <= _SHAREABLE_VALUES:
                    found[_name_of(clause)] += 1
                case _:
                    pass
    return {name for name, times in found.items() if times > 1}


def _name_of(clause: Clause) -> str:
    """Name a clause by all that it asks; types count, as 1 is not true."""
    return f"{clause.op} {clause.fold_case} {clause.wanted} {clause.attribute.path!r} {clause.values!r}"


def parts_of(condition: Condition | None) -> int:
    """Count the conditions in a condition, as many as their texts will have. Knows no depth that is too great."""
    count, waiting = 0, [] if condition is None else [condition]
    while waiting:
        count += 1
        match waiting.pop():
            case All(conditions) | AnyOf(conditions):
                waiting += conditions
            case Not(inner):
                waiting.append(inner)
            case Clause(op=op, values=values) if op in _ALTERNATIVE:
                count += max(0, len(values) - 1)
            case _:
                pass
    return count


def weight_of(flag: Flag) -> int:
    """Count the parts of a flag, which tell how long compiling it takes."""
    serves = [flag.fallthrough, *(rule.serve for rule in flag.rules)]
    outcomes = sum(len(serve.outcomes) for serve in serves if isinstance(serve, Split))
    conditions = sum(parts_of(rule.when) + len(rule.needs.segments) for rule in flag.rules)
    return 1 + conditions + len(flag.prerequisites) + outcomes


def is_compilable(flag: Flag) -> bool:
    """Tell whether a flag is small enough to be compiled."""
    return max(len(flag.rules), len(flag.prerequisites)) <= MAX_RULES and weight_of(flag) <= MAX_PARTS


@dataclass(slots=True)
class Source:
    """The text of one function in the making, with the constants that it names.

    One of several that run one after another shares with them what is costly to read.
    """

    is_shared: bool = False
    shared_clauses: Container[str] = ()
    """Names of clauses that are tested once, at the head of the function."""

    names: dict[str, Any] = field(default_factory=lambda: dict(_TOOLS))
    _attributes: dict[str, str] = field(default_factory=dict)
    _views: dict[str, str] = field(default_factory=dict)
    _tests: dict[str, str] = field(default_factory=dict)
    _head: list[str] = field(default_factory=list)
    _tables: dict[str, None] = field(default_factory=dict)

    def function(self, result: str) -> Function:
        """Compile a function that returns the result, an expression made by this object."""
        tables = [f"    {letter} = x.{letter}" for letter in self._tables]
        lines = ["def run(c, u, b, n, x):", "    get = c.get", *tables, *self._head, f"    return {result}", ""]
        exec(compile("\n".join(lines), "<flags>", "exec"), self.names)  # noqa: S102 - holds only names made here
        made: Function = self.names.pop("run")
        return made

    @property
    def needs_run(self) -> bool:
        """Whether what was written looks anything up in the tables of a run."""
        return bool(self._tables)

    # --- flags and segments -----------------------------------------------------------------------------------------

    def flag(self, flag: Flag) -> str:
        """Write the evaluation of a flag."""
        if not flag.enabled:
            return self._bound(flag.off)
        text = self._ruled(flag)
        if flag.targets:
            text = f"({self._bound(flag.targets)}.get(u) or {text})"
        if flag.group is not None:
            ours = f"{self._table('draws')}[{self._bound(flag.group.name)}] == {self._bound(flag.key)}"
            text = f"({text} if {ours} else {self._bound(flag.group.excluded)})"
            text = f"({text} if u is not None else {self._bound(flag.group.without_unit)})"
        for prerequisite in reversed(flag.prerequisites):
            text = f"({text} if {self._required(prerequisite)} else {self._bound(prerequisite.failed)})"
        if flag.prerequisites:
            stuck = f"{self._bound(flag.key)} in {self._table('unsettled')}"
            text = f"({self._bound(unsettled(flag))} if {stuck} else {text})"
        return text

    def call(self, function: Function) -> str:
        """Write a call of another function of the same kind."""
        return f"{self._bound(function)}(c, u, b, n, x)"

    def segment(self, segment: Segment) -> str:
        """Write whether the context belongs to a segment, all of whose needs are met."""
        parts = []
        if segment.include:
            parts.append(f"u in {self._bound(segment.include)}")
        if segment.when is not None:
            parts.append(self._condition(segment.when))
        text = f"({' or '.join(parts)})" if parts else "False"
        return f"({text} if u not in {self._bound(segment.exclude)} else False)" if segment.exclude else text

    def _required(self, prerequisite: Prerequisite) -> str:
        text = f"(q := {self._table('answers')}[{self._bound(prerequisite.flag)}]) is not None and q.reason in ON"
        if prerequisite.variations is not None:
            text += f" and q.variation in {self._bound(prerequisite.variations)}"
        return f"({text})"

    def _ruled(self, flag: Flag) -> str:
        text = self._served(flag.fallthrough)
        if not isinstance(flag.fallthrough, Fixed):
            unit = self._unit(flag.fallthrough.by)
            text = f"({text} if {unit} is not None else {self._bound(flag.without_unit)})"
        for rule in reversed(flag.rules):
            if rule.needs.unknown_operators:
                continue
            conditions = [*self._met(rule.needs), self._condition(rule.when)]
            if not isinstance(rule.serve, Fixed):
                conditions.append(f"{self._unit(rule.serve.by)} is not None")
            text = f"({self._served(rule.serve)} if {' and '.join(conditions)} else {text})"
        return text

    def _met(self, needs: Needs) -> list[str]:
        """Write that the segments can be decided."""
        return [f"{self._table('members')}[{self._bound(each)}] is not None" for each in sorted(needs.segments)]

    def _served(self, serve: Serve) -> str:
        """Write what is served to a unit that is there."""
        if isinstance(serve, Fixed):
            return self._bound(serve.outcome)
        drawn = self._drawn(serve.salt, self._unit(serve.by))
        if isinstance(serve, Ramp):
            share = f"share_of({self._bound(serve)}, n)"
            chosen = f"({drawn} * {BUCKETS} >> 32) < {share}"
            return f"({self._bound(serve.to)} if {chosen} else {self._bound(serve.otherwise)})"
        text = self._bound(serve.outcomes[-1])
        for index in range(len(serve.bounds) - 2, -1, -1):
            hashed = "h" if index else f"(h := {drawn})" if len(serve.bounds) > _TWO else drawn
            text = f"{self._bound(serve.outcomes[index])} if {hashed} < {_threshold(serve.bounds[index])} else {text}"
        return f"({text})"

    # --- conditions -------------------------------------------------------------------------------------------------

    def _condition(self, condition: Condition) -> str:  # noqa: PLR0911 - one per kind of condition
        match condition:
            case Clause():
                return self._clause(condition)
            case All(conditions):
                return f"({' and '.join(map(self._condition, conditions))})" if conditions else "True"
            case AnyOf(conditions):
                return f"({' or '.join(map(self._condition, conditions))})" if conditions else "False"
            case Not(inner):
                return f"(not {self._condition(inner)})"
            case InSegment(key):
                return f"({self._table('members')}[{self._bound(key)}] is True)"
            case Exists(attribute):
                return f"({self._attribute(attribute)} is not None)"
            case PercentageOf(attribute, salt, share):
                unit = self._unit(attribute)
                return f"({unit} is not None and {self._drawn(salt, unit)} < {_threshold(share)})"
            case _:  # an unknown operator, in a rule that is left out
                return "False"

    def _clause(self, clause: Clause) -> str:
        """Write a clause, or the local that holds its result."""
        if not self.shared_clauses or clause.op not in _SHAREABLE or len(clause.values) > _SHAREABLE_VALUES:
            return self._test(clause)
        name = _name_of(clause)
        if name not in self.shared_clauses:
            return self._test(clause)
        local = self._tests.get(name)
        if local is None:
            test = self._test(clause)
            local = self._tests[name] = f"t{len(self._tests)}"
            self._head.append(f"    {local} = {test}")
        return local

    def _test(self, clause: Clause) -> str:
        """Write a clause: at once for a value that its operator reads as a whole, through `passes` for all others."""
        value = self._attribute(clause.attribute)
        slow = f"{value} is not None and passes({self._bound(clause)}, {value})"
        quick = self._quick(clause)
        if quick is None:
            return f"({slow})"
        view, test = quick
        return f"({test if clause.wanted else f'not {test}'} if {view} is not None else {slow})"

    def _quick(self, clause: Clause) -> tuple[str, str] | None:
        """Return the view of the attribute that must be there, and the test of it; None if there is no quick way."""
        operand: Any = clause.operand
        if clause.op in _TEXT_FORMS:
            return self._quick_text(clause)
        if clause.op in _ORDERS and operand is not None:
            letter, sign = _ORDERS[clause.op]
            view = self._view(letter, clause.attribute)
            return view, f"{view} {sign} {self._bound(operand)}"
        read_as = _READ_AS.get(clause.op)
        if read_as is None or operand is None:
            return None
        view = self._view(read_as, clause.attribute)
        match read_as:
            case "n":
                test = f"{self._bound(operand[0])} <= {view} <= {self._bound(operand[1])}"
            case "v":
                test = f"({view} in {self._bound(operand)})"
            case "r":
                test = f"found({self._bound(operand)}, {view})"
            case _:
                networks = (f"({view}[0] == {each[0]} and {view}[1] & {each[2]} == {each[1]})" for each in operand)
                test = _any(networks)
        return view, test

    def _quick_text(self, clause: Clause) -> tuple[str, str] | None:
        operand: Scalars | Texts = clause.operand
        form = _TEXT_FORMS[clause.op]
        view = self._view("c" if form == "containment" else "s", clause.attribute)
        subject = f"{view}.casefold()" if operand.fold_case else view
        if isinstance(operand, Scalars):
            # Other values are not looked for in a text, and a text is none of them.
            texts = frozenset(each for each in operand.plain if isinstance(each, str))
            if len(texts) == 1:
                return view, f"({subject} == {self._bound(next(iter(texts)))})"
            return view, f"({subject} in {self._bound(texts)})"
        if form != "containment":
            return view, f"{subject}.{form}({self._bound(operand.texts)})"
        if len(operand.texts) > _MAX_ALTERNATIVES:
            return None
        return view, _any(f"{self._bound(text)} in {subject}" for text in operand.texts)

    # --- what expressions are made of -------------------------------------------------------------------------------

    def _drawn(self, salt: str, unit: str) -> str:
        """Write the hash of a unit, of whose upper part the bucket is made; as `relay.engine.bucketing.bucket`."""
        prefix = f"rollout:{salt}:".encode("utf-8", "surrogatepass")
        return f"murmur3({self._bound(prefix)} + {unit})"

    def _unit(self, by: Attribute) -> str:
        return "b" if by.path == UNIT else self._view("b", by)

    def _attribute(self, attribute: Attribute) -> str:
        local = self._attributes.get(attribute.path)
        if local is None:
            local = self._attributes[attribute.path] = f"a{len(self._attributes)}"
            bound = self._bound(attribute if attribute.steps else attribute.path)
            found = f"lookup(c, {bound})" if attribute.steps else f"get({bound})"
            self._head.append(f"    {local} = {found}")
        return local

    def _view(self, letter: str, attribute: Attribute) -> str:
        value = self._attribute(attribute)
        view = f"{letter}{value}"
        if view not in self._views:
            self._views[view] = letter
            read = _VIEWS[letter].format(a=value)
            if self.is_shared and letter in _COSTLY:
                read = f"{self._table('reads')}[{self._bound(letter + attribute.path)}]"
            self._head.append(f"    {view} = {read}")
        return view

    def _table(self, name: str) -> str:
        self._tables[name] = None
        return name

    def _bound(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name


def _any(tests: Iterable[str]) -> str:
    return f"({' or '.join(tests) or 'False'})"


def _threshold(bound: int) -> int:
    """Return the smallest hash whose bucket is not below the bound."""
    return -(-bound * _HASHES // BUCKETS)
