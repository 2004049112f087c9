"""Following the audit log until the authority goes away, which a stand-in does when it is told to."""

import json
from typing import Any

import pytest

from tests.console.terminal import Request, StandIn, halyard, page
from upstream.console import audit

P = "/projects/shop"
ADA = {"type": "member", "id": "1", "name": "Ada"}
ENTRY = {
    "id": "e1", "at": "2026-11-28T10:00:00.000Z", "actor": ADA, "via": "api", "action": "flag.updated",
    "target": {"type": "flag", "id": "f", "key": "checkout"}, "changes": [{"path": "name", "before": 1, "after": 2}],
    "reason": None, "environment_id": "e",
}  # fmt: skip


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
    stand_in.routes[f"GET {P}/environments"] = lambda _: page({"id": "e", "key": "production"})
    typed = halyard("audit", "--follow", "--since", "1h", "-q")
    assert (typed.status, typed.out.split()) == (6, ["1", "2", "3"])
    assert looks[0].query["after"].startswith("20")
    looks.clear()
    line = halyard("audit", "--follow").out.splitlines()[0]
    assert line.startswith("2026-11-28 10:00:00  Ada  api  flag.updated  flag checkout in production")
    looks.clear()
    assert json.loads(halyard("audit", "--follow", "--json").out.splitlines()[0])["id"] == "1"
    assert halyard("audit", "--follow", "--until", "1h").status == 2
