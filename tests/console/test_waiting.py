"""Changes that wait for a time or a review, and the versions that were, by the command line at a real upstream."""

import json
from pathlib import Path

import pytest

from tests.console.terminal import halyard
from tests.console.test_daily import is_on, made
from tests.upstream.test_upstream_process import World

pytestmark = pytest.mark.usefixtures("signed_in")
PASSWORD = "a password of somebody else"


@pytest.fixture
def second_person(signed_in: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where Bob's sign-in is kept, who may write flags and is not the demo's owner."""
    email = f"bob-{home.name}@example.com"
    invited = halyard("members", "invite", email, "--role", "developer", "--json").done().json
    with monkeypatch.context() as elsewhere:
        bobs = str(home / "bob")
        elsewhere.setenv("XDG_CONFIG_HOME", bobs)
        token, url = invited["invitation"]["token"], signed_in.url
        halyard("join", token, "--url", url, "--name", "Bob", "--password-stdin", stdin=f"{PASSWORD}\n").done()
        halyard("use", signed_in.demo.project, "staging").done()
    return bobs


def test_a_change_can_wait_for_its_time() -> None:
    """`--at` schedules: the answer names the time and how to call it off; the list shows it until then."""
    flag = made("to-schedule")
    typed = halyard("toggle", flag, "on", "-e", "staging", "--at", "2h", "-q").done()
    schedule = typed.out.strip()
    said = halyard("toggle", flag, "on", "-e", "staging", "--at", "2026-12-24T07:00:00+01:00").done().out
    assert said.startswith("Scheduled for 2026-12-24 06:00:00 UTC. Call it off with: halyard schedules cancel ")
    assert not is_on(flag, "staging")
    listed = next(line for line in halyard("schedules", "list").done().out.splitlines() if schedule in line)
    assert "pending" in listed.split()
    assert " ".join(listed.split()).endswith(f"toggle flag {flag} staging")
    assert halyard("schedules", "cancel", schedule).status == 2
    assert halyard("schedules", "cancel", schedule, "--yes").done().out == f"Called off {schedule}.\n"
    assert halyard("schedules", "cancel", schedule, "--yes").status == 5


def test_a_change_can_be_proposed_reviewed_and_applied(second_person: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The author may not approve; somebody else does, after seeing what it changes; then it is applied."""
    flag = made("to-propose")
    typed = halyard("toggle", flag, "on", "-e", "staging", "--propose", "Switch it on").done()
    request = typed.out.split("halyard requests show ")[1].split()[0].rstrip(".")
    halyard("flags", "update", flag, "--name", "Proposed", "--propose-to", request).done()
    assert "Switch it on" in halyard("requests", "list", "--status", "open").done().out
    out = halyard("requests", "show", request).done().out
    assert f"flag {flag} in staging\n    ~ enabled: false → true" in out
    assert f"flag {flag}\n    ~ name: " in out
    own = halyard("requests", "approve", request, "--yes")
    assert (own.status, "author" in own.err or "own" in own.err) == (3, True), own
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CONFIG_HOME", second_person)
        assert halyard("requests", "approve", request).status == 2
        elsewhere.setattr("upstream.console.asking.is_interactive", lambda: True)
        typed = halyard("requests", "approve", request, "-m", "Fine", stdin="y\n").done()
        assert "enabled: false → true" in typed.err
    assert not is_on(flag, "staging")
    assert halyard("requests", "apply", request, "--yes").done().out == f"Applied {request}.\n"
    assert is_on(flag, "staging")
    shown = halyard("requests", "show", request).done().out
    assert "approved by" in shown
    assert "Fine" in shown


def test_a_request_can_be_rejected_and_withdrawn(second_person: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rejected one cannot be applied; the author takes one back."""
    flag = made("to-reject")
    requests = [
        halyard("toggle", flag, "on", "-e", "staging", "--propose", title, "-q").done().out.strip() for title in "ab"
    ]
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CONFIG_HOME", second_person)
        assert halyard("requests", "reject", requests[0]).done().out == f"Rejected {requests[0]}.\n"
    assert halyard("requests", "apply", requests[0], "--yes").status == 5
    assert halyard("requests", "withdraw", requests[1], "--yes").done().out == f"Withdrew {requests[1]}.\n"
    both = halyard("toggle", flag, "on", "--propose", "x", "--at", "2h")
    assert (both.status, "exclude each other" in both.err) == (2, True)


def test_history_is_listed_compared_and_restored() -> None:
    """Of the flag itself, and of what it does in an environment."""
    flag = made("to-revert", "--name", "One")
    halyard("flags", "update", flag, "--name", "Two").done()
    rows = halyard("flags", "history", flag).done().out.splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["2", "1"]
    assert "flag.updated" in rows[1]
    assert halyard("flags", "compare", flag, "1", "2").done().out == '~ name: "One" → "Two"\n'
    halyard("toggle", flag, "on", "-e", "staging").done()
    assert halyard("flags", "compare", flag, "1", "2", "--in", "staging").done().out == "~ enabled: false → true\n"
    assert "are the same" in halyard("flags", "compare", flag, "2", "2", "--in", "staging").done().out
    assert halyard("flags", "revert", flag, "1").status == 2
    typed = halyard("flags", "revert", flag, "1", "--in", "staging", "--yes", "--reason", "Worse").done()
    assert typed.out == f"{flag} is as at version 1 in staging; this is version 3.\n"
    assert not is_on(flag, "staging")
    assert "“Worse”" in halyard("audit", "--flag", flag, "--limit", "1").done().out


def test_an_import_can_be_proposed_and_shows_its_plan(home: Path) -> None:
    """The answer leads to the request, and whoever looks at that sees each step."""
    document = {"format": "halyard.project", "format_version": 1, "flags": [{"key": "to-import", "type": "boolean"}]}
    file = home / "document.json"
    file.write_text(json.dumps(document))
    typed = halyard("import", str(file), "--propose", "Bring it").done()
    assert typed.out.startswith("Proposed as 'Bring it'.")
    request = typed.out.split("halyard requests show ")[1].split()[0]
    assert "+ flag to-import" in halyard("requests", "show", request).done().out
    assert halyard("flags", "show", "to-import").status == 4
