"""The one JSON reader: what it refuses, and that it says where."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.strict_json import BadJson, loads

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the document is empty"),
        (b" \n", "the document is empty"),
        (b"[1,]", "trailing comma is not allowed at position 2"),
        (b'{"a":1}x', "unexpected content after document at position 7"),
        (b"NaN", "unexpected character, expected a JSON value at position 0"),
        (b"[Infinity]", "unexpected character, expected a JSON value at position 1"),
        (b"1e999", "number is infinity when parsed as double at position 0"),
        (b'"\\ud800"', "no low surrogate in string at position 1"),
        (b"\xef\xbb\xbf{}", "UTF-8 byte order mark (BOM) is not supported at position 0"),
        (b'["\xff"]', "the document is not valid UTF-8 at position 2"),
        ('{"a":1}'.encode("utf-16"), "the document is not UTF-8 (it looks like UTF-16 or UTF-32) at position 0"),
        ('{"a":1}'.encode("utf-16-le"), "the document is not UTF-8 (it looks like UTF-16 or UTF-32) at position 0"),
        (b'"\\u000"', "invalid escaped sequence in string at position 1"),
    ],
)
def test_refusal_names_reason_and_position(raw: bytes, reason: str) -> None:
    """Each kind of malformed document is refused with what is wrong and where."""
    with pytest.raises(BadJson) as refused:
        loads(raw)
    assert str(refused.value) == reason


@given(json_values)
def test_valid_documents_are_read_as_the_standard_library_does(value: object) -> None:
    """What the standard library writes is read back equal, with every check switched on."""
    raw = json.dumps(value).encode()
    assert loads(raw, max_depth=1_000, refuse_duplicates=True) == value


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ae1 ').map(str.encode))
def test_arbitrary_bytes_are_read_or_refused(raw: bytes) -> None:
    """No input makes the reader raise anything but BadJson."""
    with contextlib.suppress(BadJson):
        loads(raw, refuse_duplicates=True)


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"[]" * (depth % 2) + b"]}" * (depth // 2)


@pytest.mark.parametrize("depth", [1, 31, 32])
def test_depth_up_to_the_limit_is_read(depth: int) -> None:
    """A document of exactly the deepest nesting is accepted."""
    loads(nested(depth))


@pytest.mark.parametrize(
    ("raw", "position"),
    [
        (b"[" * 33 + b"]" * 33, 32),
        (b"[" * 100_000, 32),
        (b"[" + b"[]," * 500 + b"[" * 32 + b"]" * 33, 1 + 1500 + 31),
        (b'["[\\"{{{",' + b"[" * 40 + b"]" * 41, 10 + 31),
        (b'["]\\"}",{},' + b"[" * 40 + b"]" * 41, 11 + 31),
    ],
)
def test_too_deep_is_refused_where_it_becomes_so(raw: bytes, position: int) -> None:
    """Depth is counted outside strings, and the refusal points to the bracket that goes too far."""
    with pytest.raises(BadJson, match="nested deeper than 32 levels") as refused:
        loads(raw)
    assert refused.value.position == position


@given(json_values, st.integers(1, 6))
def test_depth_is_judged_as_a_recursive_count_would(value: object, limit: int) -> None:
    """The scan that peels brackets off agrees with the plain definition of depth."""

    def depth(part: object) -> int:
        if isinstance(part, dict):
            return 1 + max(map(depth, part.values()), default=0)
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    # Repeated, so that the document is long enough for the peeling.
    document = [value] * 200
    try:
        loads(json.dumps(document).encode(), max_depth=limit)
    except BadJson:
        assert depth(document) > limit
    else:
        assert depth(document) <= limit


def test_brackets_in_strings_are_no_depth() -> None:
    """A string of brackets, quotes and backslashes is a string."""
    text = '[{"\\' * 200
    assert loads(json.dumps([text, text]).encode()) == [text, text]


def test_brackets_of_a_broken_string_are_left_to_the_parser() -> None:
    """Brackets that only look like depth because quotes are broken are not reported as depth."""
    with pytest.raises(BadJson, match="unexpected character"):
        loads(b'\\"' + b"[" * 40)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"b":{"c":1,"c":1}}', "duplicate key 'c'"),
        (b'{"%b":1,"%b":1}' % (b"k" * 100, b"k" * 100), f"duplicate key '{'k' * 64}…'"),
        (b"[18446744073709551616]", "integer '18446744073709551616' does not fit into 64 bits"),
        (b"-9223372036854775809", "integer '-9223372036854775809' does not fit into 64 bits"),
        (b"1" * 300, f"integer '{'1' * 64}…' does not fit into 64 bits"),
    ],
)
def test_what_parsers_disagree_about_is_refused_on_request(raw: bytes, reason: str) -> None:
    """Duplicate keys and integers beyond 64 bits are refused where a write asks for it, and only there."""
    loads(raw)
    with pytest.raises(BadJson) as refused:
        loads(raw, refuse_duplicates=True)
    assert refused.value.reason == reason


def test_integers_of_64_bits_are_exact() -> None:
    """The largest and the smallest integer that fit are read as they are."""
    raw = b"[18446744073709551615,-9223372036854775808]"
    assert loads(raw, refuse_duplicates=True) == [2**64 - 1, -(2**63)]
