"""The commands that maintain a database, run on a rig's. Test modules import the fixture `run_fixture` by name."""

import os
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from tests.upstream.databases import IS_POSTGRESQL, url_of
from tests.upstream.rig import Rig
from upstream.cli import app

Run = Callable[..., tuple[int, str]]


@pytest.fixture(name="run")
def run_fixture(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the rig's database, which nobody is connected to; returns the exit status and what was said."""
    for name in os.environ:
        if name.startswith("HALYARD_UPSTREAM_"):
            monkeypatch.delenv(name)
    if IS_POSTGRESQL:
        monkeypatch.setenv("HALYARD_UPSTREAM_DATABASE__URL", url_of(rig.path))

    def run(*arguments: object) -> tuple[int, str]:
        rig.engine.dispose()
        done = CliRunner().invoke(app, ["upstream", *map(str, arguments), "--data-dir", str(rig.path.parent)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run
