"""The trees that the images consist of: what they hold, and that both services work from them with nothing else.

Built by the script that the Dockerfile runs, with this machine's interpreter. What only an engine can show, such as
the base image, is not shown here.
"""

import re
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.container import image
from tests.container.dockerfile import ROOT, stages
from tests.container.image import Image
from tests.stack import Client, Stack, new_session, until

pytestmark = pytest.mark.system

STAGES = stages()
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
# What a drain of a service without streams takes is waiting, and that was tested elsewhere.
QUICK = {"HALYARD_RELAY_DRAIN__ACCEPT_S": "0.1", "HALYARD_UPSTREAM_DRAIN__ACCEPT_S": "0.1"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that the image's user can reach; pytest's own are for root only."""
    why = image.lacking()
    if why is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="halyard-image-") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture(scope="module")
def trees(place: Path) -> dict[str, Path]:
    """Both trees, made at the same time, then shut against writing."""
    made = {target: place / target for target in ("relay", "upstream")}
    builds = [image.build(target, prefix) for target, prefix in made.items()]
    assert [build.wait(image.BUILD_DEADLINE_S) for build in builds] == [0, 0]
    for prefix in made.values():
        subprocess.run(["chmod", "-R", "a-w", str(prefix)], check=True)
    return made


@pytest.fixture
def relay(trees: dict[str, Path], place: Path, request: pytest.FixtureRequest) -> Iterator[Image]:
    made = Image(STAGES["relay"], trees["relay"], place / f"relay-{request.node.name}")
    yield made
    made.close()


@pytest.fixture
def upstream(trees: dict[str, Path], place: Path, request: pytest.FixtureRequest) -> Iterator[Image]:
    made = Image(STAGES["upstream"], trees["upstream"], place / f"upstream-{request.node.name}")
    yield made
    made.close()


def packages(tree: Path) -> Path:
    (found,) = tree.glob("lib/python3.*/site-packages")
    return found


def distributions(tree: Path) -> set[str]:
    names = [each.name.split("-")[0] for each in packages(tree).glob("*.dist-info")]
    return {re.sub(r"[._-]+", "-", name).lower() for name in names}


def locked(target: str) -> set[str]:
    return set(LOCKED.findall((ROOT / f"requirements/{target}.txt").read_text()))


def test_a_relay_has_nothing_of_the_upstream(trees: dict[str, Path]) -> None:
    """The relay's tree has its locked dependencies, none that only the upstream has, and not the upstream."""
    found = distributions(trees["relay"])
    assert found <= locked("relay") | {"halyard"}
    assert {"aiohttp", "halyard", "orjson", "starlette", "uvicorn"} <= found
    assert not found & (locked("upstream") - locked("relay"))
    assert not (packages(trees["relay"]) / "upstream").exists()
    assert not (trees["relay"] / "bin/halyard").exists()


def test_the_upstream_has_what_it_needs(trees: dict[str, Path]) -> None:
    """The upstream's tree has its locked dependencies, and both services."""
    found = distributions(trees["upstream"])
    assert found <= locked("upstream") | {"halyard"}
    assert {"fastapi", "sqlalchemy", "alembic", "typer"} <= found
    assert {"halyard", "halyard-relay"} <= {each.name for each in (trees["upstream"] / "bin").iterdir()}


@pytest.mark.parametrize("target", ["relay", "upstream"])
def test_holds_nothing_for_developers(trees: dict[str, Path], target: str) -> None:
    """No installer, no tests, no sources of C, and no program but ours and the interpreter."""
    tree = trees[target]
    assert not distributions(tree) & {"pip", "setuptools", "wheel", "pytest"}
    assert all(re.match(r"(python|halyard)", each.name) for each in (tree / "bin").iterdir())
    assert not [each for each in tree.rglob("*") if each.name in {"tests", "test", "testing"} and each.is_dir()]
    assert not [each for each in tree.rglob("*") if each.suffix in {".c", ".h", ".pyx", ".pyi"}]


@pytest.mark.parametrize("target", ["relay", "upstream"])
def test_is_compiled_beforehand(trees: dict[str, Path], target: str) -> None:
    """Every module has its bytecode, so that a read-only tree costs no compiling at each start."""
    sources = list(packages(trees[target]).rglob("*.py"))
    compiled = {each.parent.parent / f"{each.name.split('.')[0]}.py" for each in packages(trees[target]).rglob("*.pyc")}
    assert len(sources) > 300
    assert [each for each in sources if each not in compiled] == []


def test_only_the_data_directory_can_be_written(relay: Image) -> None:
    """The place in which the other tests run is as it says: read-only but for the data, and without rights."""
    assert relay.run("touch", "/data/here")[0] == 0
    assert (relay.data / "here").stat().st_uid == image.USER
    for path in ("/tmp/here", "/dev/shm/here", "/var/tmp/here", "/opt/halyard/here"):
        status, text = relay.run("touch", path)
        assert status != 0
        assert "Read-only file system" in text or "Permission denied" in text


def test_sqlite_sorts_in_the_data_directory(upstream: Image) -> None:
    """A query that needs more than memory works, though there is no place for temporary files but the volume."""
    sort = (
        "import sqlite3; c = sqlite3.connect('/data/probe.db'); c.execute('PRAGMA cache_size=10');"
        "c.execute('PRAGMA temp_store=FILE'); c.execute('CREATE TEMP TABLE t AS WITH RECURSIVE n(i) AS "
        "(SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) SELECT hex(randomblob(100)) x FROM n');"
        "print(len(c.execute('SELECT x FROM t ORDER BY x').fetchall()))"
    )
    assert upstream.run("/opt/halyard/bin/python", "-Ic", sort) == (0, "20000\n")


def test_an_installation_is_founded(upstream: Image) -> None:
    """As the chart's init container does it, with the data directory as the one place to write to."""
    command = ("upstream", "init", "--sign-in-file", "/data/first-sign-in")
    assert upstream.run("/opt/halyard/bin/halyard", *command) == (0, "")
    assert (upstream.data / "relay.key").read_text().startswith("hal_relay_")
    assert (upstream.data / "first-sign-in").stat().st_uid == image.USER


def test_says_what_is_missing(relay: Image) -> None:
    """Without a key the relay's container ends with status 2 and a sentence."""
    status, text = relay.run(*relay.stage.command)
    assert status == 2
    assert "relay.upstream.key: is required" in text


async def test_both_services_work_from_their_images(relay: Image, upstream: Image) -> None:
    """A flag is evaluated by both, the health checks pass, SIGTERM ends both with 0, a backup is whole."""
    ports = Stack(upstream.data)
    upstream_ports = {"HALYARD_UPSTREAM_SERVE__PORT": str(ports.upstream_port), **QUICK}
    demo_ports = {
        "HALYARD_RELAY_SERVE__PORT": str(ports.relay_port),
        "HALYARD_RELAY_ADMIN__PORT": str(ports.admin_port),
    }
    async with new_session() as session:

        async def ready(url: str, path: str = "/readyz") -> bool:
            return (await Client(session, url, None).get(path))[0] == 200

        # The demo project, as `docker run … up --data-dir /data` makes it.
        both = upstream.start(
            [*upstream.stage.entrypoint, "up", "--data-dir", "/data", "--demo"], upstream_ports | demo_ports
        )
        await until("demo ready", lambda: ready(ports.admin_url))
        demo: dict[str, Any] = ports.demo
        assert both.stop() == 0, both.text()

        authority = upstream.start(upstream.stage.command, upstream_ports)
        await until("upstream ready", lambda: ready(ports.upstream_url))
        beside = relay.start(
            relay.stage.command,
            {
                **QUICK,
                **demo_ports,
                "HALYARD_RELAY_UPSTREAM__URL": ports.upstream_url,
                "HALYARD_RELAY_UPSTREAM__KEY": demo["relay_key"],
            },
        )
        await until("relay ready", lambda: ready(ports.admin_url))
        for url in (ports.upstream_url, ports.relay_url):
            client = Client(session, url, demo["server_key"])
            path = f"/ofrep/v1/evaluate/flags/{demo['flag']}"
            status, answer = await client.post(path, {"context": {"targetingKey": "user-1"}})
            assert (status, answer["value"]) == (200, True)
        status, _ = await Client(session, ports.relay_url, demo["server_key"]).post(
            "/api/v2/track", {"events": [{"id": "image-1", "type": "track", "name": "purchase", "unit": "user-1"}]}
        )
        assert status == 202

        # The backup that docs/deploy.md tells, beside the running upstream.
        found = re.search(
            r"-- (/opt/halyard/bin/halyard upstream backup [^`]+)`", (ROOT / "docs/deploy.md").read_text()
        )
        assert found is not None
        status, said = upstream.run(*found.group(1).split())
        assert (status, "found it sound" in said) == (0, True), said
        with closing(sqlite3.connect(upstream.data / "backup.db")) as backup:
            assert backup.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert backup.execute("SELECT count(*) FROM projects").fetchone() == (1,)

        for each, port in ((relay, ports.admin_port), (upstream, ports.upstream_port)):
            *words, program = each.stage.health_check
            there = re.sub(r", 87\d\d,", f", {port},", program)
            assert there != program
            assert each.run(*words, there) == (0, "")
        assert beside.stop(signal.SIGTERM) == 0, beside.text()
        assert authority.stop(signal.SIGTERM) == 0, authority.text()
        assert (relay.data / "snapshot").is_file()
        assert upstream.run(*words, there)[0] != 0
        for process in (beside, authority):
            assert "Traceback" not in process.text(), process.text()
