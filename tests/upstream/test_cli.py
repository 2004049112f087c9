"""`halyard` from the command line, without starting the services."""

import asyncio
import builtins
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner, Result

from relay.clock import SystemClock
from relay.errors import BadSettings
from relay.protocol.keys import Kind, fingerprint, kind_of
from upstream import __main__ as program
from upstream import data_dir, up
from upstream.api.accounts import SetupToken
from upstream.api.passwords import Passwords
from upstream.cli import app
from upstream.demo import read
from upstream.first_start import SETUP_TOKEN_FILE, setup_token


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this machine's settings out, and what commands do to logging in; hash passwords cheaply."""
    for name in os.environ:
        if name.startswith("HALYARD_"):
            monkeypatch.delenv(name)
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(up, "Passwords", lambda: Passwords(cheap))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def halyard(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def planned(directory: Path, *, is_demo: bool, **ports: int | None) -> up.Plan:
    given: dict[str, int | None] = {"upstream_port": None, "relay_port": None, "admin_port": None, **ports}
    return up.plan(config=None, directory=directory, is_demo=is_demo, **given)


def test_version() -> None:
    """The version is that of the installed distribution."""
    assert halyard("version").stdout == "halyard 0.1.0\n"


def test_init_founds_an_installation_once(tmp_path: Path) -> None:
    """The first time it says how to sign in, or writes it to a private file; then there is nothing to do."""
    printed = tmp_path / "printed"
    first = halyard("upstream", "init", "--data-dir", str(printed))
    assert first.stdout.startswith("sign in    owner@halyard.example   ")
    assert kind_of((printed / "relay.key").read_text()) is Kind.RELAY
    again = halyard("upstream", "init", "--data-dir", str(printed))
    assert (again.exit_code, again.stdout) == (0, "")

    written = tmp_path / "written"
    quiet = halyard("upstream", "init", "--data-dir", str(written), "--sign-in-file", str(tmp_path / "sign-in"))
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    assert (tmp_path / "sign-in").stat().st_mode & 0o777 == 0o600
    assert "relay key" in (tmp_path / "sign-in").read_text()


def test_init_never_loses_the_password(tmp_path: Path) -> None:
    """What cannot be written is said, nobody is made, and the next attempt tells a password that works."""
    data = ("--data-dir", str(tmp_path / "data"))
    failed = halyard("upstream", "init", *data, "--sign-in-file", str(tmp_path / "nowhere" / "sign-in"))
    assert failed.exit_code == 2
    assert "--sign-in-file: " in failed.stderr
    assert halyard("upstream", "init", *data).stdout.startswith("sign in    owner@halyard.example   ")


def test_init_makes_no_second_relay_key(tmp_path: Path) -> None:
    """Whoever removed the file, or revoked the key, will have meant it."""
    halyard("upstream", "init", "--data-dir", str(tmp_path))
    (tmp_path / "relay.key").unlink()
    assert halyard("upstream", "init", "--data-dir", str(tmp_path)).exit_code == 0
    assert not (tmp_path / "relay.key").exists()


def test_a_member_who_cannot_sign_in_gets_a_token(tmp_path: Path) -> None:
    """A reset, or an invitation for whoever has not joined, is printed, also while the upstream runs."""
    data = ("--data-dir", str(tmp_path))
    halyard("upstream", "init", *data)
    with data_dir.taken(tmp_path):
        printed = halyard("upstream", "reset-password", "Owner@halyard.example", *data)
    assert printed.exit_code == 0, printed.stderr
    words = printed.stdout.split()
    assert (words[0], len(words[1]), words[2]) == ("token", 64, "until")
    with closing(data_dir.open_stored(planned(tmp_path, is_demo=False).upstream, SystemClock())) as database:
        query = "SELECT kind, hash, created_by FROM one_time_tokens"
        (row,) = asyncio.run(database.read(lambda connection: connection.exec_driver_sql(query).all()))
    assert tuple(row) == ("reset", fingerprint(words[1]), None)


def test_nobody_else_gets_a_token(tmp_path: Path) -> None:
    """An address that nobody uses, and a directory that is not there, are said; nothing is made."""
    halyard("upstream", "init", "--data-dir", str(tmp_path))
    unknown = halyard("upstream", "reset-password", "x@halyard.example", "--data-dir", str(tmp_path))
    assert (unknown.exit_code, unknown.stderr) == (2, "halyard: there is no member 'x@halyard.example' here\n")
    nowhere = halyard("upstream", "reset-password", "x@halyard.example", "--data-dir", str(tmp_path / "no"))
    assert nowhere.exit_code == 2
    assert "upstream.data.dir" in nowhere.stderr
    assert not (tmp_path / "no").exists()


async def test_a_setup_token_is_there_as_long_as_nobody_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is kept over restarts in a private file that the log names, and gone once somebody can sign in."""
    settings = planned(tmp_path, is_demo=False).upstream
    file = tmp_path / SETUP_TOKEN_FILE

    async def at_start() -> SetupToken | None:
        with data_dir.taken(tmp_path), closing(data_dir.open_stored(settings, SystemClock())) as database:
            return await setup_token(tmp_path, database)

    first = await at_start()
    assert first is not None
    assert (file.read_text(), file.stat().st_mode & 0o777) == (first.text, 0o600)
    again = await at_start()
    assert again is not None
    assert again.text == first.text
    (record, _) = (each for each in caplog.records if "nobody can sign in" in each.message)
    assert vars(record)["file"] == str(file)
    assert first.text not in caplog.text + capsys.readouterr().out + str(vars(record))
    await up.found(settings)
    assert await at_start() is None
    assert not file.exists()


def test_config_example() -> None:
    """`config.example.toml` is the output of this command."""
    assert halyard("config", "example").stdout == Path("config.example.toml").read_text()


def test_bad_settings_of_both_services_are_shown_together(tmp_path: Path) -> None:
    """`up` reads both trees first; every problem is on a line of its own, once, and the status is 2."""
    config = tmp_path / "config.toml"
    config.write_text("[relay.serve]\nprot = 1\n[upstream.auth]\naccess_token_s = 1\n[other]\n")
    result = halyard("up", "--config", str(config))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"halyard: other: unknown table in {config}; see config.example.toml for every setting",
        "halyard: upstream.auth.access_token_s: must be greater than or equal to 60, not 1",
        "halyard: relay.serve.prot: unknown setting; did you mean relay.serve.port?",
    ]


def test_ports_in_use_are_found_before_anything_starts(tmp_path: Path) -> None:
    """All of them at once, and nothing is made."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [str(each.getsockname()[1]) for each in (one, two)]
        directory = tmp_path / "data"
        result = halyard("up", "--data-dir", str(directory), "--upstream-port", ports[0], "--relay-port", ports[1],
                         "--admin-port", "0")  # fmt: skip
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "upstream.serve.port", "relay.serve.port", "relay.admin.port",
    ]  # fmt: skip
    assert not directory.exists()


def test_one_port_for_two_listeners_is_found(tmp_path: Path) -> None:
    """Each is free, and still only one of them can have it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(BadSettings, match=r"^relay\.serve\.port: cannot listen on"):
        up.check_ports(planned(tmp_path, is_demo=True, upstream_port=port, relay_port=port))


def test_serve_says_what_is_wrong(tmp_path: Path) -> None:
    """A directory that another process has is named; the status is 2."""
    with data_dir.taken(tmp_path):
        result = halyard("upstream", "serve", "--port", "0", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == f"halyard: upstream.data.dir: {tmp_path} is used by another upstream that is running\n"


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    """A file that is no database is named, with the reason."""
    (tmp_path / "halyard.db").write_text("not a database at all, but long enough to look at")
    result = halyard("upstream", "serve", "--port", "0", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr.startswith("halyard: upstream.database.url: sqlite:///")


async def test_prepare_makes_the_demo_and_the_relays_key(tmp_path: Path) -> None:
    """What is printed is what demo.json holds, and the relay's key file is for its owner only."""
    plan = planned(tmp_path, is_demo=True, relay_port=9_701)
    text = await up.prepare(plan)
    demo = read(tmp_path / "demo.json")
    assert demo["relay_url"] == "http://127.0.0.1:9701"
    assert demo["server_key"] in text
    key_file = tmp_path / "relay.key"
    assert (key_file.read_text(), key_file.stat().st_mode & 0o777) == (demo["relay_key"], 0o600)


async def test_prepare_without_the_demo(tmp_path: Path) -> None:
    """An empty installation gets an owner, whose password is shown once, and a relay key that stays."""
    plan = planned(tmp_path, is_demo=False)
    first = await up.prepare(plan)
    assert "shown this once" in first
    key = (tmp_path / "relay.key").read_text()
    assert kind_of(key) is Kind.RELAY
    assert "shown this once" not in await up.prepare(plan)
    assert (tmp_path / "relay.key").read_text() == key
    assert not (tmp_path / "demo.json").exists()


def test_services_are_given_what_must_fit_together(tmp_path: Path) -> None:
    """Directories, ports, the upstream's address and the key file are flags; the rest is the operator's own."""
    upstream, relay = up.services(planned(tmp_path, is_demo=True, upstream_port=1, relay_port=2, admin_port=3))
    assert upstream.arguments == ["upstream", "upstream", "serve", "--port", "1", "--data-dir", str(tmp_path)]
    flags = dict(zip(relay.arguments[1::2], relay.arguments[2::2], strict=True))
    assert flags == {
        "--port": "2", "--admin-port": "3", "--data-dir": str(tmp_path / "relay"),
        "--workers": "1", "--upstream-url": "http://127.0.0.1:1", "--upstream-key-file": str(tmp_path / "relay.key"),
    }  # fmt: skip
    assert (upstream.probe, relay.probe) == (("127.0.0.1", 1, "/livez"), ("127.0.0.1", 3, "/readyz"))
    assert relay.environ == {"HALYARD_RELAY_LOG__FORMAT": "human"}


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("a", "a")])
def test_addresses_are_shown_as_clients_write_them(host: str, shown: str) -> None:
    """Nobody can connect to 0.0.0.0."""
    assert up.reachable(host) == shown


def test_signing_key(tmp_path: Path) -> None:
    """Made once and kept for its owner only, so that sign-ins survive a restart; a key that is set is used instead."""
    plan = planned(tmp_path, is_demo=True)
    first = data_dir.signing_key(plan.upstream)
    assert len(first) >= 32
    assert data_dir.signing_key(plan.upstream) == first
    assert (tmp_path / "signing-key").stat().st_mode & 0o777 == 0o600
    os.environ["HALYARD_UPSTREAM_AUTH__SIGNING_KEY"] = "x" * 32
    try:
        assert data_dir.signing_key(planned(tmp_path, is_demo=True).upstream) == "x" * 32
    finally:
        del os.environ["HALYARD_UPSTREAM_AUTH__SIGNING_KEY"]


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """A schema that this version does not know is left alone (F20)."""
    plan = planned(tmp_path, is_demo=True)
    with closing(data_dir.open_stored(plan.upstream, SystemClock())):
        pass
    import sqlite3  # noqa: PLC0415 - only to play the newer version

    with closing(sqlite3.connect(tmp_path / "halyard.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from the future'")
        connection.commit()
    with pytest.raises(BadSettings, match="newer than what this version of Halyard knows"):
        data_dir.open_stored(plan.upstream, SystemClock())


def test_without_the_extra_the_remedy_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The relay's installation has no typer; `halyard` then says what to install."""
    found = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "typer":
            raise ModuleNotFoundError(name="typer")
        return found(name, *rest)

    monkeypatch.delitem(sys.modules, "upstream.cli")
    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 2
    assert "pip install 'halyard[upstream]'" in capsys.readouterr().err


def test_an_interrupt_before_anything_has_begun_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while the imports run ends with the status that shells know, and no traceback."""
    found = builtins.__import__

    def interrupted(name: str, *rest: Any) -> Any:
        if name == "typer":
            raise KeyboardInterrupt
        return found(name, *rest)

    monkeypatch.delitem(sys.modules, "upstream.cli")
    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "")
