"""Regular expressions of rules: RE2 with bounds, so that no pattern and no subject can make an evaluation slow."""

from typing import Any

import re2  # type: ignore[import-untyped]

MAX_PATTERN_LENGTH = 512
MAX_PATTERN_PROGRAM = 3_000
"""RE2 instructions. Time grows with subject times program: `(.{1,100}){10}Q` has 9,015 and takes 150 ms on 4 KiB."""
MAX_SUBJECT_BYTES = 4096


def compile_pattern(pattern: str, *, fold_case: bool) -> Any:
    """Compile a pattern for `found`.

    Raises:
        ValueError: it is too long, no RE2 pattern, or too costly; the message says which.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"is a pattern of {len(pattern)} characters, at most {MAX_PATTERN_LENGTH} are allowed")
    options = re2.Options()
    options.log_errors = False  # else RE2 itself writes to standard error
    options.case_sensitive = not fold_case
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"is no RE2 pattern: {error.args[0].decode('utf-8', 'replace')}") from error
    except UnicodeEncodeError as error:
        raise ValueError("is no RE2 pattern: it holds half of a surrogate pair") from error
    if compiled.programsize > MAX_PATTERN_PROGRAM:
        raise ValueError("is a pattern that costs too much: its repetitions multiply")
    return compiled


def found(pattern: Any, subject: bytes) -> bool:
    """Tell whether the pattern occurs anywhere in the subject."""
    return pattern.search(subject) is not None


def subject_of(text: str) -> bytes:
    """Return the text in UTF-8, at most `MAX_SUBJECT_BYTES` of it, cut between characters."""
    encoded = text[:MAX_SUBJECT_BYTES].encode("utf-8", "replace")
    if len(encoded) <= MAX_SUBJECT_BYTES:
        return encoded
    return encoded[:MAX_SUBJECT_BYTES].decode("utf-8", "ignore").encode()
