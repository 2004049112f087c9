"""`halyard-relay` from the command line: what stops it says so on a line each and ends with status 2."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from relay.__main__ import main, parser, source
from relay.errors import BadSettings
from relay.events.disk import lock_directory
from relay.protocol.keys import Kind, mint
from relay.settings import load, relay_key
from relay.settings_reader import Source
from tests.relay.otlp_receiver import receiver
from tests.stack import DEADLINE_S, free_port

RELAY_KEY = mint(Kind.RELAY, bytes(range(32)))


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this machine's settings out, and what the command does to logging in."""
    for name in os.environ:
        if name.startswith("HALYARD_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def stopped(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Run the command, which must end with status 2, and return what it said."""
    assert main(arguments) == 2
    return capsys.readouterr().err.splitlines()


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "relay.key"
    path.write_text(RELAY_KEY + "\n")
    return str(path)


def test_flags_override() -> None:
    """Each flag sets the setting that its help names."""
    flags = ["--upstream-url", "http://u:1", "--port", "1", "--admin-port", "2", "--data-dir", "/d", "--host", "::1"]
    settings = load(source(parser().parse_args(flags)))
    assert settings.upstream.url == "http://u:1"
    assert (settings.serve.host, settings.serve.port, settings.admin.port) == ("::1", 1, 2)
    assert settings.data.dir == Path("/d")


def test_a_relay_key_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a key there is nothing to follow; the three ways to set one are named."""
    (line,) = stopped(capsys)
    assert line.startswith("halyard-relay: relay.upstream.key: is required")
    assert "--upstream-key-file" in line


@pytest.mark.parametrize(
    ("key", "sentence"), [("hal_relay_typo", "this is no key"), (mint(Kind.SERVER, bytes(32)), "is a server key")]
)
def test_another_key_is_refused_without_showing_it(key: str, sentence: str) -> None:
    """A wrong key is found before any connection is made, and does not appear in the sentence."""
    settings = load(Source(environ={"HALYARD_RELAY_UPSTREAM__KEY": key}))
    with pytest.raises(BadSettings, match=sentence) as caught:
        relay_key(settings)
    assert key not in str(caught.value)


def test_bad_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem has a line of its own, under the name of the flag."""
    lines = stopped(capsys, "--port", "ten", "--upstream-url", "here")
    assert [line.split(": ")[1] for line in lines] == ["--upstream-url", "--port"]


def test_port_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path, key_file: str) -> None:
    """A port that is taken is named, with its setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ["--upstream-key-file", key_file, "--port", str(port), "--data-dir", str(tmp_path / "data")]
        (line,) = stopped(capsys, *flags)
    assert line == f"halyard-relay: relay.serve.port: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_directory_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path, key_file: str) -> None:
    """Two relays never share a directory."""
    spool = tmp_path / "data" / "spool"
    spool.mkdir(parents=True)
    lock = lock_directory(spool)
    try:
        flags = [
            "--upstream-key-file",
            key_file,
            "--port",
            "0",
            "--admin-port",
            "0",
            "--data-dir",
            str(tmp_path / "data"),
        ]
        (line,) = stopped(capsys, *flags)
    finally:
        os.close(lock)
    assert line == f"halyard-relay: relay.data.dir: {tmp_path / 'data'} is used by another relay that is running"


def test_directory_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path, key_file: str) -> None:
    """A directory that cannot be made is named, with the system's reason."""
    (tmp_path / "file").write_text("")
    flags = ["--port", "0", "--admin-port", "0", "--data-dir", str(tmp_path / "file" / "data")]
    (line,) = stopped(capsys, "--upstream-key-file", key_file, *flags)
    assert "relay.data.dir" in line
    assert "Not a directory" in line


async def test_a_whole_relay_exports_until_its_end(tmp_path: Path) -> None:
    """A process with an endpoint sends its requests' spans and its metrics, the last of them after SIGTERM."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    async with receiver() as here:
        settings = {
            "UPSTREAM__KEY": RELAY_KEY,
            "UPSTREAM__URL": "http://127.0.0.1:9",
            "SERVE__PORT": str(free_port()),
            "ADMIN__PORT": str(free_port()),
            "DATA__DIR": str(tmp_path),
            "DRAIN__ACCEPT_S": "0",
            "OTEL__ENDPOINT": here.url,
        }
        environ = {**os.environ, **{f"HALYARD_RELAY_{name}": value for name, value in settings.items()}}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", env=environ, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as session:
            while b"serving" not in await process.stderr.readline():
                pass
            async with session.get(f"http://127.0.0.1:{settings['SERVE__PORT']}/nowhere") as answer:
                assert answer.status == 404
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert here.span("GET").kind == 2
        assert here.metrics["halyard_relay_build_info"].gauge.data_points[0].as_double == 1
        assert "process_resident_memory_bytes" in here.metrics
