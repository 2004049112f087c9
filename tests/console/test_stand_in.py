"""Commands over routes that this upstream does not have yet, against a stand-in that answers in the agreed shapes.

Whatever has landed is to be moved to `test_daily.py`, where a real upstream answers.
"""

import json
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
