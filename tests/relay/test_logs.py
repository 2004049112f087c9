"""What log lines look like, and what never stands in them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from relay import logs

KEY = "hal_server_0123456789abcdefghijABCDEFGHIJklmnop"


@pytest.fixture
def sink() -> Iterator[io.StringIO]:
    """Return what is logged, and leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_json_lines_where_nobody_watches(sink: io.StringIO) -> None:
    """Each line is one JSON object with time, level, logger, message and the extra fields."""
    logging.getLogger("relay.sync").info("connected to %s", "upstream", extra={"environments": 3})
    line = json.loads(sink.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {"level": "info", "logger": "relay.sync", "message": "connected to upstream", "environments": 3}


def test_human_lines_in_a_terminal(sink: io.StringIO) -> None:
    """In a terminal a line is time, level, logger, message and fields, in colour."""
    terminal = Terminal()
    logs.configure("info", "auto", terminal)
    logging.getLogger("relay.sync").warning("cut off", extra={"age_s": 3})
    assert "\x1b[33mWARNING\x1b[0m relay.sync  cut off  age_s=3\n" in terminal.getvalue()
    assert not sink.getvalue()


def test_level(sink: io.StringIO) -> None:
    """What is below the level is not shown."""
    logging.getLogger("relay").debug("detail")
    assert not sink.getvalue()


@pytest.mark.parametrize("form", ["json", "human"])
@pytest.mark.parametrize(
    "text",
    [
        f"refused {KEY}",
        f"Authorization: Bearer {KEY}",
        "authorization=bearer opaque-secret-value",
        "Bearer  opaque-secret-value",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.opaque-secret-value",
    ],
)
def test_secrets_are_redacted(sink: io.StringIO, form: logs.Format, text: str) -> None:
    """Keys and bearer values are cut out of messages, arguments, fields and tracebacks."""
    logs.configure("info", form, sink)
    logger = logging.getLogger("relay")
    logger.info(text)
    logger.info("argument %s", text)
    logger.info("field", extra={"header": text})
    logger.error("failed", exc_info=ValueError(text))
    assert "[redacted]" in sink.getvalue()
    assert KEY not in sink.getvalue()
    assert "opaque-secret-value" not in sink.getvalue()


def test_hostile_text_stays_one_line(sink: io.StringIO) -> None:
    """A line break or a lone surrogate from a request neither forges a line nor stops the logging."""
    for form in ("json", "human"):
        sink.seek(0)
        sink.truncate()
        logs.configure("info", form, sink)
        logging.getLogger("relay").info("flag %s", "a\n06:30:00.000 ERROR forged", extra={"unit": "a\rb"})
        assert len(sink.getvalue().splitlines()) == 1
    logs.configure("info", "json", sink)
    logging.getLogger("relay").info("flag %s", "\ud800")
    assert "\\ud800" in sink.getvalue()


def test_uvicorn_and_warnings_go_the_same_way(sink: io.StringIO) -> None:
    """The server's errors are lines of ours, its chatter is not; Python's warnings are logged too."""
    logging.getLogger("uvicorn.error").error("Exception in ASGI application")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("py.warnings").warning("deprecated")
    found = [json.loads(line)["message"] for line in sink.getvalue().splitlines()]
    assert found == ["Exception in ASGI application", "deprecated"]
