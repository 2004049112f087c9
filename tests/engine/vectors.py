"""The published test vectors of the evaluation engine, as readable cases; `python -m tests.engine.vectors` writes them.

What is expected of operators and evaluations was written by hand from docs/evaluation.md, never copied from the engine.
Hashes are computed here from the formula, with the library alone. The files are data for implementations in any
language: `relay/engine/vectors/*.json`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import mmh3

DIRECTORY: Final = Path(__file__).parents[2] / "relay/engine/vectors"
WIDTH: Final = 110

Json = dict[str, Any]

# --- bucketing ----------------------------------------------------------------------------------------------------

# name, why, purpose, salt, unit
BUCKETS: Final[list[tuple[str, str, str, str, str]]] = [
    ("all empty", "the shortest text that is hashed is 'rollout::'", "rollout", "", ""),
    ("empty unit", "the formula is defined for it, though no context has an empty unit", "rollout", "salt", ""),
    ("one letter", "a text of 14 bytes: three blocks and a tail of two", "rollout", "salt", "a"),
    ("tail of three bytes", "a text of 15 bytes", "rollout", "salt", "ab"),
    ("no tail", "a text of 16 bytes", "rollout", "salt", "abc"),
    ("tail of one byte", "a text of 17 bytes", "rollout", "salt", "abcd"),
    ("ordinary", "the worked example of the specification", "rollout", "salt", "user-1"),
    ("neighbour", "a unit that differs in one digit falls elsewhere", "rollout", "salt", "user-2"),
    ("empty salt", "a flag without a salt has an empty one", "rollout", "", "user-1"),
    ("another salt", "the same unit under another salt", "rollout", "pepper", "user-1"),
    ("purpose variant", "another purpose is another draw", "variant", "salt", "user-1"),
    ("purpose holdout", "another purpose is another draw", "holdout", "salt", "user-1"),
    ("integer", "the integer 42 and the text '42' are one unit", "rollout", "salt", "42"),
    ("negative integer", "an integer is written with its sign", "rollout", "salt", "-42"),
    ("largest integer", "2^64 - 1, the largest integer that is a unit", "rollout", "salt", "18446744073709551615"),
    ("smallest integer", "-2^63, the smallest integer that is a unit", "rollout", "salt", "-9223372036854775808"),
    ("colon in unit", "nothing is escaped", "rollout", "salt", "a:b"),
    ("colon in salt", "so this is the same text as the case before", "rollout", "salt:a", "b"),
    ("space and case", "a unit is neither trimmed nor folded", "rollout", "salt", " User-1 "),
    ("two bytes per character", "UTF-8, not UTF-16", "rollout", "salt", "\u00e6\u00f8\u00e5"),
    ("UTF-8 on both sides", "the salt is UTF-8 too", "rollout", "s\u00f8l", "Z\u00fcrich"),
    ("decomposed", "no Unicode normalisation: u and a combining diaeresis", "rollout", "s\u00f8l", "Zu\u0308rich"),
    ("three bytes per character", "UTF-8 of CJK characters", "rollout", "salt", "\u65e5\u672c\u8a9e"),
    ("emoji", "four bytes, not a surrogate pair of three each", "rollout", "salt", "\U0001f600"),
    ("emoji of several code points", "joined by zero width joiners", "rollout", "salt",
     "\U0001f469\u200d\U0001f469\u200d\U0001f467"),
    ("null character", "a byte like any other", "rollout", "salt", "a\x00b"),
    ("long", "a kilobyte", "rollout", "salt", "x" * 1024),
    ("UUID", "what most units look like", "rollout", "b5c1f0aa", "0b5c5c1e-7d0c-4d0e-9d0f-0d6f3f1f2a11"),
]  # fmt: skip

# name, why, code points of the unit
SURROGATES: Final[list[tuple[str, str, list[int]]]] = [
    ("half of a pair", "three bytes, as if it were a character: ed a0 80", [0xD800]),
    ("half of a pair in a text", "what stands around it is UTF-8", [0x61, 0xDFFF, 0x62]),
]

# name, why, attribute's value, the unit that it is
UNITS: Final[list[tuple[str, str, Any, str | None]]] = [
    ("text", "a string stands for itself", "user-1", "user-1"),
    ("blank", "a string is not trimmed", " ", " "),
    ("empty text", "an empty string is no unit", "", None),
    ("integer", "decimal digits", 42, "42"),
    ("zero", "zero is a unit", 0, "0"),
    ("negative integer", "with its sign", -7, "-7"),
    ("largest integer", "2^64 - 1", 18446744073709551615, "18446744073709551615"),
    ("too large", "2^64 has more than 64 bits", 18446744073709551616, None),
    ("smallest integer", "-2^63", -9223372036854775808, "-9223372036854775808"),
    ("too small", "-2^63 - 1 has more than 64 bits", -9223372036854775809, None),
    ("fraction", "a number with a fraction is no unit", 1.5, None),
    ("whole number with a point", "written with a fraction, so no integer", 42.0, None),
    ("true", "a boolean is no unit and never 1", True, None),
    ("null", "null is a missing attribute", None, None),
    ("list", "a list is no unit", ["user-1"], None),
    ("object", "an object is no unit", {"id": "user-1"}, None),
]

# name, why, group, flags, unit
DRAWS: Final[list[tuple[str, str, str, list[str], str]]] = [
    ("one flag", "a group of one owns every unit", "g", ["a"], "ada"),
    ("two flags", "the higher draw", "g", ["a", "b"], "ada"),
    ("three flags", "the same unit: a flag that joins takes only what it wins", "g", ["a", "b", "c"], "ada"),
    ("another unit", "each unit is drawn by itself", "g", ["a", "b", "c"], "bo"),
    ("the new flag wins", "this unit moves when c joins", "g", ["a", "b", "c"], "eve"),
    ("before it joined", "where it was without c", "g", ["a", "b"], "eve"),
    ("any order", "the order of the flags does not matter", "g", ["c", "a", "b"], "eve"),
    ("another group", "the group's name is part of the draw", "checkout", ["a", "b", "c"], "ada"),
    ("integer", "an integer is drawn by its digits", "g", ["a", "b", "c"], "42"),
    ("UTF-8", "group, flag and unit are UTF-8", "s\u00f8k", ["fl\u00e4che", "\u65e5\u672c"], "\U0001f600"),
    ("equal draws", "two keys with the same hash: the later key in code point order wins", "g",
     ["flag-124297", "flag-52012"], "user-1"),
]  # fmt: skip


def murmur3(raw: bytes) -> int:
    """Return MurmurHash3_x86_32 with seed 0, unsigned."""
    return mmh3.hash(raw, 0, signed=False)


def bucketing() -> Json:
    """Return the vectors of buckets, units and draws."""
    return {
        "$comment": [
            "How units fall into buckets, and which flag of an exclusion group a unit belongs to.",
            "Specification: docs/evaluation.md, 'Buckets' and 'Exclusion groups'.",
            "buckets: hash(purpose ':' salt ':' unit) gives `hash`; (hash * 100000) >> 32 gives `bucket`.",
            "surrogates: the same for text that is no valid Unicode, given by code points, as JSON cannot carry it.",
            "`bytes` is what is hashed, in hexadecimal. The hash is MurmurHash3_x86_32 with seed 0, unsigned.",
            "units: which values of an attribute are units, and the text that stands for them; null is none.",
            "draws: hash(group 1f flag 1f unit) for each flag (1f is one byte); the highest is `winner`.",
        ],
        "buckets": [
            {"name": name, "why": why, "purpose": purpose, "salt": salt, "unit": unit, **bucketed(purpose, salt, unit)}
            for name, why, purpose, salt, unit in BUCKETS
        ],
        "surrogates": [
            {"name": name, "why": why, "purpose": "rollout", "salt": "salt", "unit_code_points": points,
             **bucketed("rollout", "salt", "".join(map(chr, points)))}
            for name, why, points in SURROGATES
        ],
        "units": [{"name": name, "why": why, "value": value, "unit": unit} for name, why, value, unit in UNITS],
        "draws": [drawn(*case) for case in DRAWS],
    }  # fmt: skip


def bucketed(purpose: str, salt: str, unit: str) -> Json:
    """Work out what the formula gives."""
    raw = f"{purpose}:{salt}:{unit}".encode("utf-8", "surrogatepass")
    return {"bytes": raw.hex(), "hash": murmur3(raw), "bucket": murmur3(raw) * 100_000 >> 32}


def drawn(name: str, why: str, group: str, flags: list[str], unit: str) -> Json:
    """Work out the draws of a group."""
    draws = {flag: murmur3(b"\x1f".join(text.encode() for text in (group, flag, unit))) for flag in flags}
    highest = max(draws.values())
    winner = max(flag for flag, value in draws.items() if value == highest)
    return {
        "name": name, "why": why, "group": group, "flags": flags, "unit": unit, "draws": draws, "winner": winner
    }  # fmt: skip


# --- operators ----------------------------------------------------------------------------------------------------

MISSING: Final = object()
"""The attribute is not in the context."""

Row = tuple[str, Any, bool, str]
"""Name, the attribute's value, whether the clause holds, why."""


def clause(op: str, values: list[Any] | None, rows: Iterable[Row], *, fold_case: bool | None = None) -> list[Json]:
    """Return cases that ask one clause about several values of the attribute `a`."""
    when: Json = {"attribute": "a", "op": op}
    if values is not None:
        when["values"] = values
    if fold_case is not None:
        when["fold_case"] = fold_case
    return [
        case(f"{op}: {name}", why, when, {} if value is MISSING else {"a": value}, holds=holds)
        for name, value, holds, why in rows
    ]


def case(name: str, why: str, when: Json, context: Json, *, holds: bool) -> Json:
    """Return a case that asks any condition about any context."""
    return {"name": name, "why": why, "when": when, "context": context, "holds": holds}


IP = ["10.0.0.0/8", "2001:db8::/32"]

CONDITIONS: Final[list[Json]] = [
    # equality
    *clause("equals", ["DE", "AT"], [
        ("a listed text", "AT", True, "any value may equal"),
        ("another text", "CH", False, "none equals"),
        ("another case", "de", False, "texts are compared as they are"),
        ("part of a text", "DEU", False, "equality, not containment"),
        ("missing", MISSING, False, "a missing attribute matches nothing"),
        ("null", None, False, "null counts as missing"),
        ("empty text", "", False, "an empty text is a text"),
        ("object", {"DE": "DE"}, False, "an object is read by no operator"),
        ("list with it", ["FR", "DE"], True, "of a list any element may match"),
        ("list without it", ["FR", "CH"], False, "no element matches"),
        ("empty list", [], False, "no element matches"),
        ("list in a list", [["DE"]], False, "lists are looked into once"),
        ("list with other types", [1, None, {"a": 1}, "DE"], True, "elements that cannot be read do not match"),
    ]),
    *clause("equals", [1], [
        ("same integer", 1, True, "equal numbers"),
        ("same number with a point", 1.0, True, "numbers are compared by value"),
        ("text of the number", "1", False, "types are strict: a text is no number"),
        ("true is not 1", True, False, "a boolean is no number"),
        ("list with true", [True], False, "in lists neither"),
    ]),
    *clause("equals", [0], [
        ("negative zero", -0.0, True, "-0.0 and 0 are the same number"),
        ("false is not 0", False, False, "a boolean is no number"),
        ("empty text is not 0", "", False, "nothing is coerced"),
    ]),
    *clause("equals", [True], [
        ("true", True, True, "equal booleans"),
        ("false", False, False, "another boolean"),
        ("1 is not true", 1, False, "a number is no boolean"),
        ("text true is not true", "true", False, "a text is no boolean"),
    ]),
    *clause("equals", ["1", 2, False], [
        ("values of several types: text", "1", True, "each value keeps its type"),
        ("values of several types: number", 2, True, "each value keeps its type"),
        ("values of several types: boolean", False, True, "each value keeps its type"),
        ("values of several types: wrong one", 1, False, "'1' is a text"),
    ]),
    *clause("equals", [9007199254740993], [
        ("large integer", 9007199254740993, True, "integers of 64 bits are exact"),
        ("its neighbour", 9007199254740992, False, "2^53 + 1 is not rounded to 2^53"),
    ]),
    *clause("equals", ["Stra\u00dfe"], [
        ("folded: capitals", "STRASSE", True, "full case folding: sharp s folds to ss"),
        ("folded: small", "strasse", True, "both sides are folded"),
        ("folded: another", "strase", False, "folded texts differ"),
    ], fold_case=True),
    *clause("equals", ["DE"], [
        ("fold_case false", "de", False, "false is the same as absent"),
    ], fold_case=False),
    *clause("equals", [1, True], [
        ("fold_case and a number", 1, True, "folding touches texts only"),
        ("fold_case and a boolean", True, True, "folding touches texts only"),
    ], fold_case=True),
    *clause("equals", [], [
        ("no values", "x", False, "nothing can equal"),
    ]),
    *clause("not_equals", ["DE"], [
        ("another text", "CH", True, "it differs"),
        ("the text", "DE", False, "it equals"),
        ("missing", MISSING, False, "a missing attribute matches nothing, negated operators included"),
        ("null", None, False, "null counts as missing"),
        ("a number", 1, True, "equality reads numbers, and 1 differs"),
        ("a boolean", False, True, "equality reads booleans, and false differs"),
        ("object", {}, False, "what equality cannot read matches neither form"),
        ("list without it", ["CH", "FR"], True, "every element must differ"),
        ("list with it", ["CH", "DE"], False, "one element equals"),
        ("list with an object", ["CH", {}], False, "every element must be readable"),
        ("list with null", ["CH", None], False, "every element must be readable"),
        ("empty list", [], True, "every one of no elements differs"),
    ]),
    *clause("not_equals", ["DE"], [
        ("folded", "de", False, "equal after folding"),
    ], fold_case=True),
    *clause("not_equals", [], [
        ("no values", "x", True, "it differs from nothing"),
        ("no values and missing", MISSING, False, "missing still matches nothing"),
    ]),
    *clause("in", ["a", 1], [
        ("member", "a", True, "the same as equals"),
        ("number", 1.0, True, "numbers by value"),
        ("not a member", "b", False, "the same as equals"),
        ("true is not 1", True, False, "types are strict"),
    ]),
    *clause("not_in", ["a", 1], [
        ("not a member", "b", True, "the same as not_equals"),
        ("member", 1, False, "the same as not_equals"),
        ("missing", MISSING, False, "missing matches nothing"),
        ("list", ["b", "c"], True, "every element is outside"),
        ("list with a member", ["b", "a"], False, "one element is inside"),
    ]),
    # texts
    *clause("contains", ["@example.", "+test"], [
        ("one of them", "ada@example.com", True, "any value may occur"),
        ("none of them", "ada@other.com", False, "none occurs"),
        ("another case", "ada@EXAMPLE.com", False, "case-sensitive"),
        ("number", 1, False, "text operators read texts only"),
        ("list", ["x", "a+test"], True, "any element"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("contains", [""], [
        ("empty value", "x", True, "the empty text occurs in every text"),
        ("empty value in empty text", "", True, "the empty text occurs in every text"),
    ]),
    *clause("contains", [], [
        ("no values", "x", False, "nothing can occur"),
    ]),
    *clause("contains", ["\u00c4RZ"], [
        ("folded", "M\u00e4rz", True, "folding is for all of Unicode"),
    ], fold_case=True),
    *clause("not_contains", ["bot"], [
        ("without it", "browser", True, "it does not occur"),
        ("with it", "robot", False, "it occurs"),
        ("missing", MISSING, False, "missing matches nothing"),
        ("number", 1, False, "what is no text matches neither form"),
        ("list, all without", ["a", "b"], True, "every element lacks it"),
        ("list, one with", ["a", "bot"], False, "one element has it"),
        ("list with a number", ["a", 1], False, "every element must be readable"),
    ]),
    *clause("starts_with", ["int-", "ext-"], [
        ("one of them", "ext-7", True, "any value may be the start"),
        ("in the middle", "my-int-7", False, "only the start counts"),
        ("another case", "INT-7", False, "case-sensitive"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("starts_with", ["int-"], [
        ("folded", "INT-7", True, "both sides are folded"),
    ], fold_case=True),
    *clause("not_starts_with", ["int-"], [
        ("another start", "ext-7", True, "it starts otherwise"),
        ("this start", "int-7", False, "it starts with it"),
        ("boolean", True, False, "what is no text matches neither form"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("ends_with", [".test", ".local"], [
        ("one of them", "db.local", True, "any value may be the end"),
        ("at the start", ".local.db", False, "only the end counts"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("ends_with", [".TEST"], [
        ("folded", "db.test", True, "both sides are folded"),
    ], fold_case=True),
    *clause("not_ends_with", [".test"], [
        ("another end", "db.prod", True, "it ends otherwise"),
        ("this end", "db.test", False, "it ends with it"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    # patterns
    *clause("matches", ["b+c"], [
        ("inside", "abbcd", True, "the pattern is searched for, not anchored"),
        ("not inside", "abd", False, "it occurs nowhere"),
        ("another case", "ABBC", False, "case-sensitive"),
        ("number", 7, False, "patterns read texts only"),
        ("list", ["x", "bc"], True, "any element"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("matches", ["^a.c$"], [
        ("anchored", "abc", True, "^ and $ are the ends of the text"),
        ("more before", "xabc", False, "^ is the start"),
        ("line feed for a point", "a\nc", False, "the point is any character but a line feed"),
        ("line feed at the end", "abc\n", False, "$ is the very end, not the place before a last line feed"),
        ("second line", "x\nabc", False, "^ is not the start of a line"),
        ("one character of several bytes", "a\u00e9c", True, "the point is a character, not a byte"),
    ]),
    *clause("matches", ["^\\d$"], [
        ("digit", "7", True, "0 to 9"),
        ("other digit", "\u0663", False, "\\d, \\w and \\s are ASCII"),
    ]),
    *clause("matches", ["^x", "y$"], [
        ("second of two", "ay", True, "any pattern may be found"),
        ("neither", "ax", False, "none is found"),
    ]),
    *clause("matches", ["^\u00c4.*z$"], [
        ("folded", "\u00e4rZ", True, "fold_case makes the pattern case-insensitive"),
    ], fold_case=True),
    *clause("matches", ["x$"], [
        ("beyond 1,024 bytes", "a" * 1024 + "x", False, "only the first 1,024 bytes are searched"),
        ("at 1,024 bytes", "a" * 1023 + "x", True, "all 1,024 bytes are searched"),
        ("end of what is searched", "a" * 1023 + "xy", True, "$ is the end of what is searched"),
    ]),
    # numbers
    *clause("gt", [10], [
        ("greater", 10.5, True, "10.5 > 10"),
        ("equal", 10, False, "not greater"),
        ("numeric text", "11", True, "a text that is one JSON number is read"),
        ("text with exponent", "1.1e1", True, "an exponent is part of a JSON number"),
        ("text with a plus", "+11", False, "JSON numbers have no plus"),
        ("text with a leading zero", "011", False, "JSON numbers have no leading zero"),
        ("text with a blank", " 11", False, "nothing is trimmed"),
        ("text ending in a point", "11.", False, "a point needs digits after it"),
        ("text starting with a point", ".5e3", False, "a point needs a digit before it"),
        ("hexadecimal text", "0xff", False, "no JSON number"),
        ("infinite text", "1e999", False, "beyond a double: cannot be read"),
        ("word", "many", False, "cannot be read, and never counts as 0"),
        ("empty text", "", False, "cannot be read"),
        ("text of 65 characters", "1" * 65, False, "a numeric text has 64 characters at most"),
        ("text of 64 characters", "1" * 64, True, "64 characters are read"),
        ("true", True, False, "a boolean is no number"),
        ("list", [1, 11], True, "any element"),
        ("missing", MISSING, False, "missing never counts as 0"),
    ]),
    *clause("gt", ["10", 100], [
        ("several values", 11, True, "greater than any of them"),
    ]),
    *clause("gt", [], [
        ("no values", 1, False, "nothing to be greater than"),
    ]),
    *clause("gt", [9007199254740992], [
        ("beyond 2^53", 9007199254740993, True, "integers are compared exactly"),
        ("text beyond 2^53", "9007199254740993", True, "a text without fraction and exponent is an integer"),
        ("text with a fraction beyond 2^53", "9007199254740993.0", False, "with a fraction it is a double"),
    ]),
    *clause("gte", [10], [
        ("equal", 10.0, True, "10.0 >= 10"),
        ("less", 9.99, False, "less"),
        ("missing", MISSING, False, "missing never counts as 0"),
    ]),
    *clause("lt", [10], [
        ("less", -3, True, "-3 < 10"),
        ("equal", 10, False, "not less"),
        ("word", "few", False, "cannot be read, and never counts as 0"),
        ("missing", MISSING, False, "missing never counts as 0"),
    ]),
    *clause("lt", [10, 20], [
        ("several values", 15, True, "less than any of them"),
    ]),
    *clause("lte", [10], [
        ("equal", "10", True, "the text is 10"),
        ("greater", 10.01, False, "greater"),
    ]),
    *clause("between", [1, "10"], [
        ("lower end", 1, True, "both ends belong to the range"),
        ("upper end", 10, True, "both ends belong to the range"),
        ("inside", "5.5", True, "numeric texts are read"),
        ("below", 0.999, False, "outside"),
        ("above", 11, False, "outside"),
        ("list", [0, 5], True, "any element"),
        ("list around it", [0, 20], False, "no single element is inside"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    # versions
    *clause("semver_eq", ["1.2.3"], [
        ("leading v", "v1.2.3", True, "a leading v is dropped"),
        ("leading V", "V1.2.3", False, "a capital V is not"),
        ("build", "1.2.3+build.7", True, "build metadata does not count"),
        ("pre-release", "1.2.3-rc.1", False, "a pre-release is another version"),
        ("four parts", "1.2.3.4", False, "no semantic version"),
        ("leading zero", "1.02.3", False, "no semantic version"),
        ("blank", "1.2.3 ", False, "nothing is trimmed"),
        ("number", 1.2, False, "versions are texts"),
        ("list", ["0.1", "1.2.3"], True, "any element"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("semver_eq", ["2"], [
        ("missing parts", "2.0.0", True, "missing parts are 0"),
        ("one part missing", "2.0", True, "missing parts are 0"),
        ("integer", 2, False, "versions are texts"),
    ]),
    *clause("semver_eq", ["1.2-rc.1"], [
        ("missing part before a pre-release", "1.2.0-rc.1", True, "missing parts are 0 there too"),
    ]),
    *clause("semver_eq", ["1.0.0", "2.0.0"], [
        ("second value", "2", True, "any value"),
    ]),
    *clause("semver_gt", ["1.9.0"], [
        ("by number, not by text", "1.10.0", True, "10 > 9"),
        ("equal", "1.9.0", False, "not greater"),
        ("no version", "latest", False, "cannot be read"),
        ("257 characters", "2.0.0-" + "a" * 251, False, "a version has 256 characters at most"),
        ("256 characters", "2.0.0-" + "a" * 250, True, "256 characters are read"),
    ]),
    *clause("semver_gte", ["2.0.0"], [
        ("pre-release", "2.0.0-rc.1", False, "a pre-release comes before its release"),
        ("release", "2.0.0", True, "equal"),
    ]),
    *clause("semver_lt", ["2.0.0"], [
        ("pre-release", "2.0.0-rc.1", True, "a pre-release comes before its release"),
        ("release", "v2", False, "equal"),
    ]),
    *clause("semver_lte", ["2.0.0"], [
        ("release", "2.0.0+exp", True, "equal"),
        ("later", "2.0.1-alpha", False, "later"),
    ]),
    # moments
    *clause("before", ["2026-01-01T00:00:00Z"], [
        ("the moment itself", "2026-01-01T00:00:00Z", False, "exclusive"),
        ("a millisecond before", "2025-12-31T23:59:59.999Z", True, "earlier"),
        ("finer digits are cut", "2025-12-31T23:59:59.9999Z", True, "cut to .999, not rounded up"),
        ("offset east", "2026-01-01T01:00:00+01:30", True, "23:30 on the day before, in UTC"),
        ("offset west", "2025-12-31T23:00:00-02:00", False, "01:00 on the day, in UTC"),
        ("small letters", "2025-06-01t00:00:00z", True, "t and z may be small"),
        ("epoch milliseconds", 1767225599999, True, "one millisecond before"),
        ("epoch milliseconds with a fraction", 1767225599999.5, True, "half a millisecond before"),
        ("numeric text", "1767225599999", False, "a text is read as RFC 3339 only"),
        ("date alone", "2025-06-01", False, "no RFC 3339 date-time"),
        ("no offset", "2025-06-01T00:00:00", False, "an offset is needed"),
        ("blank for T", "2025-06-01 00:00:00Z", False, "T is needed"),
        ("no seconds", "2025-06-01T00:00Z", False, "seconds are needed"),
        ("hour 24", "2025-06-01T24:00:00Z", False, "no such hour"),
        ("30 February", "2025-02-30T00:00:00Z", False, "no such day"),
        ("29 February of a leap year", "2024-02-29T00:00:00Z", True, "this day exists"),
        ("29 February of another year", "2025-02-29T00:00:00Z", False, "this one does not"),
        ("second 61", "2025-06-01T00:00:61Z", False, "no such second"),
        ("ten digits of fraction", "2025-06-01T00:00:00.0123456789Z", False, "at most nine are read"),
        ("offset of 24 hours", "2025-06-01T00:00:00+24:00", False, "no such offset"),
        ("unknown local offset", "2025-06-01T00:00:00-00:00", True, "-00:00 is UTC"),
        ("true", True, False, "a boolean is no moment"),
        ("list", ["2027-01-01T00:00:00Z", "2025-01-01T00:00:00Z"], True, "any element"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("before", [0, "2026-01-01T00:00:00Z"], [
        ("several values", "2025-06-01T00:00:00Z", True, "before any of them"),
    ]),
    *clause("before", [0], [
        ("before the epoch", "1969-12-31T23:59:59.999Z", True, "moments before 1970 are negative"),
        ("negative milliseconds", -1, True, "numbers may be negative"),
    ]),
    *clause("after", ["2016-12-31T23:59:60Z"], [
        ("leap second: midnight", "2017-01-01T00:00:00Z", False, "second 60 is the next minute's second 0"),
        ("leap second: after it", "2017-01-01T00:00:00.001Z", True, "later"),
        ("leap second: second 59", "2016-12-31T23:59:59.999Z", False, "earlier"),
    ]),
    *clause("after", [1767225600000], [
        ("the moment itself", 1767225600000, False, "exclusive"),
        ("second 60 at any minute", "2026-06-15T12:34:60Z", True, "not checked against the list of leap seconds"),
        ("one digit of fraction", "2026-01-01T00:00:00.1Z", True, ".1 is 100 milliseconds"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    # networks
    *clause("in_cidr", IP, [
        ("IPv4 inside", "10.200.3.4", True, "the first 8 bits are equal"),
        ("IPv4 outside", "11.0.0.1", False, "they differ"),
        ("IPv6 inside", "2001:db8:1::7", True, "the first 32 bits are equal"),
        ("IPv6 in full", "2001:0DB8:0000:0000:0000:0000:0000:0001", True, "the form does not matter"),
        ("IPv6 outside", "2001:db9::1", False, "they differ"),
        ("IPv4 in IPv6", "::ffff:10.1.2.3", True, "a mapped address is the IPv4 one"),
        ("IPv4 in IPv6, hexadecimal", "::ffff:a01:203", True, "the form does not matter"),
        ("IPv4 in the compatible form", "::10.1.2.3", False, "only ::ffff:0:0/96 is mapped"),
        ("zone", "2001:db8::1%eth0", True, "the zone does not count"),
        ("leading zero", "010.0.0.1", False, "no address: it may be octal"),
        ("with a port", "10.0.0.1:443", False, "no address"),
        ("with a prefix", "10.0.0.1/32", False, "an attribute is an address, not a network"),
        ("short", "10.1", False, "no address"),
        ("blank", " 10.0.0.1", False, "nothing is trimmed"),
        ("number", 167772161, False, "addresses are texts"),
        ("list", ["192.0.2.1", "10.0.0.1"], True, "any element"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    *clause("in_cidr", ["10.1.2.3/8"], [
        ("host bits", "10.9.9.9", True, "host bits of a network are ignored"),
    ]),
    *clause("in_cidr", ["192.0.2.7"], [
        ("single address", "192.0.2.7", True, "a network without a prefix is one address"),
        ("its neighbour", "192.0.2.8", False, "one address only"),
    ]),
    *clause("in_cidr", ["192.0.2.0/255.255.255.0"], [
        ("netmask", "192.0.2.99", True, "a netmask may stand for the prefix"),
    ]),
    *clause("in_cidr", ["::ffff:10.0.0.0/104"], [
        ("mapped network", "10.1.2.3", True, "a mapped network of /96 or longer is the IPv4 one"),
    ]),
    *clause("in_cidr", ["::/0"], [
        ("all of IPv6, and IPv4", "10.1.2.3", False, "the versions differ"),
        ("all of IPv6, and mapped IPv4", "::ffff:10.1.2.3", False, "a mapped address is an IPv4 one"),
        ("all of IPv6", "2001:db8::1", True, "the prefix of no bits"),
    ]),
    *clause("in_cidr", ["0.0.0.0/0"], [
        ("all of IPv4", "255.255.255.255", True, "the prefix of no bits"),
        ("all of IPv4, and IPv6", "::1", False, "the versions differ"),
    ]),
    *clause("not_in_cidr", IP, [
        ("outside", "192.0.2.1", True, "in neither network"),
        ("inside", "10.0.0.1", False, "in one"),
        ("mapped inside", "::ffff:10.0.0.1", False, "in one"),
        ("no address", "localhost", False, "what cannot be read matches neither form"),
        ("missing", MISSING, False, "missing matches nothing"),
        ("list, all outside", ["192.0.2.1", "::1"], True, "every element is outside"),
        ("list with no address", ["192.0.2.1", "x"], False, "every element must be readable"),
    ]),
    # presence
    *clause("exists", None, [
        ("there", "x", True, "it is there"),
        ("false", False, True, "false is a value"),
        ("zero", 0, True, "0 is a value"),
        ("empty text", "", True, "an empty text is a value"),
        ("empty list", [], True, "an empty list is a value"),
        ("null", None, False, "null counts as missing"),
        ("missing", MISSING, False, "it is missing"),
    ]),
    *clause("not_exists", None, [
        ("missing", MISSING, True, "it is missing"),
        ("null", None, True, "null counts as missing"),
        ("there", "x", False, "it is there"),
    ]),
    # buckets: the salt of a rule's percentage_of is the rule's id, here "r1"; ada is in bucket 2168 and bo in 62289
    *clause("percentage_of", [2168], [
        ("at the bound", "ada", False, "a bucket must lie below the share"),
    ]),
    *clause("percentage_of", [2169], [
        ("below the bound", "ada", True, "2168 < 2169"),
        ("far above", "bo", False, "62289 is not below"),
    ]),
    *clause("percentage_of", [0], [
        ("nobody", "ada", False, "no bucket lies below 0"),
    ]),
    *clause("percentage_of", [100000], [
        ("everybody", "bo", True, "every bucket lies below 100,000"),
        ("integer", 42, True, "an integer is a unit"),
        ("boolean", True, False, "a boolean is no unit"),
        ("empty text", "", False, "an empty text is no unit"),
        ("list", ["ada"], False, "a list is no unit, and is not looked into"),
        ("missing", MISSING, False, "missing matches nothing"),
    ]),
    # combinations
    case("all: none", "of nothing all holds", {"all": []}, {}, holds=True),
    case("any: none", "of nothing nothing holds", {"any": []}, {}, holds=False),
    case("not: missing", "unlike not_equals, a plain negation holds for a missing attribute",
         {"not": {"attribute": "a", "op": "equals", "values": ["x"]}}, {}, holds=True),
    case("all: both", "both hold", {"all": [{"attribute": "a", "op": "exists"}, {"attribute": "b", "op": "exists"}]},
         {"a": 1, "b": 1}, holds=True),
    case("all: one", "one does not hold",
         {"all": [{"attribute": "a", "op": "exists"}, {"attribute": "b", "op": "exists"}]}, {"a": 1}, holds=False),
    case("any: one", "one holds",
         {"any": [{"attribute": "a", "op": "exists"}, {"attribute": "b", "op": "exists"}]}, {"b": 1}, holds=True),
    case("any: or missing", "how to say 'not DE, or unknown'",
         {"any": [{"attribute": "a", "op": "not_exists"}, {"attribute": "a", "op": "not_equals", "values": ["DE"]}]},
         {}, holds=True),
    # paths
    case("path: nested", "a path with dots leads into objects",
         {"attribute": "user.plan.name", "op": "equals", "values": ["pro"]},
         {"user": {"plan": {"name": "pro"}}}, holds=True),
    case("path: literal first", "a member named by the whole path goes before nesting",
         {"attribute": "user.plan", "op": "equals", "values": ["literal"]},
         {"user.plan": "literal", "user": {"plan": "nested"}}, holds=True),
    case("path: literal null", "the literal member is there, so nesting is not tried; and null is missing",
         {"attribute": "user.plan", "op": "exists"}, {"user.plan": None, "user": {"plan": "nested"}}, holds=False),
    case("path: partly literal", "the path is taken whole or step by step, nothing between",
         {"attribute": "a.b.c", "op": "exists"}, {"a.b": {"c": 1}}, holds=False),
    case("path: through a text", "only objects have members",
         {"attribute": "user.plan", "op": "exists"}, {"user": "plan"}, holds=False),
    case("path: through a list", "lists are not indexed",
         {"attribute": "user.0", "op": "exists"}, {"user": ["a"]}, holds=False),
    case("path: empty step", "an empty name is a name like any other",
         {"attribute": "a.", "op": "equals", "values": [1]}, {"a": {"": 1}}, holds=True),
    case("path: unit", "targetingKey is an attribute too",
         {"attribute": "targetingKey", "op": "starts_with", "values": ["staff-"]},
         {"targetingKey": "staff-7"}, holds=True),
]  # fmt: skip

NUMERIC: Final = {"lt": "lt", "lte": "lte", "gt": "gt", "gte": "gte", "eq": None}
SEMVER: Final = {"lt": "semver_lt", "lte": "semver_lte", "gt": "semver_gt", "gte": "semver_gte", "eq": "semver_eq"}
MOMENTS: Final = {"lt": "before", "lte": None, "gt": "after", "gte": None, "eq": None}

ORDERS: Final[list[Json]] = [
    {
        "name": "SemVer 2.0 precedence",
        "why": "numeric identifiers by number and below others, fewer identifiers below more, pre-releases first",
        "operators": SEMVER,
        "ascending": [
            ["0.0.0-0", "0-0"],
            ["0", "v0.0", "0.0.0+build"],
            ["0.9.10"],
            ["1.0.0-0"],
            ["1.0.0-2"],
            ["1.0.0-10"],
            ["1.0.0--"],
            ["1.0.0-1a"],
            ["1.0.0-A"],
            ["1.0.0-alpha", "v1-alpha", "1.0-alpha+001"],
            ["1.0.0-alpha.1"],
            ["1.0.0-alpha.1.0"],
            ["1.0.0-alpha.beta"],
            ["1.0.0-beta"],
            ["1.0.0-beta.2"],
            ["1.0.0-beta.11"],
            ["1.0.0-rc.1"],
            ["1.0.0", "1", "v1.0", "1.0.0+20130313144700"],
            ["1.2.9"],
            ["1.10.0"],
            ["2.0.0"],
            ["18446744073709551616.0.0"],
        ],
    },
    {
        "name": "numbers and numeric texts",
        "why": "by value, whatever their form",
        "operators": NUMERIC,
        "ascending": [
            ["-1e3", -1000],
            [-1.5, "-1.5"],
            [0, -0.0, "0", "-0", "0.0"],
            [0.1, "1e-1", "0.10"],
            [1, 1.0, "1", "1.0"],
            [9, "9"],
            [10, "10", "1E1", "1e+1"],
            [9007199254740992],
            [9007199254740993, "9007199254740993"],
            [18446744073709551615],
        ],
    },
    {
        "name": "moments",
        "why": "by milliseconds since 1970 in UTC; finer digits are cut",
        "operators": MOMENTS,
        "ascending": [
            ["0001-01-01T00:00:00Z"],
            ["1969-12-31T23:59:59Z", -1000],
            [0, "1970-01-01T00:00:00Z", "1970-01-01T05:30:00+05:30", "1969-12-31T16:00:00-08:00"],
            ["1970-01-01T00:00:00.001Z", 1, "1970-01-01T00:00:00.0019Z", 1.0],
            [1.5],
            ["1970-01-01T00:00:00.01Z", 10],
            ["1970-01-01T00:00:00.1Z", 100],
            ["2016-12-31T23:59:59.999Z", 1483228799999],
            ["2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", 1483228800000],
            ["9999-12-31T23:59:59.999999999Z", 253402300799999],
        ],
    },
]

ALIASES: Final[dict[str, str]] = {
    "eq": "equals",
    "neq": "not_equals",
    "nin": "not_in",
    "notIn": "not_in",
    "startsWith": "starts_with",
    "endsWith": "ends_with",
    "regex": "matches",
    "matches_regex": "matches",
    "before_date": "before",
    "after_date": "after",
}


def refused(name: str, why: str, op: str, *values: Any, **more: Any) -> Json:
    """Return a condition that cannot be meant."""
    return {"name": name, "why": why, "when": {"attribute": "a", "op": op, "values": list(values), **more}}


REFUSED_CONDITIONS: Final[list[Json]] = [
    refused("equals null", "a value is a text, a number or a boolean", "equals", None),
    refused("equals list", "a value is a text, a number or a boolean", "in", ["a"]),
    refused("contains number", "text operators take texts", "contains", 1),
    refused("gt word", "number operators take numbers and numeric texts", "gt", "many"),
    refused("gt boolean", "a boolean is no number", "gt", *[True]),
    refused("gt infinite", "beyond a double", "gt", "1e999"),
    refused("between one", "a range has two ends", "between", 1),
    refused("between three", "a range has two ends", "between", 1, 2, 3),
    refused("between reversed", "the lower end stands first", "between", 10, 1),
    refused("semver word", "no semantic version", "semver_eq", "latest"),
    refused("semver leading zero", "no semantic version", "semver_gt", "01.0.0"),
    refused("before date", "an offset and a time are needed", "before", "2026-01-01"),
    refused("in_cidr word", "no network", "in_cidr", "localhost"),
    refused("in_cidr prefix", "an IPv4 prefix has 32 bits at most", "in_cidr", "10.0.0.0/33"),
    refused("pattern with lookahead", "RE2 has none", "matches", "(?=a)"),
    refused("pattern with backreference", "RE2 has none", "matches", "(a)\\1"),
    refused("pattern of 513 characters", "512 at most", "matches", "a" * 513),
    refused("pattern that costs too much", "repetitions multiply", "matches", "(.{1,100}){10}Q"),
    refused("pattern that is a number", "a pattern is a text", "matches", 1),
    refused("share of 100,001", "0 to 100,000", "percentage_of", 100_001),
    refused("share with a fraction", "whole thousandths of a percent", "percentage_of", 0.5),
    refused("two shares", "one share", "percentage_of", 1, 2),
    refused("fold_case text", "true or false", "equals", "a", fold_case="yes"),
    {"name": "no attribute", "why": "a clause has an attribute", "when": {"op": "equals", "values": ["a"]}},
    {"name": "empty attribute", "why": "a path is not empty", "when": {"attribute": "", "op": "exists"}},
    {"name": "values absent", "why": "a clause has values", "when": {"attribute": "a", "op": "equals"}},
    {"name": "two forms", "why": "exactly one of all, any, not, op, segment", "when": {"all": [], "any": []}},
    {"name": "no form", "why": "exactly one of all, any, not, op, segment", "when": {"attribute": "a"}},
    {"name": "list", "why": "a condition is an object", "when": []},
]


def operators() -> Json:
    """Return the vectors of conditions."""
    return {
        "$comment": [
            "Which conditions hold for which contexts.",
            "Specification: docs/evaluation.md, 'Conditions' and 'Operators'.",
            "conditions: a rule with the id 'r1' and the condition `when` matches `context` just if `holds` is true.",
            "orders: `ascending` lists classes of equal values; every two values, one as the operator's argument and",
            "one as the attribute, must compare as their places say; a null operator does not exist.",
            "aliases: names that are accepted where rules are written; a configuration holds the canonical ones only.",
            "refused: conditions that cannot be meant; the flag that contains one is refused as a whole.",
            "Integers reach up to 64 bits and must be read exactly.",
        ],
        "conditions": CONDITIONS,
        "orders": ORDERS,
        "aliases": ALIASES,
        "refused": REFUSED_CONDITIONS,
    }


# --- evaluations --------------------------------------------------------------------------------------------------

START: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z in epoch milliseconds."""
HOUR: Final = 3_600_000
ON: Final = {"variation": "on"}
OFF: Final = {"variation": "off"}
HALF: Final = {"split": {"weights": [["on", 50_000], ["off", 50_000]]}}
# Buckets under the salt "salt": ada 14005, bo 20646, cleo 80812, dan 42725, eve 5896.
RAMP: Final = {
    "ramp": {"to": "on", "else": "off", "start_at": "2026-01-01T00:00:00Z", "increment": 25_000, "every_s": 3600,
             "target": 60_000, "by": "targetingKey"}
}  # fmt: skip
EXPECTED: Final[Json] = dict.fromkeys(
    ("value", "variation", "reason", "rule_id", "rule_index", "error_code", "blocked_by", "experiment")
)
NO_VALUE: Final[Json] = {"value": None, "variation": None}
SERVED_ON: Final[Json] = {"value": True, "variation": "on"}
SERVED_OFF: Final[Json] = {"value": False, "variation": "off"}


def flag(**changes: Any) -> Json:
    """Return a boolean flag that is on for everybody, with some members changed."""
    return {
        "id": "f",
        "type": "boolean",
        "version": 1,
        "salt": "salt",
        "enabled": True,
        "variations": [{"key": "on", "value": True}, {"key": "off", "value": False}],
        "off": "off",
        "fallthrough": ON,
        **changes,
    }


def without(obj: Json, *names: str) -> Json:
    """Return an object without some of its members."""
    return {name: value for name, value in obj.items() if name not in names}


def rule(rule_id: str, when: Json, serve: Json) -> Json:
    """Return a rule."""
    return {"id": rule_id, "when": when, "serve": serve}


def equals(attribute: str, *values: Any) -> Json:
    """Return a clause."""
    return {"attribute": attribute, "op": "equals", "values": list(values)}


def segment(**changes: Any) -> Json:
    """Return a segment without members, with some members changed."""
    return {"version": 1, "include": [], "exclude": [], **changes}


def asked(
    name: str, why: str, key: str, context: Any, reason: str, *more: Json, now: int = START, **other: Any
) -> Json:
    """Return a case: the flag and the context that are asked about, and the answer."""
    expected: Json = {**EXPECTED, "reason": reason}
    for part in more:
        expected |= part
    return {
        "name": name, "why": why, "flag": key, "context": context, "now": now, "expected": {**expected, **other}
    }  # fmt: skip


def error(code: str, served: Json) -> Json:
    """Return what an answer with an error has."""
    return {**served, "error_code": code}


ADA: Final = {"targetingKey": "ada"}
BO: Final = {"targetingKey": "bo"}
CLEO: Final = {"targetingKey": "cleo"}
DAN: Final = {"targetingKey": "dan"}
EVE: Final = {"targetingKey": "eve"}


def world(name: str, flags: Json, cases: list[Json], segments: Json | None = None) -> Json:
    """Return a small environment with what is asked about it."""
    return {"name": name, "flags": flags, "segments": segments or {}, "cases": cases}


def chain(length: int) -> Json:
    """Return flags of which each requires the next, that many steps long."""
    needing = {f"f{step}": flag(prerequisites=[{"flag": f"f{step + 1}"}]) for step in range(length)}
    return {**needing, f"f{length}": flag()}


def nested(length: int) -> Json:
    """Return segments of which each stands in the one before, that many steps long; whoever has `a` is in the last."""
    inside = {f"s{step}": segment(when={"segment": f"s{step + 1}"}) for step in range(length)}
    return {**inside, f"s{length}": segment(when={"attribute": "a", "op": "exists"})}


def deep(levels: int) -> Json:
    """Return conditions inside conditions."""
    when: Json = equals("a", 1)
    for _ in range(levels - 1):
        when = {"not": when}
    return when


WORLDS: Final[list[Json]] = [
    world("switch", {
        "on": flag(),
        "switched-off": flag(enabled=False, rules=[rule("r1", {"all": []}, ON)],
                             targets=[{"variation": "on", "units": ["ada"]}]),
        "code-default": without(flag(enabled=False), "off"),
        "code-default-null": flag(enabled=False, off=None),
        "code-default-on": flag(off=None),
        "no-context-no-off": flag(off=None),
    }, [
        asked("nothing but a fallthrough", "no rules, no targets, no split: STATIC", "on", {}, "STATIC", SERVED_ON),
        asked("unknown flag", "no value at all", "no-such", {}, "ERROR", error("FLAG_NOT_FOUND", NO_VALUE)),
        asked("switched off", "the switch goes before targets and rules", "switched-off", ADA, "DISABLED", SERVED_OFF),
        asked("no off variation", "the default in the caller's code holds", "code-default", {}, "DISABLED", NO_VALUE),
        asked("off is null", "null is the same as absent", "code-default-null", {}, "DISABLED", NO_VALUE),
        asked("on without off", "off does not matter while it is not served", "code-default-on", {}, "STATIC",
              SERVED_ON),
        asked("context is a list", "a context is an object", "on", ["ada"], "ERROR",
              error("INVALID_CONTEXT", SERVED_OFF)),
        asked("context is null", "a context is an object", "on", None, "ERROR", error("INVALID_CONTEXT", SERVED_OFF)),
        asked("context is a text, no off", "the code's default holds", "no-context-no-off", "ada", "ERROR",
              error("INVALID_CONTEXT", NO_VALUE)),
        asked("unknown flag, no context", "the flag is looked for first", "no-such", 1, "ERROR",
              error("FLAG_NOT_FOUND", NO_VALUE)),
        asked("switched off, no context", "the context is checked before the switch", "switched-off", [], "ERROR",
              error("INVALID_CONTEXT", SERVED_OFF)),
    ]),
    world("types", {
        "text": flag(type="string", variations=[{"key": "a", "value": ""}, {"key": "b", "value": "b"}], off="b",
                     fallthrough={"variation": "a"}),
        "whole": flag(type="number", variations=[{"key": "a", "value": 1.0}, {"key": "b", "value": 2}], off="b",
                      number_format="integer", fallthrough={"variation": "a"}),
        "float": flag(type="number", variations=[{"key": "a", "value": 1}, {"key": "b", "value": 2}], off="b",
                      number_format="float", fallthrough={"variation": "a"}),
        "object": flag(type="json", variations=[{"key": "a", "value": {"x": [1, None]}}, {"key": "b", "value": []}],
                       off="b", fallthrough={"variation": "a"}),
        "code-default": flag(enabled=False, off=None),
    }, [
        asked("empty text", "an empty text is a value", "text", {}, "STATIC", {"value": "", "variation": "a"}),
        asked("integer format", "1.0 is served as the integer 1", "whole", {}, "STATIC",
              {"value": 1, "variation": "a"}),
        asked("float format", "1 is served as the float 1.0", "float", {}, "STATIC", {"value": 1.0, "variation": "a"}),
        asked("object", "json values are objects and lists, with anything inside", "object", {}, "STATIC",
              {"value": {"x": [1, None]}, "variation": "a"}),
        asked("typed getter, other type", "a getter of another type gets no value", "text", {}, "ERROR",
              error("TYPE_MISMATCH", NO_VALUE)) | {"getter": "boolean"},
        asked("typed getter, same type", "the answer as it is", "text", {}, "STATIC",
              {"value": "", "variation": "a"}) | {"getter": "string"},
        asked("typed getter, no value", "the code's default has the getter's type", "code-default", {}, "DISABLED",
              NO_VALUE) | {"getter": "number"},
        asked("typed getter, error", "an error stays what it is", "no-such", {}, "ERROR",
              error("FLAG_NOT_FOUND", NO_VALUE)) | {"getter": "number"},
    ]),
    world("targets and rules", {
        "f": flag(fallthrough=OFF, targets=[{"variation": "on", "units": ["ada", 42]},
                                            {"variation": "off", "units": ["ada", "bo"]}],
                  rules=[rule("r1", equals("country", "DE"), OFF), rule("r2", equals("country", "DE", "AT"), ON)]),
        "only-targets": flag(targets=[{"variation": "off", "units": ["ada"]}]),
        "empty-targets": flag(targets=[{"variation": "off", "units": []}], rules=[]),
    }, [
        asked("target", "a named unit gets its variation, whatever the rules say", "f",
              {"targetingKey": "ada", "country": "DE"}, "TARGET_MATCH", SERVED_ON),
        asked("named twice", "of two variations the first in the list", "f", ADA, "TARGET_MATCH", SERVED_ON),
        asked("second target", "each variation has its units", "f", BO, "TARGET_MATCH", SERVED_OFF),
        asked("integer and text", "the integer 42 and the text 42 are one unit", "f", {"targetingKey": "42"},
              "TARGET_MATCH", SERVED_ON),
        asked("integer unit", "the integer 42 and the text 42 are one unit", "f", {"targetingKey": 42},
              "TARGET_MATCH", SERVED_ON),
        asked("boolean unit", "a boolean is no unit", "f", {"targetingKey": True}, "DEFAULT", SERVED_OFF),
        asked("first rule wins", "both rules hold", "f", {"targetingKey": "cleo", "country": "DE"}, "RULE_MATCH",
              SERVED_OFF, rule_id="r1", rule_index=0),
        asked("second rule", "the first does not hold", "f", {"country": "AT"}, "RULE_MATCH", SERVED_ON,
              rule_id="r2", rule_index=1),
        asked("no rule", "there are rules, so DEFAULT", "f", {"country": "CH"}, "DEFAULT", SERVED_OFF),
        asked("targets and no rules", "there are targets, so DEFAULT", "only-targets", CLEO, "DEFAULT", SERVED_ON),
        asked("no unit is named", "a list without units is none: STATIC", "empty-targets", ADA, "STATIC", SERVED_ON),
    ]),
    world("splits", {
        "bound": flag(fallthrough={"split": {"weights": [["on", 14_005], ["off", 85_995]]}}),
        "above-bound": flag(fallthrough={"split": {"weights": [["on", 14_006], ["off", 85_994]]}}),
        "three": flag(type="string", off="a", variations=[{"key": key, "value": key} for key in "abc"],
                      fallthrough={"split": {"weights": [["c", 20_000], ["a", 0], ["b", 60_000], ["c", 20_000]]}}),
        "own-salt": flag(fallthrough={"split": {"salt": "s2", "weights": [["on", 40_000], ["off", 60_000]]}}),
        "by-account": flag(fallthrough={"split": {"by": "account.id", "weights": [["on", 50_000], ["off", 50_000]]}}),
        "rule": flag(fallthrough=OFF, rules=[rule("r1", {"all": []}, HALF), rule("r2", equals("plan", "pro"), ON)]),
        "no-off": flag(off=None, fallthrough=HALF),
        "experiment": flag(fallthrough={**HALF, "experiment": "exp-1"},
                           rules=[rule("r1", equals("plan", "pro"), {**HALF, "experiment": "exp-2"})]),
        "no-salt": without(flag(fallthrough=HALF), "salt"),
    }, [
        asked("bucket at the bound", "ada is in 14005; the range of on ends before it", "bound", ADA, "SPLIT",
              SERVED_OFF),
        asked("bucket below the bound", "14005 < 14006", "above-bound", ADA, "SPLIT", SERVED_ON),
        asked("ranges in stored order", "ada 14005: the first range", "three", ADA, "SPLIT",
              {"value": "c", "variation": "c"}),
        asked("a weight of 0", "bo 20646: the empty range of a is passed over", "three", BO, "SPLIT",
              {"value": "b", "variation": "b"}),
        asked("a variation twice", "cleo 80812: the last range", "three", CLEO, "SPLIT",
              {"value": "c", "variation": "c"}),
        asked("salt of the split", "ada is in 49360 under s2", "own-salt", ADA, "SPLIT", SERVED_OFF),
        asked("salt of the split, another unit", "bo is in 29690 under s2", "own-salt", BO, "SPLIT", SERVED_ON),
        asked("by another attribute", "acme is in 43897", "by-account",
              {"targetingKey": "cleo", "account": {"id": "acme"}}, "SPLIT", SERVED_ON),
        asked("by a missing attribute", "targetingKey does not stand in for it", "by-account", ADA, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF)),
        asked("rule splits", "dan is in 42725", "rule", DAN, "SPLIT", SERVED_ON, rule_id="r1", rule_index=0),
        asked("rule splits, other side", "cleo is in 80812", "rule", CLEO, "SPLIT", SERVED_OFF, rule_id="r1",
              rule_index=0),
        asked("rule without its unit", "it does not match, and the next one is tried", "rule", {"plan": "pro"},
              "RULE_MATCH", SERVED_ON, rule_id="r2", rule_index=1),
        asked("rule without its unit, no other", "a rule that does not match is no error", "rule", {}, "DEFAULT",
              SERVED_OFF),
        asked("fallthrough without its unit", "nothing is left that could decide", "bound", {}, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF)),
        asked("empty targetingKey", "an empty text is no unit", "bound", {"targetingKey": ""}, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF)),
        asked("targetingKey with a fraction", "no unit", "bound", {"targetingKey": 1.5}, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF)),
        asked("no unit and no off", "the code's default holds", "no-off", {}, "ERROR",
              error("TARGETING_KEY_MISSING", NO_VALUE)),
        asked("experiment", "the answer names it", "experiment", DAN, "SPLIT", SERVED_ON, experiment="exp-1"),
        asked("experiment of a rule", "the answer names it", "experiment", {"targetingKey": "cleo", "plan": "pro"},
              "SPLIT", SERVED_OFF, rule_id="r1", rule_index=0, experiment="exp-2"),
        asked("experiment without a unit", "an error belongs to no experiment", "experiment", {}, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF)),
        asked("no salt", "an absent salt is an empty one: user-1 is in 29495", "no-salt", {"targetingKey": "user-1"},
              "SPLIT", SERVED_ON),
    ]),
    world("ramps", {
        "f": flag(fallthrough=RAMP),
        "rule": flag(fallthrough=OFF, rules=[rule("r1", {"all": []}, RAMP)]),
        "waiting": flag(fallthrough={"ramp": without(RAMP["ramp"], "start_at", "by")}),
        "epoch": flag(fallthrough={"ramp": {**RAMP["ramp"], "start_at": START}}),
        "bound": flag(fallthrough={"ramp": {**RAMP["ramp"], "target": 14_005}}),
        "above-bound": flag(fallthrough={"ramp": {**RAMP["ramp"], "target": 14_006}}),
    }, [
        asked("before the start", "0 %", "f", EVE, "SPLIT", SERVED_OFF, now=START - 1),
        asked("at the start", "0 %: the first step comes one interval later", "f", EVE, "SPLIT", SERVED_OFF),
        asked("just before the first step", "still 0 %", "f", EVE, "SPLIT", SERVED_OFF, now=START + HOUR - 1),
        asked("at the first step", "25 %, and ada is in 14005", "f", ADA, "SPLIT", SERVED_ON, now=START + HOUR),
        asked("at the first step, above it", "25 %, and dan is in 42725", "f", DAN, "SPLIT", SERVED_OFF,
              now=START + HOUR),
        asked("at the second step", "50 %", "f", DAN, "SPLIT", SERVED_ON, now=START + 2 * HOUR),
        asked("who is in stays in", "50 %", "f", ADA, "SPLIT", SERVED_ON, now=START + 2 * HOUR),
        asked("at the target", "60 %, not 75 %; the unit 42 is in 75297 and stays out", "f", {"targetingKey": 42},
              "SPLIT", SERVED_OFF, now=START + 3 * HOUR),
        asked("long after", "60 % for good", "f", CLEO, "SPLIT", SERVED_OFF, now=START + 10_000 * HOUR),
        asked("bucket at the share", "ada is in 14005, which does not lie below 14005", "bound", ADA, "SPLIT",
              SERVED_OFF, now=START + HOUR),
        asked("bucket below the share", "14005 < 14006", "above-bound", ADA, "SPLIT", SERVED_ON, now=START + HOUR),
        asked("ramp without a start", "0 % for good", "waiting", EVE, "SPLIT", SERVED_OFF, now=START + 9 * HOUR),
        asked("ramp without by", "by is targetingKey", "waiting", {}, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF), now=START + 9 * HOUR),
        asked("start in milliseconds", "the same moment", "epoch", ADA, "SPLIT", SERVED_ON, now=START + HOUR),
        asked("ramp in a rule", "SPLIT with the rule's id, on either side", "rule", DAN, "SPLIT", SERVED_OFF,
              rule_id="r1", rule_index=0, now=START + HOUR),
        asked("ramp in a rule, no unit", "the rule does not match", "rule", {}, "DEFAULT", SERVED_OFF,
              now=START + HOUR),
    ]),
    world("prerequisites", {
        "base": flag(fallthrough=OFF, rules=[rule("r1", equals("plan", "pro"), ON)]),
        "base-off": flag(enabled=False, off="on"),
        "left": flag(prerequisites=[{"flag": "base", "variations": ["on"]}]),
        "right": flag(prerequisites=[{"flag": "base", "variations": ["on"]}], fallthrough=HALF),
        "diamond": flag(prerequisites=[{"flag": "left"}, {"flag": "right"}]),
        "any-variation": flag(prerequisites=[{"flag": "base"}]),
        "needs-off": flag(prerequisites=[{"flag": "base-off", "variations": ["on"]}]),
        "needs-two": flag(prerequisites=[{"flag": "base"}, {"flag": "no-such"}, {"flag": "base-off"}]),
        "needs-none": flag(prerequisites=[{"flag": "base", "variations": []}]),
        "needs-missing": flag(prerequisites=[{"flag": "no-such"}], targets=[{"variation": "on", "units": ["ada"]}]),
        "needs-blocked": flag(prerequisites=[{"flag": "needs-missing"}]),
        "needs-unit": flag(prerequisites=[{"flag": "unit"}]),
        "unit": flag(fallthrough=HALF),
        "self": flag(prerequisites=[{"flag": "self"}]),
        "circle-a": flag(prerequisites=[{"flag": "circle-b"}]),
        "circle-b": flag(prerequisites=[{"flag": "circle-a"}]),
        "into-circle": flag(prerequisites=[{"flag": "base"}, {"flag": "circle-a"}]),
        "circle-off": flag(enabled=False, prerequisites=[{"flag": "circle-off"}]),
        "code-default": flag(off=None, prerequisites=[{"flag": "no-such"}]),
    }, [
        asked("prerequisite holds", "base is on and serves on", "left", {"plan": "pro"}, "STATIC", SERVED_ON),
        asked("another variation", "base is on and serves off", "left", {}, "PREREQUISITE_FAILED", SERVED_OFF,
              blocked_by="base"),
        asked("any variation", "without variations it must only be on", "any-variation", {}, "STATIC", SERVED_ON),
        asked("diamond", "two ways to one flag are no circle", "diamond", {"targetingKey": "ada", "plan": "pro"},
              "STATIC", SERVED_ON),
        asked("diamond, base fails", "left is blocked, so diamond is; the direct prerequisite is named", "diamond",
              ADA, "PREREQUISITE_FAILED", SERVED_OFF, blocked_by="left"),
        asked("diamond, one side", "right lacks its unit: an error is not on", "diamond", {"plan": "pro"},
              "PREREQUISITE_FAILED", SERVED_OFF, blocked_by="right"),
        asked("switched off", "off serves what is wanted, yet a flag that is off is not on", "needs-off", {},
              "PREREQUISITE_FAILED", SERVED_OFF, blocked_by="base-off"),
        asked("first that fails", "in stored order", "needs-two", {}, "PREREQUISITE_FAILED", SERVED_OFF,
              blocked_by="no-such"),
        asked("no variation", "an empty list can never be served", "needs-none", {}, "PREREQUISITE_FAILED",
              SERVED_OFF, blocked_by="base"),
        asked("missing", "a flag that does not exist is not on; before targets", "needs-missing", ADA,
              "PREREQUISITE_FAILED", SERVED_OFF, blocked_by="no-such"),
        asked("blocked itself", "a flag that is blocked is not on", "needs-blocked", {}, "PREREQUISITE_FAILED",
              SERVED_OFF, blocked_by="needs-missing"),
        asked("split", "a flag that splits is on, on either side", "needs-unit", CLEO, "STATIC", SERVED_ON),
        asked("split without a unit", "an error is not on", "needs-unit", {}, "PREREQUISITE_FAILED", SERVED_OFF,
              blocked_by="unit"),
        asked("itself", "the shortest circle", "self", {}, "ERROR", error("GENERAL", SERVED_OFF)),
        asked("circle", "each flag of a circle", "circle-a", {}, "ERROR", error("GENERAL", SERVED_OFF)),
        asked("circle, entered elsewhere", "the answer does not depend on where one enters", "circle-b", {}, "ERROR",
              error("GENERAL", SERVED_OFF)),
        asked("into a circle", "a flag that leads into a circle is as unsettled", "into-circle", {"plan": "pro"},
              "ERROR", error("GENERAL", SERVED_OFF)),
        asked("circle, switched off", "the switch goes first", "circle-off", {}, "DISABLED", SERVED_OFF),
        asked("no off variation", "the code's default holds", "code-default", {}, "PREREQUISITE_FAILED", NO_VALUE,
              blocked_by="no-such"),
    ]),
    world("a prerequisite without a value", {
        "code-default": flag(enabled=False, off=None),
        "needs-it": flag(prerequisites=[{"flag": "code-default"}]),
        "on-without-off": flag(off=None),
        "needs-that": flag(prerequisites=[{"flag": "on-without-off", "variations": ["on"]}]),
    }, [
        asked("off without a value", "off is off", "needs-it", {}, "PREREQUISITE_FAILED", SERVED_OFF,
              blocked_by="code-default"),
        asked("on without an off variation", "it is on", "needs-that", {}, "STATIC", SERVED_ON),
    ]),
    world("prerequisites, 16 steps", chain(16), [
        asked("16 steps", "the deepest chain that is followed", "f0", {}, "STATIC", SERVED_ON),
    ]),
    world("prerequisites, 17 steps", chain(17), [
        asked("17 steps", "too deep", "f0", {}, "ERROR", error("GENERAL", SERVED_OFF)),
        asked("16 steps of it", "the flag one step in is not", "f1", {}, "STATIC", SERVED_ON),
    ]),
    world("groups", {
        "a": flag(group="g"),
        "b": flag(group="g", targets=[{"variation": "on", "units": ["bo"]}]),
        "c": flag(group="g", enabled=False),
        "needs-a": flag(prerequisites=[{"flag": "a"}]),
        "alone": flag(group="h", off=None),
        "blocked": flag(group="h2", prerequisites=[{"flag": "no-such"}]),
        "blocked-too": flag(group="h2", fallthrough=HALF),
    }, [
        asked("winner", "ada draws 2062843437 for b, 1387579073 for a", "b", ADA, "DEFAULT", SERVED_ON),
        asked("not the winner", "the group is named", "a", ADA, "EXCLUDED", SERVED_OFF, blocked_by="g"),
        asked("a flag that is off does not draw", "with c eve would belong to c; now b", "b", EVE, "DEFAULT",
              SERVED_ON),
        asked("the flag that is off", "the switch goes first", "c", EVE, "DISABLED", SERVED_OFF),
        asked("excluded goes before targets", "bo belongs to a", "b", BO, "EXCLUDED", SERVED_OFF, blocked_by="g"),
        asked("its winner", "bo belongs to a", "a", BO, "STATIC", SERVED_ON),
        asked("no unit", "without a unit nobody can draw", "a", {}, "ERROR",
              error("TARGETING_KEY_MISSING", SERVED_OFF)),
        asked("prerequisite excluded", "an excluded flag is not on", "needs-a", ADA, "PREREQUISITE_FAILED",
              SERVED_OFF, blocked_by="a"),
        asked("group of one", "it owns every unit", "alone", ADA, "STATIC", SERVED_ON),
        asked("group of one, no unit", "it needs a unit all the same; there is no off", "alone", {}, "ERROR",
              error("TARGETING_KEY_MISSING", NO_VALUE)),
        asked("a blocked flag draws", "ada belongs to blocked, though its prerequisite fails", "blocked-too", ADA,
              "EXCLUDED", SERVED_OFF, blocked_by="h2"),
        asked("split in a group", "bo belongs to blocked-too, and is in bucket 20646", "blocked-too", BO, "SPLIT",
              SERVED_ON),
        asked("prerequisite before group", "blocked by the prerequisite, whoever wins", "blocked", ADA,
              "PREREQUISITE_FAILED", SERVED_OFF, blocked_by="no-such"),
    ]),
    world("segments", {
        **{key: flag(fallthrough=OFF, rules=[rule("r1", {"segment": key}, ON)])
           for key in ("staff", "outer", "no-such", "newer", "circle", "into-circle", "percent")},
        "not-in": flag(fallthrough=OFF, rules=[
            rule("r1", {"attribute": "", "op": "not_in_segment", "values": ["staff"]}, ON)]),
        "in-either": flag(fallthrough=OFF, rules=[
            rule("r1", {"op": "in_segment", "values": ["outer", "percent"]}, ON)]),
        "in-none": flag(fallthrough=OFF, rules=[rule("r1", {"op": "in_segment", "values": []}, ON)]),
        "not-in-none": flag(fallthrough=OFF, rules=[rule("r1", {"op": "not_in_segment", "values": []}, ON)]),
        "not-missing": flag(fallthrough=OFF, rules=[rule("r1", {"not": {"segment": "no-such"}}, ON),
                                                    rule("r2", equals("plan", "pro"), ON)]),
        "or-missing": flag(fallthrough=OFF, rules=[
            rule("r1", {"any": [equals("plan", "pro"), {"segment": "no-such"}]}, ON)]),
    }, [
        asked("included", "named", "staff", ADA, "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("integer unit", "the integer 7 is the unit 7", "staff", {"targetingKey": "7"}, "RULE_MATCH", SERVED_ON,
              rule_id="r1", rule_index=0),
        asked("excluded and included", "who is excluded stays out", "staff", BO, "DEFAULT", SERVED_OFF),
        asked("excluded and matching", "who is excluded stays out", "staff",
              {"targetingKey": "bo", "mail": "bo@example.com"}, "DEFAULT", SERVED_OFF),
        asked("by condition", "not named, and the condition holds", "staff", {"mail": "x@example.com"}, "RULE_MATCH",
              SERVED_ON, rule_id="r1", rule_index=0),
        asked("outside", "neither", "staff", CLEO, "DEFAULT", SERVED_OFF),
        asked("nested", "in a segment inside", "outer", ADA, "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("nested, outside", "in none of them", "outer", CLEO, "DEFAULT", SERVED_OFF),
        asked("not in", "a plain negation", "not-in", CLEO, "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("not in, inside", "a plain negation", "not-in", ADA, "DEFAULT", SERVED_OFF),
        asked("not in, no unit", "without a unit nobody is named", "not-in", {}, "RULE_MATCH", SERVED_ON,
              rule_id="r1", rule_index=0),
        asked("either", "any of the segments", "in-either", ADA,
              "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("in none", "of nothing nothing holds", "in-none", ADA, "DEFAULT", SERVED_OFF),
        asked("not in none", "its negation", "not-in-none", ADA, "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("missing", "the rule is skipped", "no-such", ADA, "DEFAULT", SERVED_OFF),
        asked("not missing", "the rule is skipped, not matched; the next is tried", "not-missing", {"plan": "pro"},
              "RULE_MATCH", SERVED_ON, rule_id="r2", rule_index=1),
        asked("or missing", "the whole rule is skipped, whatever else would hold", "or-missing", {"plan": "pro"},
              "DEFAULT", SERVED_OFF),
        asked("operator of a newer version inside", "the segment cannot be decided, so the rule is skipped", "newer",
              ADA, "DEFAULT", SERVED_OFF),
        asked("circle of segments", "none of them can be decided", "circle", ADA, "DEFAULT", SERVED_OFF),
        asked("into a circle", "nor what leads there, though ada is included by name", "into-circle", ADA, "DEFAULT",
              SERVED_OFF),
        asked("percentage inside", "the salt is the segment's key: user-1 is in 32106", "percent",
              {"targetingKey": "user-1"}, "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("percentage inside, outside", "ada is in 67857", "percent", ADA, "DEFAULT", SERVED_OFF),
    ], {
        "staff": segment(include=["ada", "bo", 7], exclude=["bo"],
                         when={"attribute": "mail", "op": "ends_with", "values": ["@example.com"]}),
        "outer": segment(when={"any": [{"segment": "staff"}, {"attribute": "guest", "op": "exists"}]}),
        "newer": segment(include=["ada"], when={"attribute": "a", "op": "sounds_like", "values": ["x"]}),
        "circle": segment(include=["ada"], when={"segment": "circle-2"}),
        "circle-2": segment(include=["ada"], when={"segment": "circle"}),
        "into-circle": segment(include=["ada"], when={"segment": "circle"}),
        "percent": segment(when={"attribute": "targetingKey", "op": "percentage_of", "values": [50_000]}),
    }),
    world("segments, 16 steps", {"f": flag(fallthrough=OFF, rules=[rule("r1", {"segment": "s0"}, ON)])}, [
        asked("16 steps", "the deepest nesting that is followed", "f", {"a": 1}, "RULE_MATCH", SERVED_ON,
              rule_id="r1", rule_index=0),
    ], nested(16)),
    world("segments, 17 steps", {"f": flag(fallthrough=OFF, rules=[rule("r1", {"segment": "s0"}, ON)]),
                                 "f1": flag(fallthrough=OFF, rules=[rule("r1", {"segment": "s1"}, ON)])}, [
        asked("17 steps", "too deep: the rule is skipped", "f", {"a": 1}, "DEFAULT", SERVED_OFF),
        asked("16 steps of it", "the segment one step in is not", "f1", {"a": 1}, "RULE_MATCH", SERVED_ON,
              rule_id="r1", rule_index=0),
    ], nested(17)),
    world("a newer configuration", {
        "fields": flag(colour="red", fallthrough={**ON, "after": "2030"},
                       rules=[{**rule("r1", {**equals("a", 1), "weight": 2}, OFF), "note": "x"}]),
        "operator": flag(fallthrough=OFF, rules=[
            rule("r1", {"attribute": "a", "op": "sounds_like", "values": [None]}, ON), rule("r2", equals("a", 1), ON)]),
        "operator-in-any": flag(fallthrough=OFF, rules=[
            rule("r1", {"any": [equals("a", 1), {"attribute": "a", "op": "sounds_like"}]}, ON)]),
        "operator-in-not": flag(fallthrough=OFF, rules=[
            rule("r1", {"not": {"attribute": "a", "op": "sounds_like"}}, ON)]),
        "alias": flag(fallthrough=OFF, rules=[rule("r1", {"attribute": "a", "op": "eq", "values": [1]}, ON)]),
        "deepest": flag(fallthrough=OFF, rules=[rule("r1", deep(10), ON)]),
    }, [
        asked("conditions 10 deep", "the deepest that is read: nine negations, and a is not 1", "deepest", {"a": 2},
              "RULE_MATCH", SERVED_ON, rule_id="r1", rule_index=0),
        asked("unknown fields", "ignored wherever they stand", "fields", {"a": 1}, "RULE_MATCH", SERVED_OFF,
              rule_id="r1", rule_index=0),
        asked("unknown operator", "the rule is skipped, with whatever arguments; the index counts it", "operator",
              {"a": 1}, "RULE_MATCH", SERVED_ON, rule_id="r2", rule_index=1),
        asked("unknown operator in any", "the whole rule is skipped", "operator-in-any", {"a": 1}, "DEFAULT",
              SERVED_OFF),
        asked("unknown operator in not", "the whole rule is skipped", "operator-in-not", {"a": 1}, "DEFAULT",
              SERVED_OFF),
        asked("alias", "a configuration holds canonical names only; an alias is unknown", "alias", {"a": 1},
              "DEFAULT", SERVED_OFF),
    ]),
]  # fmt: skip


def refused_flag(name: str, why: str, obj: Any) -> Json:
    """Return a flag that cannot be meant."""
    return {"name": name, "why": why, "flag": obj}


def split(*weights: list[Any], **more: Any) -> Json:
    """Return a split."""
    return {"split": {"weights": list(weights), **more}}


REFUSED_FLAGS: Final[list[Json]] = [
    refused_flag("no object", "a flag is an object", []),
    *(refused_flag(f"no {name}", "it must be there", without(flag(), name))
      for name in ("id", "type", "version", "enabled", "variations", "fallthrough")),
    refused_flag("enabled is a number", "true or false", flag(enabled=1)),
    refused_flag("unknown type", "boolean, string, number or json", flag(type="date")),
    refused_flag("empty variations", "at least one", flag(variations=[])),
    refused_flag("a variation twice", "keys are unique", flag(variations=[{"key": "on", "value": True}] * 2)),
    refused_flag("value of another type", "a boolean flag serves booleans",
                 flag(variations=[{"key": "on", "value": 1}, {"key": "off", "value": False}])),
    refused_flag("json text", "json values are objects and lists",
                 flag(type="json", variations=[{"key": "on", "value": "x"}, {"key": "off", "value": {}}])),
    refused_flag("null value", "null is no value",
                 flag(variations=[{"key": "on", "value": None}, {"key": "off", "value": False}])),
    refused_flag("fraction in an integer flag", "number_format is a promise",
                 flag(type="number", number_format="integer",
                      variations=[{"key": "on", "value": 0.5}, {"key": "off", "value": 1}])),
    refused_flag("unknown off", "it must be one of the variations", flag(off="no-such")),
    refused_flag("empty off", "only null or absence leaves the value to the code", flag(off="")),
    refused_flag("unknown variation served", "it must be one of the variations",
                 flag(fallthrough={"variation": "no-such"})),
    refused_flag("weights below 100,000", "they add up to exactly 100,000",
                 flag(fallthrough=split(["on", 50_000], ["off", 49_999]))),
    refused_flag("weights above 100,000", "they add up to exactly 100,000",
                 flag(fallthrough=split(["on", 50_000], ["off", 50_001]))),
    refused_flag("no weights", "they add up to exactly 100,000", flag(fallthrough=split())),
    refused_flag("weight with a fraction", "whole thousandths of a percent",
                 flag(fallthrough=split(["on", 50_000.0], ["off", 50_000]))),
    refused_flag("negative weight", "0 to 100,000", flag(fallthrough=split(["on", -1], ["off", 100_000], ["on", 1]))),
    refused_flag("empty salt of a split", "absent, or not empty",
                 flag(fallthrough=split(["on", 100_000], salt=""))),
    refused_flag("two forms of serving", "exactly one of variation, split, ramp", flag(fallthrough={**ON, **HALF})),
    refused_flag("ramp of no interval", "at least a second",
                 flag(fallthrough={"ramp": {**RAMP["ramp"], "every_s": 0}})),
    refused_flag("ramp beyond 100 %", "0 to 100,000", flag(fallthrough={"ramp": {**RAMP["ramp"], "target": 100_001}})),
    refused_flag("ramp that starts on a date", "a date-time with an offset",
                 flag(fallthrough={"ramp": {**RAMP["ramp"], "start_at": "2026-01-01"}})),
    refused_flag("ramp before 1970", "1970 to 9999", flag(fallthrough={"ramp": {**RAMP["ramp"], "start_at": -1}})),
    refused_flag("target with a boolean", "units are texts that are not empty and integers",
                 flag(targets=[{"variation": "on", "units": [True]}])),
    refused_flag("target with an empty text", "units are texts that are not empty and integers",
                 flag(targets=[{"variation": "on", "units": [""]}])),
    refused_flag("target of an unknown variation", "it must be one of the variations",
                 flag(targets=[{"variation": "no-such", "units": []}])),
    refused_flag("rule without an id", "the id is its name and its salt",
                 flag(rules=[{"when": {"all": []}, "serve": ON}])),
    refused_flag("conditions 11 deep", "10 at most", flag(rules=[rule("r1", deep(11), ON)])),
    refused_flag("nested metadata", "texts, numbers and booleans", flag(metadata={"a": {}})),
    refused_flag("null in metadata", "texts, numbers and booleans", flag(metadata={"a": None})),
]  # fmt: skip


def evaluations() -> Json:
    """Return the vectors of whole evaluations."""
    return {
        "$comment": [
            "What flags answer. Specification: docs/evaluation.md.",
            "environments: read `flags` and `segments`, then evaluate each case's `flag` for `context` at `now` (epoch",
            "milliseconds); `expected` is the whole answer but for version, metadata and the wording of errors.",
            "`getter`, where it stands, is the type that the caller asked for.",
            "refused: flags that cannot be meant; reading one must fail.",
            "Salts are fixed, so that the answers of splits can be worked out with bucketing.json.",
        ],
        "environments": WORLDS,
        "refused": REFUSED_FLAGS,
    }


# --- files --------------------------------------------------------------------------------------------------------


def written(value: Any, indent: int = 0) -> str:
    """Return JSON with sorted members, on one line what has room on one, so that a change shows where it is."""
    line = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    if not isinstance(value, dict | list) or not value or indent + len(line) <= WIDTH:
        return line
    inner = " " * (indent + 2)
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + written(each, indent + 2) for each in value) + f"\n{' ' * indent}]"
    members = (f"{inner}{json.dumps(name)}: {written(value[name], indent + 2)}" for name in sorted(value))
    return "{\n" + ",\n".join(members) + f"\n{' ' * indent}}}"


def files() -> Mapping[str, str]:
    """Return the text of every file by its name."""
    made = {"bucketing.json": bucketing(), "operators.json": operators(), "evaluations.json": evaluations()}
    return {name: written(content) + "\n" for name, content in made.items()}


def main() -> None:
    """Write the files."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in files().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
