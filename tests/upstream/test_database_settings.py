"""What the settings of the database may say, and what the operator is told where they cannot be meant."""

import builtins
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from relay.clock import SystemClock
from relay.errors import BadSettings
from relay.settings_reader import Source
from upstream import data_dir
from upstream.settings import Auth, UpstreamSettings, load
from upstream.settings import Database as DatabaseSettings
from upstream.storage.database import Database, Unavailable
from upstream.storage.engines import shown

# Nothing listens there: connections are refused at once.
NOWHERE = "postgresql://halyard:s3cret@127.0.0.1:1/halyard"


def settings(url: str, **auth: Any) -> UpstreamSettings:
    return UpstreamSettings(database=DatabaseSettings(url=SecretStr(url)), auth=Auth(**auth))


def test_a_server_that_is_away_is_named_without_the_password() -> None:
    """The sentence has the address and the reason."""
    with pytest.raises(BadSettings) as caught:
        data_dir.open_stored(settings(NOWHERE), SystemClock())
    (problem,) = caught.value.problems
    assert problem.startswith("upstream.database.url: postgresql://halyard:***@127.0.0.1:1/halyard: ")
    assert "refused" in problem
    assert "s3cret" not in problem


async def test_a_server_that_is_away_is_unavailable() -> None:
    """A request that needs it is refused and can be sent again."""
    with closing(Database(NOWHERE)) as away:
        for call in (away.read, away.write):
            with pytest.raises(Unavailable):
                await call(lambda _: None)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres://u:p@h/d", "postgres://u:***@h/d"),
        (
            "postgresql+psycopg://u@h/d?password=p&sslmode=require",
            "postgresql://u@h/d?password=%2A%2A%2A&sslmode=require",
        ),
        ("sqlite:////var/lib/halyard.db", "sqlite:////var/lib/halyard.db"),
    ],
)
def test_no_password_is_shown(url: str, said: str) -> None:
    """Wherever it stands in the URL; the rest is what the operator wrote."""
    assert shown(url) == said


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for PostgreSQL without psycopg is told what to install."""
    found = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'", name=name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(BadSettings, match=r"psycopg.*pip install 'halyard\[upstream\]'"):
        data_dir.open_stored(settings("postgresql://h/d"), SystemClock())


def test_the_signing_key_is_for_all_upstreams(tmp_path: Path) -> None:
    """On PostgreSQL it must be set, as a key in one machine's directory is unknown to the others."""
    with pytest.raises(BadSettings, match=r"upstream\.auth\.signing_key: set it, or signing_key_file"):
        data_dir.signing_key(settings("postgresql://h/d"))
    assert data_dir.signing_key(settings("postgresql://h/d", signing_key="k" * 32)) == "k" * 32
    assert not list(tmp_path.iterdir())


def test_the_url_may_stand_in_a_file(tmp_path: Path) -> None:
    """It holds a password, so it can be given as a secret file, and never shows in a problem."""
    file = tmp_path / "url"
    file.write_text("postgresql://halyard:s3cret@db/halyard\n")
    read = load(Source(None, {"HALYARD_UPSTREAM_DATABASE__URL_FILE": str(file)}))
    assert (read.database_url, read.is_postgresql) == ("postgresql://halyard:s3cret@db/halyard", True)
    assert "s3cret" not in repr(read)
    environ = {
        "HALYARD_UPSTREAM_DATABASE__URL": "mysql://halyard:s3cret@db/halyard",
        "HALYARD_UPSTREAM_REDIS__URL": "http://:s3cret@redis",
    }
    with pytest.raises(BadSettings) as caught:
        load(Source(None, environ))
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == list(environ)
    assert "s3cret" not in str(caught.value.problems)
