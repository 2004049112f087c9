"""Regular expressions of rules: RE2 with bounds, so that no pattern and no subject can make an evaluation slow."""

from collections.abc import Sequence
from typing import Any

MAX_PATTERN_LENGTH = 512
MAX_PATTERN_PROGRAM = 600
"""RE2 instructions of all patterns of a clause together. Time grows with subject times program: the worst found with so
many takes about 5 ms on a subject of the greatest length."""
MAX_SUBJECT_BYTES = 1024


def compile_pattern(pattern: str, *, fold_case: bool) -> Any:
    """Compile a pattern for `found`.

    Raises:
        ValueError: it is too long, no RE2 pattern, or too costly; the message says which.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"is a pattern of {len(pattern)} characters, at most {MAX_PATTERN_LENGTH} are allowed")
    compiled = _compiled(pattern, fold_case=fold_case)
    try:
        _compiled(f"(?:{pattern})", fold_case=fold_case)
    except ValueError as error:
        # Alone it is one, but it would swallow the patterns that it is joined with.
        raise ValueError(r"opens \Q without \E") from error
    return compiled


def join_patterns(patterns: Sequence[str], *, fold_case: bool) -> Any:
    """Compile patterns, each of which compiles alone, into one that is found where any of them is.

    Raises:
        ValueError: they are too costly together.
    """
    return _compiled("|".join(f"(?:{pattern})" for pattern in patterns), fold_case=fold_case)


def _compiled(pattern: str, *, fold_case: bool) -> Any:
    # Loaded with the first pattern: RE2 and its C++ library take 3 MB, and most configurations have no pattern.
    import re2  # type: ignore[import-untyped] # noqa: PLC0415

    options = re2.Options()
    options.never_capture = True  # only whether it occurs is asked, and captures cost up to three times as much
    options.log_errors = False  # else RE2 itself writes to standard error
    options.case_sensitive = not fold_case
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"is no RE2 pattern: {error.args[0].decode('utf-8', 'replace')}") from error
    except UnicodeEncodeError as error:
        raise ValueError("is no RE2 pattern: it holds half of a surrogate pair") from error
    if compiled.programsize > MAX_PATTERN_PROGRAM:
        size = compiled.programsize
        raise ValueError(f"costs too much: {size} RE2 instructions, at most {MAX_PATTERN_PROGRAM} are allowed")
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
