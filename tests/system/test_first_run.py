"""`halyard up` as a new user meets it: what it prints works, a toggle arrives, a restart keeps the data."""

import asyncio
import base64
import json
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Running, new_session, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]

DEMO_MEMBERS = {
    "upstream_url", "relay_url", "relay_admin_url", "email", "password", "token", "server_key", "client_key",
    "relay_key", "project", "environment", "flag",
}  # fmt: skip


def context_parameter(**context: Any) -> str:
    """Return a context as the client stream's query takes it."""
    return base64.urlsafe_b64encode(json.dumps(context).encode()).decode().rstrip("=")


async def test_demo_json_names_everything_a_script_needs(running: Running) -> None:
    """demo.json has exactly its documented members, and is readable by its owner only."""
    assert set(running.demo) == DEMO_MEMBERS
    assert (running.data_dir / "demo.json").stat().st_mode & 0o777 == 0o600


async def test_the_printed_curl_answers_a_flag(running: Running) -> None:
    """The curl command that is printed can be pasted as it stands and answers with a value."""
    assert running.main is not None
    printed = running.main.text()
    start = printed.index("curl ")
    command = shlex.split(printed[start:].split("\n\n")[0].replace("\\\n", " "))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    answer = json.loads(out)
    assert answer["key"] == running.demo["flag"]
    assert answer["value"] is True


async def test_every_demo_flag_type_evaluates(running: Running) -> None:
    """The demo project holds flags of all four types, and each evaluates without an error."""
    status, body = await running.relay().post("/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "user-1"}})
    assert status == 200
    assert all("errorCode" not in flag for flag in body["flags"]), body
    kinds = {type(flag["value"]) for flag in body["flags"]}
    assert {bool, str, dict} <= kinds
    assert kinds & {int, float}


async def test_sign_in_with_the_demo_account(running: Running) -> None:
    """The e-mail and password of demo.json open a session that may read the demo project."""
    body = {"email": running.demo["email"], "password": running.demo["password"]}
    status, tokens = await running.upstream(None).post("/api/v2/auth/login", body)
    assert status == 200, tokens
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    status, project = await running.upstream(None).call("GET", running.project_path, **headers)
    assert status == 200
    assert project["key"] == running.demo["project"]


async def test_a_toggle_changes_the_answer_and_patches_the_open_stream(running: Running) -> None:
    """After a toggle by the API the relay answers the new value and an open client stream gets one patch with it."""
    flag = running.demo["flag"]
    path = f"/api/v2/client/stream?context={context_parameter(targetingKey='user-1')}"
    async with running.relay("client_key").stream(path) as stream:
        put = await stream.next_named("put")
        assert put.data["flags"][flag]["value"] is True
        try:
            await running.toggle(enabled=False)
            patch = await stream.next_named("put", "patch", "delete")
            assert patch.event == "patch"
            assert {key: found["value"] for key, found in patch.data["flags"].items()} == {flag: False}
            assert (await running.evaluate())["value"] is False
        finally:
            await running.toggle(enabled=True)
        back = await stream.next_named("put", "patch", "delete")
        assert (back.event, back.data["flags"][flag]["value"]) == ("patch", True)
        assert list(back.data["flags"]) == [flag]


async def test_both_services_answer_their_probes(running: Running) -> None:
    """livez, readyz, startupz, status and metrics answer on the relay's admin port and on the upstream's port."""
    for client in (running.admin, running.upstream(None)):
        for path in ("/livez", "/readyz", "/startupz", "/status"):
            status, body = await client.get(path)
            assert (path, status) == (path, 200), body
        assert running.session is not None
        async with running.session.get(client.base_url + "/metrics") as answer:
            assert answer.status == 200
            assert "halyard" in await answer.text()


async def test_counts_reach_the_upstream(running: Running) -> None:
    """Evaluations at the relay can be read upstream by flag, environment, variation and hour."""
    await running.evaluate()

    async def counted() -> bool:
        status, body = await running.manage.get(f"{running.project_path}/metrics?flag={running.demo['flag']}")
        assert status == 200, body
        return any(row["count"] >= 1 and row["environment"] == running.demo["environment"] for row in body["data"])

    await until("counter rows upstream", counted, deadline_s=30)


async def test_ctrl_c_stops_both_and_a_restart_keeps_the_data(tmp_path: Path) -> None:
    """Ctrl-C ends upstream and relay within 2 s with status 0; the next start serves the same project and keys."""
    async with new_session() as session:
        stack = Running(tmp_path, session=session)
        try:
            stack.main = stack.together()
            await stack.ready()
            before = stack.demo
            body = {"key": "kept", "name": "Kept", "type": "string", "default_value": "v1"}
            status, made = await stack.manage.post(f"{stack.project_path}/flags", body)
            assert status == 201, made
            started = time.monotonic()
            assert stack.main.stop(signal.SIGINT) == 0, stack.main.text()
            assert time.monotonic() - started < 2
            stack.main = stack.together()
            await stack.ready()
            assert stack.demo == before
            status, kept = await stack.manage.get(f"{stack.project_path}/flags/kept")
            assert (status, kept["id"]) == (200, made["id"])
            assert (await stack.evaluate())["value"] is True
        finally:
            await stack.close()
