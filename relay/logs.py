"""Log lines: for people in a terminal, as JSON lines everywhere else.

Every line passes one redaction, tracebacks and extra fields included, so that a key which a careless message or a
library's exception carries does not reach the log; the code that logs a key's hint by design uses `keys.hint`. All
loggers, uvicorn's too, end in this one handler. There is no access log: metrics count requests.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from relay.clock import rfc3339

Format = Literal["auto", "human", "json"]

_REDACTIONS = (
    (re.compile(r"\bhal_(server|client|relay|token)_[0-9A-Za-z]{5,}"), r"hal_\1_[redacted]"),
    (re.compile(r"\b(Bearer|Basic)(\s+|%20|\+)(?!\[redacted\])[^\s\"',;]+", re.IGNORECASE), r"\1 [redacted]"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"), "[redacted]"),
)
_OWN_ATTRIBUTES = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def redact(text: str) -> str:
    """Return the text without the secret part of any key or bearer token in it."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def configure(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send every logger's lines to one handler; replaces what was configured before."""
    stream = stream or sys.stderr
    is_human = form == "human" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter(is_coloured=stream.isatty()) if is_human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Their lines about their own comings and goings would bury ours.
    for name in ("uvicorn.error", "alembic"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(capture=True)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what the caller passed as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the extra fields, and error with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line = {
            "at": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # The standard library's encoder, because it also takes the lone surrogates of a hostile request.
        return redact(json.dumps(line, default=str))


class HumanFormatter(logging.Formatter):
    """`06:30:00.123 INFO    relay.sync.follow  connected  environments=3`, in UTC."""

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__()
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        level = f"{record.levelname:<7}"
        if self._is_coloured:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        # A line break in what a client sent must not look like a line of ours.
        text = f"{record.getMessage()}{fields}".translate(_CONTROL)
        line = f"{rfc3339(int(record.created * 1000))[11:23]} {level} {record.name}  {text}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return redact(line)
