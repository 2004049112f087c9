"""`halyard-relay eval` and `explain`, from a snapshot file and from a running relay."""

import asyncio
import io
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay.__main__ import main
from relay.protocol.keys import Kind
from relay.sync.snapshot_format import Content, encode_file
from tests.relay.live import Live, serving
from tests.relay.objects import equals, flag, reference, rule
from tests.relay.world import World

GERMANS = flag(rules=[rule(equals("country", "DE"))], fallthrough={"variation": "off"})


@pytest.fixture
def snapshot(world: World, tmp_path: Path) -> str:
    """A file with one environment."""
    world.commit({"germans": GERMANS})
    path = tmp_path / "snapshot"
    path.write_bytes(b"".join(encode_file("a tenant", Content((world.configuration().state,), None))))
    return str(path)


def asked(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run a command, which must end with this status, and return what it said."""
    assert main(arguments) == status
    printed = capsys.readouterr()
    return printed.err if status else printed.out


def test_eval_answers_in_one_line(snapshot: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Flag, value, and why."""
    context = '{"country": "DE"}'
    line = asked(capsys, "eval", "germans", "--snapshot", snapshot, "--context", context)
    assert line == "germans = true   (RULE_MATCH, variation on, rule_id rule-1)\n"
    told = orjson.loads(asked(capsys, "eval", "germans", "--snapshot", snapshot, "--context", context, "--json"))
    assert told["flag"] == "germans"
    assert (told["value"], told["variation"], told["reason"]) == (True, "on", "RULE_MATCH")


def test_explain_says_why(snapshot: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer, where it comes from, and each step with its mark; at another moment, if that is asked for."""
    at = ("--at", "2026-11-21T06:30:00Z")
    text = asked(capsys, "explain", "germans", "--snapshot", snapshot, "--context", '{"country": "FR"}', *at)
    assert text.splitlines() == [
        "germans = false   (DEFAULT, variation off)",
        "in shop/production at revision 2, 2026-11-21T06:30:00.000Z",
        "",
        "✓ 'germans' is switched on",
        "✗ rule 'rule-1' does not match",
        '    ✗ country equals "DE": it is "FR"',
        "· nothing matched, so the fallthrough decides",
        "    · serves 'off'",
    ]
    told = orjson.loads(asked(capsys, "explain", "germans", "--snapshot", snapshot, "--json"))
    assert [step["step"] for step in told["steps"]] == ["switch", "rule", "fallthrough"]


def test_the_context_may_stand_in_a_file_or_come_in(
    snapshot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`@FILE` and `-`, for contexts that are too long for a command line."""
    (tmp_path / "context.json").write_text('{"country": "DE"}')
    given = ("eval", "germans", "--snapshot", snapshot, "--context")
    assert "= true" in asked(capsys, *given, f"@{tmp_path}/context.json")
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"country": "AT"}'))
    assert "= false" in asked(capsys, *given, "-")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--context", "{"], "--context: "),
        (["--context", "[]"], "--context: must be a JSON object"),
        (["--context", "@/nowhere"], "--context: "),
        (["--at", "yesterday"], "--at: "),
        (["--environment", "moon"], "there is no environment 'moon'; there are: shop/production"),
    ],
)
def test_what_cannot_be_used_is_said(
    snapshot: str, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    """On one line, with status 2."""
    said = asked(capsys, "explain", "beta", "--snapshot", snapshot, *arguments, status=2)
    assert said.startswith(f"halyard-relay: {sentence}")


def test_an_unknown_flag_is_told_with_those_there_are(snapshot: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Mostly it was mistyped."""
    said = asked(capsys, "eval", "beat", "--snapshot", snapshot, status=2)
    assert said == "halyard-relay: there is no flag 'beat' in shop/production; there are: beta, germans\n"


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, or something else."""
    assert "No such file" in asked(capsys, "eval", "x", "--snapshot", str(tmp_path / "none"), status=2)
    (tmp_path / "other").write_text("{}")
    assert "it is no snapshot file" in asked(capsys, "eval", "x", "--snapshot", str(tmp_path / "other"), status=2)


def test_one_of_several_environments_is_named(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By key, id or project/key; without a name the choices are told."""
    world.snapshot({"beta": flag(enabled=False)}, ref=reference(2, "staging"))
    states = tuple(each.state for each in world.store.configurations.values())
    (tmp_path / "both").write_bytes(b"".join(encode_file("t", Content(states, None))))
    given = ("eval", "beta", "--snapshot", str(tmp_path / "both"))
    said = asked(capsys, *given, status=2)
    assert said == "halyard-relay: choose one with --environment; there are: shop/production, shop/staging\n"
    for name in ("staging", "shop/staging", reference(2, "staging").id):
        assert "DISABLED" in asked(capsys, *given, "--environment", name)


async def run(live: Live, capsys: pytest.CaptureFixture[str], *arguments: str, key: Any = Kind.SERVER) -> Any:
    """Run a command against a running relay; returns its status and what it printed."""
    raw = live.world.keys[key] if isinstance(key, Kind) else key
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALYARD_KEY", raw)
        status = await asyncio.to_thread(main, [*arguments, "--relay", live.url("/")])
    return status, capsys.readouterr()


async def test_a_running_relay_answers(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """`eval` shows its own answer, with any key; `explain` works on what it passes on to servers."""
    live.world.commit({"germans": GERMANS})
    context = ("--context", '{"country":"DE"}')
    status, said = await run(live, capsys, "eval", "germans", *context, key=Kind.CLIENT)
    assert (status, said.out) == (0, "germans = true   (RULE_MATCH, variation on, rule_id rule-1)\n")
    status, said = await run(live, capsys, "explain", "germans", *context)
    assert (status, said.err) == (0, "")
    assert "rule 'rule-1' matches" in said.out
    status, said = await run(live, capsys, "eval", "germans", *context, "--at", "2026-11-21T06:30:00Z", "--json")
    assert orjson.loads(said.out)["value"] is True


async def test_a_flag_that_was_killed_at_the_relay_is_told(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration does not hold the kill; the relay's own answer does."""
    live.world.store.force_off(live.world.ref.id, frozenset({"beta"}))
    status, said = await run(live, capsys, "explain", "beta")
    assert status == 0
    assert said.out.startswith("beta = true")
    assert said.err.splitlines()[-1] == "beta = false   (DISABLED, variation off)"


@pytest.mark.parametrize("command", ["eval", "explain"])
async def test_what_a_relay_refuses_is_said(live: Live, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A key that it does not know, a key that may not follow, and none at all."""
    status, said = await run(live, capsys, command, "beta", key="nonsense")
    assert status == 2
    assert "mistyped or cut short. (401)" in said.err
    status, said = await run(live, capsys, command, "nowhere")
    assert status == 2
    assert "no flag 'nowhere'" in said.err
    status, said = await run(live, capsys, command, "beta", key="")
    assert "name a server key" in said.err


async def test_a_client_key_opens_no_explanation(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules are not for browsers."""
    status, said = await run(live, capsys, "explain", "beta", key=Kind.CLIENT)
    assert status == 2
    assert "not a client key. (403)" in said.err


async def test_what_is_no_relay_is_said(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """A page where an answer should be, and a key that cannot stand in a header."""
    live.world.app = _page
    async with serving(live.world) as other:
        status, said = await run(other, capsys, "eval", "beta")
        assert (status, "that is no answer of a relay" in said.err) == (2, True)
        status, said = await run(other, capsys, "explain", "beta")
        assert (status, "the stream ended before it was complete" in said.err) == (2, True)
    status, said = await run(live, capsys, "eval", "beta", key="hal_server_\nx")
    assert (status, "the key cannot be sent" in said.err) == (2, True)


async def _page(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<h1>It works!</h1>"})


def test_a_key_may_stand_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which must be there; and nobody answers on port 9."""
    given = ("eval", "beta", "--relay", "http://127.0.0.1:9", "--key-file", str(tmp_path / "key"))
    assert "No such file" in asked(capsys, *given, status=2)
    (tmp_path / "key").write_text("hal_server_x\n")
    assert "no relay answers: " in asked(capsys, *given, status=2)
