"""Reads what a relay sends: a batch of records, one JSON object per line, usually in gzip.

Uses no more memory than the limits allow, whatever the bytes are made to look like, and names the line at fault. Knows
the shape of a batch and which words may stand in it; what its records refer to, the store knows. Pure.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from relay.engine.model import Reason
from relay.errors import Problem
from relay.protocol.events import CounterRow, EventRecord, InvalidEvents, parse_record
from relay.protocol.strict_json import BadJson, loads
from relay.serve.answers import Source

MAX_RECORDS: Final = 10_000
GZIP: Final = 31
"""zlib's name for "a gzip header and trailer must be there"."""
REASONS: Final = tuple(map(str, Reason))
SOURCES: Final[tuple[str, ...]] = get_args(Source)

Record = EventRecord | CounterRow


@dataclass(frozen=True, slots=True)
class Batch:
    """The records in their order, and the SHA-256 of the lines that they were read from."""

    records: Sequence[Record]
    digest: str


def read_batch(body: bytes, max_bytes: int, *, is_gzip: bool) -> Batch:
    """Read a whole body.

    Raises:
        Problem: 400, 413 or 422, naming the line where one is at fault.
    """
    data = decompress(body, max_bytes) if is_gzip else body
    return Batch(read_records(data), hashlib.sha256(data).hexdigest())


def decompress(body: bytes, max_bytes: int) -> bytes:
    """Return what a gzip body holds, never using more memory than the limit.

    Raises:
        Problem: 413 over the limit, 400 when it is no gzip or not all of it.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        data = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Problem(400, "malformed_gzip", f"The body is not valid gzip: {error}.") from None
    if len(data) > max_bytes:
        raise Problem(413, "batch_too_long", f"The batch is longer than {max_bytes} bytes after decompression.")
    if not unpacker.eof or unpacker.unused_data:
        raise Problem(400, "malformed_gzip", "The body is not exactly one whole gzip member.")
    return data


def read_records(data: bytes) -> list[Record]:
    """Read a batch: one JSON object per line.

    Raises:
        Problem: 400, 413 or 422, naming the line.
    """
    # Counted before they are cut apart: a few kilobytes of gzip hold millions of empty lines.
    if data.count(b"\n") + (not data.endswith(b"\n")) > MAX_RECORDS:
        raise Problem(413, "batch_too_long", f"The batch has more than {MAX_RECORDS} records.")
    records: list[Record] = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            record = parse_record(loads(line))
            _check_words(record)
            records.append(record)
        except BadJson as error:
            detail = f"Line {number} is not valid JSON: {error}."
            raise Problem(400, "malformed_json", detail, extra={"line": number}) from None
        except InvalidEvents as error:
            raise bad_record(number, error.problems) from None
    return records


def _check_words(record: Record) -> None:
    """Refuse counts under words that no evaluation gives: each combination of words becomes a row that stays."""
    if isinstance(record, CounterRow):
        words = (("reason", record.reason, REASONS), ("source", record.source, SOURCES))
        problems = {name: [f"must be one of {', '.join(known)}"] for name, word, known in words if word not in known}
        if problems:
            raise InvalidEvents(problems)


def bad_record(number: int, problems: Mapping[str, list[str]], code: str = "invalid_record") -> Problem:
    """Return the refusal of a batch for what is wrong with one line."""
    errors = {f"lines[{number}].{path}": sentences for path, sentences in problems.items()}
    sentences = "; ".join(f"{path} {found[0]}" for path, found in problems.items())
    return Problem(422, code, f"Line {number} cannot be stored: {sentences}.", errors=errors, extra={"line": number})
