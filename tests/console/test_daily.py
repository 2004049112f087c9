"""The daily commands against a real upstream, as people and as programs use them."""

import json
from pathlib import Path

import pytest

from tests.console.terminal import halyard
from tests.upstream.test_upstream_process import World

pytestmark = pytest.mark.usefixtures("signed_in")


def made(key: str, *options: str) -> str:
    """Create a flag for one test and return its key."""
    assert halyard("flags", "create", key, *options).done().out == f"Created the flag {key}.\n"
    return key


def is_on(flag: str, environment: str) -> bool:
    shown = halyard("flags", "show", flag, "--json").done().json
    return bool(shown["environments"][environment]["enabled"])


def test_a_list_is_one_line_a_flag() -> None:
    """Elsewhere than on a terminal rows are aligned and never cut; JSON is the API's page; quiet prints keys."""
    lines = halyard("flags", "list").done().out.splitlines()
    assert lines[0].split() == ["KEY", "TYPE", "DEVELOPMENT", "STAGING", "PRODUCTION", "TAGS", "NAME"]
    payments = next(line for line in lines if line.startswith("payments "))
    assert payments.split() == ["payments", "boolean", "on", "on", "on", "checkout,", "kill-switch", "Payments"]
    page = halyard("flags", "list", "--json").done().json
    assert {"data", "total", "limit", "offset", "has_more"} == set(page)
    assert "payments" in halyard("flags", "list", "-q").done().out.splitlines()


def test_lists_can_be_searched_and_cut() -> None:
    """What is left out is said beside the list."""
    assert halyard("flags", "list", "--search", "banner", "-q").done().out == "banner-text\n"
    assert halyard("flags", "list", "--tag", "search", "-q").done().out == "search-index-v2\nsearch-settings\n"
    assert halyard("flags", "list", "--type", "number", "-q").done().out == "max-upload-mb\n"
    typed = halyard("flags", "list", "--limit", "1").done()
    assert len(typed.out.splitlines()) == 2
    assert "1 of " in typed.err
    assert "--limit" in typed.err
    assert "There is no such flag" in halyard("flags", "list", "--search", "no such thing").done().err


def test_a_flag_is_shown_in_words() -> None:
    """What it is, its values, and what each environment serves, with the rules numbered."""
    out = halyard("flags", "show", "dark-mode").done().out
    assert "name         Dark mode" in out
    assert "   1.        German-speaking markets: if country is one of DE, AT → on" in out
    assert "  otherwise  off" in out
    ramp = halyard("flags", "show", "search-index-v2").done().out
    assert "on to 10 % more every day up to 50 %, from 2026-01-01T00:00:00Z on, off to the rest" in ramp
    assert "  everybody  50 % plain, 25 % warm, 25 % bold" in halyard("flags", "show", "banner-text").done().out


def test_toggle() -> None:
    """A switch answers with a sentence, and where it stands afterwards."""
    flag = made("to-toggle")
    assert not is_on(flag, "staging")
    typed = halyard("toggle", flag, "on", "-e", "staging", "--reason", "as planned").done()
    assert typed.out == "to-toggle is on in staging (version 2).\n"
    assert is_on(flag, "staging")
    assert halyard("flags", "list", "--state", "on", "-e", "staging", "--search", flag, "-q").done().out == f"{flag}\n"
    entry = halyard("audit", "--flag", flag, "--limit", "1").done().out.splitlines()[1]
    assert entry.split()[2:] == [
        "Demo", "owner", "cli", "flag.toggled", "flag", flag, "in", "staging",
            "enabled:", "false", "→", "true", "“as", "planned”",
    ]  # fmt: skip


def test_a_critical_environment_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal it needs --yes; with one, a yes. No is no, and a try asks nobody."""
    flag = made("to-ask")
    typed = halyard("toggle", flag, "on")
    assert (typed.status, typed.out) == (2, "")
    assert "production is marked critical. Switch to-ask on?" in typed.err
    assert "add --yes" in typed.err
    tried = halyard("toggle", flag, "on", "--dry-run").done().out.splitlines()
    assert tried[1:3] == ["  flag to-ask in production", "    ~ enabled: false → true"]
    assert not is_on(flag, "production")
    monkeypatch.setattr("upstream.console.asking.is_interactive", lambda: True)
    refused = halyard("toggle", flag, "on", stdin="n\n")
    assert (refused.status, "Nothing was changed." in refused.err) == (1, True)
    assert not is_on(flag, "production")
    halyard("toggle", flag, "on", stdin="y\n").done()
    assert is_on(flag, "production")
    halyard("kill", flag, "--yes", "--reason", "it burns").done()
    assert not is_on(flag, "production")


def test_a_try_shows_the_difference_and_who_feels_it() -> None:
    """Nothing is changed; JSON is the API's own."""
    flag = made("to-try")
    out = halyard("rollout", flag, "12.5", "-e", "staging", "--dry-run").done().out
    assert out.startswith("This would change (nothing was changed yet):\n")
    assert f"  flag {flag} in staging\n    + fallthrough.split" in out
    assert "environments  staging" in out
    preview = halyard("toggle", flag, "on", "-e", "staging", "--dry-run", "--json").done().json
    (change,) = preview["changes"]
    assert (change["target"]["key"], change["environment"], change["path"]) == (flag, "staging", "enabled")
    assert halyard("toggle", flag, "off", "-e", "staging", "--dry-run").done().out == "Nothing would change.\n"
    assert halyard("flags", "show", flag, "--json").done().json["environments"]["staging"]["version"] == 1


def test_rollout_and_promote(monkeypatch: pytest.MonkeyPatch) -> None:
    """A percentage is served, and what one environment does is brought to another one after a look at it."""
    flag = made("to-promote")
    halyard("toggle", flag, "on", "-e", "development").done()
    assert "rolled out to 25 % in development" in halyard("rollout", flag, "25", "-e", "development").done().out
    assert "It is off there" in halyard("rollout", flag, "25", "-e", "staging").done().out
    promote = ("promote", flag, "--from", "development", "--to", "production")
    typed = halyard(*promote)
    assert typed.status == 2
    assert "  ~ enabled: false → true" in typed.err
    assert "Promote to-promote from development to production?" in typed.err
    assert "enabled: false → true" in halyard(*promote, "--dry-run").done().out
    monkeypatch.setattr("upstream.console.asking.is_interactive", lambda: True)
    assert "is as in development" in halyard(*promote, stdin="y\n").done().out
    assert "  everybody  25 % on, 75 % off" in halyard("flags", "show", flag).done().out
    assert "no difference" in halyard(*promote).done().err
    assert halyard(*promote, "--yes", "--part", "nonsense").status == 1


def test_the_life_of_a_flag() -> None:
    """Created, changed, copied, archived, restored, deleted; a flag that is not there is 4."""
    flag = made(
        "to-live", "--type", "string", "--variation", "a=1", "--variation", "b=two", "--tag", "x", "--owner", "Ada"
    )
    shown = halyard("flags", "show", flag, "--json").done().json
    assert [each["value"] for each in shown["variations"]] == ["1", "two"]
    typed = halyard("flags", "update", flag, "--name", "Lives", "--tag", "y", "--tag", "z").done()
    assert typed.out == "Changed to-live: version 2.\n"
    assert halyard("flags", "copy", flag, "to-live-too", "-q").done().out == "to-live-too\n"
    assert halyard("flags", "archive", flag).status == 2
    assert halyard("flags", "archive", flag, "--yes").done().out == "Archived to-live.\n"
    assert flag in halyard("flags", "list", "--archived", "-q").done().out.splitlines()
    assert "archived" in halyard("flags", "list", "--archived").done().out
    assert "archived 2" in halyard("flags", "show", flag).done().out
    halyard("flags", "restore", flag, "--yes").done()
    assert halyard("flags", "delete", flag).status == 2
    assert halyard("flags", "delete", flag, "--yes", "--json").done().json == {}
    assert halyard("flags", "show", flag).status == 4


def test_values_are_json_where_they_are_json() -> None:
    """A number flag gets numbers, a JSON flag objects."""
    made("to-count", "--type", "number", "--variation", "small=1", "--variation", "large=2.5")
    made("to-set", "--type", "json", "--variation", 'on={"a": [1]}')
    out = halyard("flags", "show", "to-count").done().out + halyard("flags", "show", "to-set").done().out
    for value in ("small      1 ", "large      2.5", '{"a":[1]}'):
        assert value in out
    assert halyard("flags", "create", "x", "--variation", "novalue").status == 2


def test_a_flag_of_a_template() -> None:
    """A template fills in what is not named."""
    made("to-shut", "--template", "kill_switch")
    assert halyard("flags", "show", "to-shut", "--json").done().json["metadata"] == {"flag_template": "kill_switch"}


def test_whatever_the_api_takes_can_come_from_a_file(home: Path) -> None:
    """`--data` carries what has no option; what is no JSON object is refused with its name."""
    flag = made("to-configure")
    rule = {"when": {"attribute": "country", "op": "equals", "values": ["DE"]}, "value": True}
    file = home / "config.json"
    file.write_text(json.dumps({"rules": [rule], "fallthrough": {"value": False}}))
    typed = halyard("flags", "configure", flag, "-e", "staging", "--data", str(file)).done()
    assert typed.out == "Changed to-configure in staging: version 2.\n"
    assert "1.        if country is DE → on" in halyard("flags", "show", flag).done().out
    halyard("flags", "configure", flag, "-e", "development", "--data", "-", stdin='{"enabled": true}').done()
    assert is_on(flag, "development")
    for content, said in (("[]", "must hold a JSON object"), ("{", "is not JSON")):
        typed = halyard("flags", "configure", flag, "-e", "staging", "--data", "-", stdin=content)
        assert (typed.status, said in typed.err) == (2, True)
    assert "No such file" in halyard("flags", "configure", flag, "-e", "staging", "--data", "nowhere").err


def test_every_fault_of_a_field_is_listed() -> None:
    """The problem's sentence, each field with its sentences, and the request to ask about; JSON has the problem."""
    typed = halyard("flags", "create", "Not A Key", "--data", "-", "--json", stdin='{"typo": 1, "tags": "x"}')
    assert typed.status == 1
    assert typed.json["status"] == 422
    for field in ("typo: There is no such field", "tags: This must be a list.", "request "):
        assert f"  {field}" in typed.err


def test_versions_protect_from_each_other() -> None:
    """A change of a version that is not the present one is a conflict, and so is a key that is taken."""
    flag = made("to-protect")
    halyard("flags", "update", flag, "--owner", "Ada", "--if-version", "1").done()
    typed = halyard("flags", "update", flag, "--owner", "Bob", "--if-version", "1")
    assert (typed.status, "at version 2" in typed.err) == (5, True)
    assert halyard("flags", "create", flag).status == 5


def test_nothing_to_change_is_a_wrong_usage() -> None:
    """The command whose help tells what can be changed is named."""
    for command in (("flags", "update", "payments"), ("segments", "update", "beta-testers")):
        typed = halyard(*command)
        assert (typed.status, "--help" in typed.err) == (2, True)


def test_segments() -> None:
    """Made, shown with its condition in words, changed, and deleted."""
    when = '{"when": {"all": [{"attribute": "plan", "op": "equals", "values": ["pro"]}, {"segment": "beta-testers"}]}}'
    halyard("segments", "create", "pros", "--include", "ada", "--include", "bob", "--data", "-", stdin=when).done()
    out = halyard("segments", "show", "pros").done().out
    assert "included  ada, bob" in out
    assert "when      plan is pro and in the segment beta-testers" in out
    assert halyard("segments", "update", "pros", "--exclude", "eve").status == 2
    halyard("segments", "update", "pros", "--exclude", "eve", "--yes").done()
    assert "pros" in halyard("segments", "list").done().out
    assert halyard("segments", "delete", "pros").status == 2
    halyard("segments", "delete", "pros", "--yes").done()
    assert halyard("segments", "show", "pros").status == 4


def test_projects_and_environments() -> None:
    """Made with environments of its own, which are cloned, put into another order, reviewed, and deleted."""
    project = ("-p", "lab")
    halyard("projects", "create", "lab", "--name", "Lab", "-e", "test", "-e", "live").done()
    assert "environments  test, live" in halyard("projects", "show", "lab").done().out
    assert "lab" in halyard("projects", "list", "-q").done().out.splitlines()
    halyard("projects", "update", "lab", "--description", "To try things").done()
    halyard("environments", "create", "extra", "--critical", *project).done()
    halyard("environments", "clone", "test", "twin", *project).done()
    halyard("environments", "reorder", "live", "twin", "test", "extra", *project).done()
    assert halyard("environments", "list", "-q", *project).done().out.split() == ["live", "twin", "test", "extra"]
    halyard("environments", "update", "twin", "--name", "Twin", *project).done()
    assert halyard("environments", "update", "extra", "--name", "Extra", *project).status == 2
    halyard("environments", "review", "twin", "on", *project).done()
    assert "required" in halyard("environments", "list", *project).done().out
    assert halyard("environments", "delete", "twin", *project).status == 2
    halyard("environments", "delete", "twin", "--yes", *project).done()
    assert halyard("projects", "delete", "lab").status == 2
    halyard("projects", "delete", "lab", "--yes").done()
    assert halyard("projects", "show", "lab").status == 4


def test_keys(signed_in: World) -> None:
    """A key is printed once, alone on stdout; it is rotated and revoked by its id."""
    typed = halyard("keys", "create", "client", "--name", "web", "--origin", "https://a.example").done()
    assert typed.out.startswith("hal_client_")
    assert len(typed.out.split()) == 1
    assert "Shown this once" in typed.err
    document = halyard("keys", "create", "server", "--json", "--expires", "30d").done()
    assert document.json["key"].startswith("hal_server_")
    key_id = document.json["id"]
    assert "until 2" in next(
        line for line in halyard("keys", "list").done().out.splitlines() if line.startswith(key_id)
    )
    halyard("keys", "update", key_id, "--name", "backend").done()
    assert halyard("keys", "rotate", key_id, "--overlap", "0s").status == 2
    assert halyard("keys", "rotate", key_id, "--overlap", "2h").done().out.startswith("hal_server_")
    assert halyard("keys", "rotate", key_id, "--overlap", "soon").status == 2
    assert halyard("keys", "revoke", key_id).status == 2
    halyard("keys", "revoke", key_id, "--yes").done()
    assert halyard("keys", "create", "relay", "-q").done().out.startswith("hal_relay_")
    assert "relay" in halyard("keys", "list", "--all", "--kind", "relay").done().out
    assert signed_in.demo.server_key not in halyard("keys", "list", "--json").done().out


def test_tokens() -> None:
    """A token opens the API as far as its scopes reach; what it may not do is 3."""
    typed = halyard("tokens", "create", "ci", "--scope", "flags:read", "--only", "demo", "--json").done()
    token, token_id = typed.json["token"], typed.json["id"]
    assert halyard("flags", "list", "--token", token).status == 0
    refused = halyard("flags", "create", "not-mine", "--token", token)
    assert (refused.status, "flags:write" in refused.err) == (3, True)
    halyard("tokens", "update", token_id, "--name", "ci-2").done()
    assert "ci-2" in halyard("tokens", "list").done().out
    assert halyard("tokens", "rotate", token_id).done().out.startswith("hal_token_")
    halyard("tokens", "revoke", token_id, "--yes").done()
    assert halyard("flags", "list", "--token", token).status == 3
    unknown = halyard("tokens", "create", "ci", "--scope", "flags:reed")
    assert (unknown.status, "scopes[0]: There is no scope" in unknown.err) == (1, True)


def test_members() -> None:
    """Somebody is invited with a token that is printed once, changed, and removed."""
    invited = halyard("members", "invite", "bob@example.com", "--role", "developer").done()
    assert len(invited.out.split()) == 1
    assert "bob@example.com joins with: halyard join --url " in invited.err
    assert halyard("members", "invite", "bob@example.com", "--again").done().out != invited.out
    assert "invited" in halyard("members", "list").done().out
    assert "admin" in halyard("members", "update", "bob@example.com", "--role", "admin").done().out
    halyard("members", "update", "bob@example.com", "--only", "demo").done()
    assert halyard("members", "list", "--search", "bob", "--json").done().json["data"][0]["projects"]
    halyard("members", "update", "bob@example.com", "--all-projects").done()
    assert halyard("members", "update", "bob@example.com").status == 2
    typed = halyard("members", "reset-password", "bob@example.com")
    assert (typed.status, "invite them again" in typed.err) == (5, True)
    assert halyard("members", "remove", "bob@example.com").status == 2
    halyard("members", "remove", "bob@example.com", "--yes").done()
    assert halyard("members", "reset-password", "demo@halyard.example").done().out


def test_audit_in_json_and_of_everything() -> None:
    """The whole organisation's log; ids alone where only these are wanted."""
    halyard("members", "invite", "log@example.com").done()
    assert "member" in halyard("audit", "--organisation", "--limit", "5").done().out
    entries = halyard("audit", "--json", "--limit", "2").done().json
    assert len(entries["data"]) == 2
    assert halyard("audit", "-q", "--limit", "1").done().out.strip() == entries["data"][0]["id"]
    typed = halyard("audit", "--since", "yesterday")
    assert (typed.status, "2h or 3d" in typed.err) == (2, True)


def test_a_project_is_exported_and_imported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is written and read; an import shows its plan, asks, and says what it did."""
    halyard("projects", "create", "origin", "-e", "live").done()
    for key in ("stays", "goes"):
        made(key, "-p", "origin")
    file = home / "origin.json"
    typed = halyard("export", str(file), "-p", "origin").done()
    assert typed.out == f"Wrote origin to {file}: 1 environment, 0 segments, 2 flags.\n"
    document = json.loads(file.read_text())
    assert halyard("export", "-", "-p", "origin").done().json["flags"] == document["flags"]
    document["flags"] = [{**flag, "name": "New name"} for flag in document["flags"] if flag["key"] == "stays"]
    file.write_text(json.dumps(document))
    pruned = ("import", str(file), "-p", "origin", "--prune")
    lines = halyard(*pruned, "--dry-run").done().out.splitlines()
    assert lines == [
        "~ flag stays", '    ~ name: "stays" → "New name"', "- flag goes",
        "0 to create, 1 to change, 1 to delete, 2 as they are.",
    ]  # fmt: skip
    assert halyard(*pruned, "--dry-run", "--json").done().json["dry_run"] is True
    refused = halyard(*pruned)
    assert (refused.status, "~ flag stays" in refused.err, refused.out) == (2, True, "")
    monkeypatch.setattr("upstream.console.asking.is_interactive", lambda: True)
    assert "0 created, 1 changed, 1 deleted, 2 as they were." in halyard(*pruned, stdin="y\n").done().out
    assert halyard("flags", "list", "-p", "origin", "-q").done().out == "stays\n"


def test_an_import_makes_a_new_project(home: Path) -> None:
    """`--new` takes the key in the document; files that cannot be used are named."""
    file = home / "new.json"
    halyard("export", str(file)).done()
    document = json.loads(file.read_text())
    document["project"]["key"] = "newborn"
    file.write_text(json.dumps(document))
    assert "Imported into newborn" in halyard("import", str(file), "--new", "--yes").done().out
    assert "payments" in halyard("flags", "list", "-p", "newborn", "-q").done().out
    assert halyard("import", str(file), "--new", "--prune").status == 2
    assert halyard("import", "nowhere.json").status == 2
    assert halyard("export", str(home / "no" / "folder")).status == 2
    halyard("projects", "delete", "newborn", "--yes").done()


def test_stale_flags() -> None:
    """Each with its reasons, also as `flags list --stale`."""
    made("too-old", "--expires", "2026-01-02T00:00:00Z")
    typed = halyard("stale").done()
    assert "expired since 2026-01-02" in next(line for line in typed.out.splitlines() if line.startswith("too-old"))
    assert halyard("flags", "list", "--stale").done().out == typed.out
    assert halyard("flags", "list", "--stale", "--tag", "x").status == 2


def test_explain() -> None:
    """The answer, of which revision and moment, and every step beneath it."""
    explain = ("explain", "dark-mode", "-e", "staging")
    lines = halyard(*explain, "-u", "ada", "-c", '{"country": "AT"}').done().out.splitlines()
    assert lines[0].startswith("dark-mode = true   (RULE_MATCH, variation on, rule_id ")
    assert lines[1].startswith("in demo/staging at revision ")
    assert any(line.lstrip().startswith("✓") for line in lines[3:])
    assert halyard(*explain, "-q").done().out == "false\n"
    later = halyard(*explain, "--at", "2030-01-01T00:00:00Z", "--revision", "12", "--json").done().json
    assert (later["at"], later["revision"]) == ("2030-01-01T00:00:00.000Z", 12)
    for context in ("{", "[]", "@nowhere"):
        assert halyard(*explain, "-c", context).status == 2
