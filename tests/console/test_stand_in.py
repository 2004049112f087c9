"""Commands over routes that this upstream does not have yet, against a stand-in that answers in the agreed shapes.

Whatever has landed is to be moved to `test_daily.py`, where a real upstream answers.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.console.terminal import Request, StandIn, halyard, page
from upstream.console import audit

P = "/projects/shop"
ADA = {"type": "member", "id": "1", "name": "Ada"}
CHANGES = [{"path": "enabled", "before": False, "after": True}]
REQUEST = {
    "id": "r1", "title": "Switch it on", "description": None, "status": "open", "author": ADA,
    "commands": [{"command": "ToggleFlag"}], "preview": {"changes": CHANGES, "warnings": [], "affected": {}},
    "reviews": [{"by": ADA, "verdict": "approved", "comment": "Good", "at": "2026-11-28T10:00:00.000Z"}],
    "created_at": "2026-11-28T09:00:00.000Z", "version": 3,
}  # fmt: skip
SCHEDULE = {
    "id": "s1", "run_at": "2026-12-01T06:00:00.000Z", "status": "pending", "actor": ADA,
    "commands": [{"command": "ToggleFlag"}],
}  # fmt: skip
VERSION = {
    "version": 2, "at": "2026-11-28T10:00:00.000Z", "actor": ADA, "action": "flag.updated", "reason": "Because",
    "changed": ["name"], "audit_id": "a", "revisions": {},
}  # fmt: skip
ENTRY = {
    "id": "e1", "at": "2026-11-28T10:00:00.000Z", "actor": ADA, "via": "api", "action": "flag.updated",
    "target": {"type": "flag", "id": "f", "key": "checkout"}, "changes": [{"path": "name", "before": 1, "after": 2}],
    "reason": None,
}  # fmt: skip


def test_a_change_can_wait_for_its_time(stand_in: StandIn) -> None:
    """`--at` schedules: the answer names the time and how to call it off."""
    stand_in.routes[f"POST {P}/flags/checkout:toggle"] = (202, SCHEDULE)
    typed = halyard("toggle", "checkout", "on", "--at", "2026-12-01T07:00:00+01:00").done()
    assert typed.out == "Scheduled for 2026-12-01 06:00:00 UTC. Call it off with: halyard schedules cancel s1\n"
    asked = stand_in.requests[-1]
    assert asked.query == {"schedule_at": "2026-12-01T06:00:00Z"}
    assert asked.body == {"environment": "production", "enabled": True}
    assert halyard("toggle", "checkout", "on", "--at", "2h", "-q").done().out == "s1\n"


def test_a_change_can_be_proposed(stand_in: StandIn) -> None:
    """`--propose` opens a change request, and asks nobody before."""
    stand_in.routes[f"GET {P}/environments/production"] = {"key": "production", "critical": True}
    stand_in.routes[f"POST {P}/flags/checkout:toggle"] = (202, REQUEST)
    typed = halyard("toggle", "checkout", "on", "--propose", "Switch it on").done()
    assert "halyard requests show r1" in typed.out
    assert stand_in.requests[-1].query == {"propose": "Switch it on"}
    halyard("toggle", "checkout", "on", "--propose-to", "r1").done()
    assert stand_in.requests[-1].query == {"propose_to": "r1"}
    typed = halyard("toggle", "checkout", "on", "--propose", "x", "--at", "2h")
    assert (typed.status, "exclude each other" in typed.err) == (2, True)


def test_schedules(stand_in: StandIn) -> None:
    """Listed with what they do, and called off after a yes."""
    stand_in.routes |= {f"GET {P}/schedules": page(SCHEDULE), f"DELETE {P}/schedules/s1": {**SCHEDULE, "version": 2}}
    assert halyard("schedules", "list").done().out.splitlines()[1].split() == [
        "s1", "2026-12-01", "06:00:00", "pending", "Ada", "toggle", "flag",
    ]  # fmt: skip
    assert halyard("schedules", "cancel", "s1").status == 2
    assert halyard("schedules", "cancel", "s1", "--yes").done().out == "Called off s1.\n"


def test_change_requests(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, shown with what they change and what was said; what is approved is the version that was shown."""
    stand_in.routes |= {f"GET {P}/change-requests": page(REQUEST), f"GET {P}/change-requests/r1": REQUEST}
    for verb in ("approve", "reject", "apply", "withdraw"):
        stand_in.routes[f"POST {P}/change-requests/r1:{verb}"] = REQUEST
    assert "Switch it on" in halyard("requests", "list", "--status", "open").done().out
    assert stand_in.requests[-1].query == {"status": "open", "limit": "100"}
    out = halyard("requests", "show", "r1").done().out
    assert "  ~ enabled: false → true" in out
    assert "approved by Ada, 2026-11-28 10:00:00: Good" in out
    assert halyard("requests", "approve", "r1").status == 2
    monkeypatch.setattr("upstream.console.asking.is_interactive", lambda: True)
    typed = halyard("requests", "approve", "r1", "-m", "Fine", stdin="y\n").done()
    assert "~ enabled: false → true" in typed.err
    assert stand_in.requests[-1].headers["if-match"] == '"v3"'
    assert stand_in.requests[-1].body == {"comment": "Fine"}
    assert halyard("requests", "reject", "r1").done().out == "Rejected r1.\n"
    assert halyard("requests", "apply", "r1", "--yes", "--at", "2030-01-01T00:00:00Z").done().out == "Applied r1.\n"
    assert stand_in.requests[-1].query == {"schedule_at": "2030-01-01T00:00:00Z"}
    assert halyard("requests", "withdraw", "r1", "--yes").done().out == "Withdrew r1.\n"


def test_history(stand_in: StandIn) -> None:
    """Versions are listed, two are compared, and one is restored."""
    stand_in.routes |= {
        f"GET {P}/flags/checkout/history": page(VERSION, {**VERSION, "version": 1, "actor": None, "changed": []}),
        f"GET {P}/flags/checkout/history:compare": {"from": VERSION, "to": VERSION, "changes": CHANGES},
        f"POST {P}/flags/checkout:revert": {"version": 3},
    }
    rows = halyard("flags", "history", "checkout").done().out.splitlines()
    assert rows[1].split() == ["2", "2026-11-28", "10:00:00", "Ada", "flag.updated", "name", "Because"]
    assert rows[2].split()[3:] == ["-", "flag.updated", "-", "Because"]
    assert (
        halyard("flags", "compare", "checkout", "1", "2", "--in", "staging").done().out == "~ enabled: false → true\n"
    )
    assert stand_in.requests[-1].query == {"from": "1", "to": "2", "environment": "staging"}
    assert halyard("flags", "revert", "checkout", "1").status == 2
    typed = halyard("flags", "revert", "checkout", "1", "--in", "staging", "--yes", "--reason", "Worse").done()
    assert typed.out == "checkout is as at version 1 in staging; this is version 3.\n"
    assert stand_in.requests[-1].body == {"version": 1, "environment": "staging", "reason": "Worse"}
    stand_in.routes[f"GET {P}/flags/checkout/history:compare"]["changes"] = []
    assert "are the same" in halyard("flags", "compare", "checkout", "1", "2").done().out


def test_export_and_import(stand_in: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is written and read; an import shows its plan, asks, and says what it did."""
    document: dict[str, Any] = {
        "format": "halyard.project",
        "environments": [],
        "segments": [],
        "flags": [{"key": "a"}],
    }
    plan = {
        "project": {"key": "shop"},
        "plan": [
            {"action": "create", "thing": "flag", "key": "a", "changes": []},
            {"action": "update", "thing": "flag", "key": "b", "changes": CHANGES},
            {"action": "unchanged", "thing": "flag", "key": "c", "changes": []},
        ],
        "counts": {"create": 1, "update": 1, "unchanged": 1, "delete": 0},
    }
    stand_in.routes |= {f"GET {P}/export": document, f"POST {P}/import": plan, "POST /projects:import": (201, plan)}
    file = str(home / "shop.json")
    assert halyard("export", file).done().out == f"Wrote shop to {file}: 0 environments, 0 segments, 1 flags.\n"
    assert halyard("export", "-").done().json == document
    assert json.loads(Path(file).read_text()) == document
    tried = halyard("import", file, "--dry-run").done().out
    assert tried.splitlines() == [
        "+ flag a", "~ flag b", "    ~ enabled: false → true", "1 to create, 1 to change, 0 to delete, 1 as they are.",
    ]  # fmt: skip
    assert all(each.query == {"dry_run": "true"} for each in stand_in.asked("POST", f"{P}/import"))
    refused = halyard("import", file)
    assert (refused.status, "+ flag a" in refused.err) == (2, True)
    monkeypatch.setattr("upstream.console.asking.is_interactive", lambda: True)
    typed = halyard("import", file, "--prune", stdin="y\n").done()
    assert "Imported into shop: 1 created, 1 changed, 0 deleted, 1 as they were." in typed.out
    assert stand_in.requests[-1].query == {}
    assert stand_in.requests[-1].body == {**document, "prune": True}
    halyard("import", file, "--new", "--yes").done()
    assert stand_in.requests[-1].path == "/projects:import"
    assert halyard("import", file, "--new", "--prune").status == 2
    assert halyard("import", "nowhere.json").status == 2
    assert halyard("export", str(home / "no" / "folder")).status == 2


def test_stale_flags(stand_in: StandIn) -> None:
    """Each with its reasons, also as `flags list --stale`."""
    row = {
        "key": "old", "kind": "release", "owner": None,
        "stale": [
            {"reason": "never_evaluated", "since": "2026-01-02T00:00:00.000Z", "evidence": {}},
            {"reason": "expired", "since": "2026-02-03T00:00:00.000Z", "evidence": {}},
        ],
    }  # fmt: skip
    stand_in.routes[f"GET {P}/stale-flags"] = page(row)
    out = halyard("stale").done().out
    assert "never evaluated since 2026-01-02; expired since 2026-02-03" in out
    assert halyard("flags", "list", "--stale").done().out == out
    assert halyard("flags", "list", "--stale", "--tag", "x").status == 2


def test_explain(stand_in: StandIn) -> None:
    """The answer, of which revision and moment, and every step beneath it."""
    stand_in.routes["POST /explain"] = {
        "project": "shop", "environment": "production", "revision": 7, "at": "2026-11-28T10:00:00.000Z",
        "flag": "checkout", "value": True, "variation": "on", "reason": "RULE_MATCH", "rule_id": "x",
        "steps": [{"step": "rule", "holds": True, "text": "rule 1", "steps": [
            {"step": "clause", "holds": False, "text": "country is DE"}, {"step": "serve", "holds": None, "text": "on"},
        ]}],
    }  # fmt: skip
    typed = halyard(
        "explain", "checkout", "-u", "ada", "-c", '{"country": "AT"}', "--at", "3d", "--revision", "7"
    ).done()
    assert typed.out.splitlines() == [
        "checkout = true   (RULE_MATCH, variation on, rule_id x)",
        "in shop/production at revision 7, 2026-11-28 10:00:00 UTC",
        "", "✓ rule 1", "    ✗ country is DE", "    · on",
    ]  # fmt: skip
    assert stand_in.requests[-1].body["context"] == {"country": "AT", "targetingKey": "ada"}
    assert stand_in.requests[-1].body["revision"] == 7
    assert halyard("explain", "checkout", "-q").done().out == "true\n"
    for context in ("{", "[]", "@nowhere"):
        assert halyard("explain", "checkout", "-c", context).status == 2


def test_the_audit_log_is_followed(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry is printed once, oldest first, until the authority is gone."""
    monkeypatch.setattr(audit, "POLL_S", 0.0)
    looks: list[Request] = []

    def entries(request: Request) -> Any:
        looks.append(request)
        if len(looks) > 3:
            return 503, {"detail": "Away."}
        return page(*({**ENTRY, "id": str(number)} for number in range(len(looks), 0, -1)))

    stand_in.routes[f"GET {P}/audit"] = entries
    typed = halyard("audit", "--follow", "--since", "1h", "-q")
    assert (typed.status, typed.out.split()) == (6, ["1", "2", "3"])
    assert looks[0].query["after"].startswith("20")
    looks.clear()
    assert halyard("audit", "--follow").out.splitlines()[0].startswith("2026-11-28 10:00:00  Ada  api  flag.updated")
    looks.clear()
    assert json.loads(halyard("audit", "--follow", "--json").out.splitlines()[0])["id"] == "1"
    assert halyard("audit", "--follow", "--until", "1h").status == 2
