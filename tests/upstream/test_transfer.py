"""Whole projects as documents: out, in again, planned, and refused with every problem."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from relay.engine.environment import assemble
from relay.engine.evaluate import evaluate
from relay.engine.model import Environment
from relay.engine.parse import parse_flag, parse_segment
from relay.protocol.state import State
from tests.upstream.databases import copy_of
from tests.upstream.management import P, Reply, World
from tests.upstream.random_projects import ENVIRONMENTS, contexts, documents
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.api.body import checked
from upstream.api.project_document import NewProjectBody
from upstream.domain.commands import CreateFlag, CreateSegment, ImportProject
from upstream.domain.errors import Rejected
from upstream.domain.transfer import project_document
from upstream.storage.history import read_snapshot
from upstream.storage.view import StoredView

V2 = "/api/v2"
BAD_RULES = [{"when": {"attribute": "x", "op": "eqals", "values": [1]}, "variation": "on"}]


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One authority for all examples of a property, each in projects of its own."""
    rig = Rig(copy_of(template, tmp_path_factory.mktemp("shared")))
    yield rig
    rig.close()


def exported(rig: Rig, key: str) -> Any:
    """Return the document of a project, as a client reads it."""

    def look(connection: Connection) -> Any:
        view = StoredView(connection)
        project = view.project(rig.organisation_id, key)
        assert project is not None
        return project_document(
            project=project,
            environments=view.environments(project.id),
            segments=view.segments(project.id),
            flags=view.flags(project.id),
            configs=view.project_configs(project.id),
            now_ms=rig.clock.wall_ms(),
        )

    return orjson.loads(orjson.dumps(rig.look(look)))


def engine_of(state: State) -> Environment:
    return assemble(
        environment_id=state.ref.id,
        key=state.ref.key,
        project_id=state.ref.project_id,
        project_key=state.ref.project_key,
        revision=state.revision,
        flags={key: parse_flag(key, orjson.loads(raw)) for key, raw in state.flags.items()},
        segments={key: parse_segment(key, orjson.loads(raw)) for key, raw in state.segments.items()},
    )


def environments_of(rig: Rig, project: str) -> dict[str, Environment]:
    def look(connection: Connection) -> dict[str, Environment]:
        view = StoredView(connection)
        found = view.project(rig.organisation_id, project)
        assert found is not None
        states = {each.key: read_snapshot(connection, each.id) for each in view.environments(found.id)}
        return {key: engine_of(state) for key, state in states.items() if state is not None}

    return rig.look(look)


def answers(environment: Environment, context: Any, now_ms: int) -> dict[str, Any]:
    found = {key: evaluate(environment, key, context, now_ms) for key in environment.flags}
    return {
        key: (each.value, each.variation, each.reason, each.rule_id, each.error_code) for key, each in found.items()
    }


numbers = iter(range(1_000_000))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(document=documents(), asked=st.lists(contexts, min_size=1, max_size=3))
def test_what_is_exported_and_imported_is_the_same(shared: Rig, document: dict[str, Any], asked: list[Any]) -> None:
    """Out, in as another project, out again: equal documents, and equal answers for every context."""
    first, second = f"p{next(numbers)}", f"p{next(numbers)}"
    document["project"]["key"] = first
    shared.do(ImportProject(project=None, document=document))
    out = exported(shared, first)
    assert [each["key"] for each in out["flags"]] == sorted(each["key"] for each in document["flags"])
    out["project"]["key"] = second
    shared.do(ImportProject(project=None, document=checked(NewProjectBody, out).document()))
    again = exported(shared, second)
    assert again == out
    here, there = environments_of(shared, first), environments_of(shared, second)
    for name in ENVIRONMENTS:
        for context in asked:
            now_ms = shared.clock.wall_ms()
            assert answers(here[name], context, now_ms) == answers(there[name], context, now_ms)
    done = shared.do(ImportProject(project=second, document=checked(NewProjectBody, out).document()))
    assert done.revisions == {}
    assert done.audits == ()


RULES = [
    {"id": "r1", "when": {"attribute": "email", "op": "ends_with", "values": ["@x.io"]}, "serve": {"variation": "on"}}
]


async def steps(world: World, body: dict[str, Any], query: str = "") -> Any:
    """Return what an import answers, as (action, thing, key) beside the rest."""
    reply = await world.api.post(f"{P}/import{query}", body)
    assert reply.status == 200, reply.raw
    return reply.body


def acted(answer: Any) -> list[tuple[str, str, str]]:
    return [(each["action"], each["thing"], each["key"]) for each in answer["plan"] if each["action"] != "unchanged"]


async def refused(world: World, body: dict[str, Any]) -> Reply:
    before = await world.api.shown(f"{P}/export")
    reply = await world.api.post(f"{P}/import", body)
    assert reply.status >= 400
    after = await world.api.shown(f"{P}/export")
    assert after == before
    return reply


async def test_the_document_holds_everything_but_secrets(world: World) -> None:
    """Keys instead of ids, salts and rule ids, no secret, version or time of bookkeeping; a file to be kept."""
    await world.api.patch(f"{P}/flags/checkout/environments/production", {"enabled": True, "rules": RULES})
    reply = await world.api.get(f"{P}/export")
    assert reply.headers["content-disposition"] == 'attachment; filename="shop.halyard.json"'
    document = reply.body
    assert (document["format"], document["format_version"]) == ("halyard.project", 1)
    assert document["project"] == {"key": "shop", "name": "Shop", "description": None, "mau_limit": None}
    assert [each["key"] for each in document["environments"]] == ["development", "staging", "production"]
    (flag,) = document["flags"]
    config = flag["configs"]["production"]
    assert (config["enabled"], config["rules"][0]["id"], len(config["salt"])) == (True, "r1", 16)
    for hidden in ("secret", '"id":"0', 'version":2', "updated_at", "created_at", "enabled_at"):
        assert hidden.encode() not in reply.raw


async def test_importing_what_was_exported_changes_nothing(world: World) -> None:
    """The plan is all `unchanged`, and there is no revision."""
    answer = await steps(world, await world.api.shown(f"{P}/export"))
    assert answer["counts"] == {"create": 0, "update": 0, "unchanged": 6, "delete": 0}
    assert answer["revisions"] == {}
    assert answer["project"]["key"] == "shop"


async def test_a_plan_shows_each_step_and_an_import_takes_them_in_one_revision(world: World) -> None:
    """Create, update and delete, with the differences of what is updated; one revision for each environment."""
    document = await world.api.shown(f"{P}/export")
    document["flags"][0]["configs"]["production"]["enabled"] = True
    document["flags"].append({"key": "fresh", "type": "string", "variations": [{"key": "a", "value": "x"}]})
    document["segments"] = [{"key": "staff", "include": ["ada"]}]
    document["environments"].append({"key": "canary"})
    body = {**document, "prune": True}
    before = {each["key"]: each["revision"] for each in (await world.api.shown(f"{P}/environments"))["data"]}
    plan = await steps(world, body, "?dry_run=1")
    wanted = [
        ("create", "environment", "canary"),
        ("create", "segment", "staff"),
        ("delete", "segment", "testers"),
        ("update", "flag", "checkout"),
        ("create", "flag", "fresh"),
    ]
    assert plan["dry_run"] is True
    assert acted(plan) == wanted
    (update,) = [each for each in plan["plan"] if each["action"] == "update"]
    assert update["changes"] == [{"path": "environments.production.enabled", "before": False, "after": True}]
    assert plan["affected"]["flags"] == ["checkout", "fresh"]
    assert [each["key"] for each in (await world.api.shown(f"{P}/flags"))["data"]] == ["checkout"]
    done = await steps(world, body)
    assert acted(done) == wanted
    after = {each["key"]: each["revision"] for each in (await world.api.shown(f"{P}/environments"))["data"]}
    assert after == {**{key: revision + 1 for key, revision in before.items()}, "canary": 1}
    assert set(done["revisions"].values()) == set(after.values())
    entries = (await world.api.shown(f"{P}/audit?limit=6"))["data"]
    assert [each["action"] for each in entries] == [
        "project.imported", "flag.created", "flag.updated", "segment.deleted", "segment.created", "environment.created",
    ]  # fmt: skip
    assert entries[1]["reason"] == "import"


async def test_what_a_document_leaves_out_is_kept(world: World) -> None:
    """Without prune nothing is deleted, and a flag keeps what its entry does not name."""
    head = {"format": "halyard.project", "format_version": 1}
    await world.api.patch(f"{P}/flags/checkout", {"description": "Pay", "tags": ["money"]})
    answer = await steps(world, {**head, "flags": [{"key": "checkout", "name": "Cash desk"}]})
    assert acted(answer) == [("update", "flag", "checkout")]
    flag = await world.api.shown(f"{P}/flags/checkout")
    assert (flag["name"], flag["description"], flag["tags"]) == ("Cash desk", "Pay", ["money"])
    assert (await world.api.shown(f"{P}/segments/testers"))["include"] == ["ada"]
    answer = await steps(world, {**head, "flags": [{"key": "checkout", "archived": True}]})
    assert (await world.api.shown(f"{P}/flags/checkout"))["archived_at"] is not None
    answer = await steps(world, {**head, "prune": True, "flags": []})
    assert acted(answer) == [("delete", "segment", "testers"), ("delete", "flag", "checkout")]
    assert (await world.api.get(f"{P}/flags/checkout")).code == "flag_not_found"


def test_what_is_pruned_leaves_the_stream(rig: Rig) -> None:
    """Followers lose the flag and the segment with the revision of the import."""
    rig.do(CreateFlag(project="shop", key="a"))
    rig.do(CreateSegment(project="shop", key="s"))
    before = rig.state()
    rig.do(ImportProject(project="shop", document={}, prune=True))
    after = rig.state()
    assert (set(before.flags), set(before.segments)) == ({"a"}, {"s"})
    assert (after.flags, after.segments, after.revision) == ({}, {}, before.revision + 1)


async def test_every_problem_of_a_document_is_named_by_its_key(world: World) -> None:
    """Shapes first, then meanings; all of them at once, with the path to each, and nothing is changed."""
    head = {"format": "halyard.project", "format_version": 1}
    shapes = {**head, "flags": [{"key": "a", "enabeld": True, "archived": 1}, {"name": "no key"}], "segmnts": []}
    reply = await refused(world, shapes)
    assert (reply.status, reply.code) == (422, "invalid_body")
    assert set(reply.body["errors"]) == {"flags.a.enabeld", "flags.a.archived", "flags[1].key", "segmnts"}
    meanings = {
        **head,
        "environments": [{"key": "Bad Key"}, {"key": "production", "name": " "}],
        "segments": [{"key": "s", "when": {"segment": "t"}}, {"key": "t", "when": {"segment": "s"}}],
        "flags": [
            {"key": "a", "type": "string", "variations": [{"key": "x", "value": 1}]},
            {"key": "b", "prerequisites": ["c"], "configs": {"nowhere": {}, "production": {"off": "gone"}}},
            {"key": "c", "prerequisites": ["b"], "configs": {"staging": {"rules": BAD_RULES}}},
            {"key": "checkout", "type": "number"},
            {"key": "a"},
        ],
    }  # fmt: skip
    reply = await refused(world, meanings)
    assert (reply.status, reply.code) == (422, "invalid")
    assert set(reply.body["errors"]) == {
        "environments.Bad Key.key",
        "environments.production.name",
        "segments.s.when",
        "segments.t.when",
        "flags.a.variations[0].value",
        "flags.b.configs.nowhere",
        "flags.b.configs.production.off",
        "flags.b.prerequisites",
        "flags.c.prerequisites",
        "flags.c.configs.staging.rules[0].when.op",
        "flags.checkout.type",
        "flags[4].key",
    }
    assert "b → c → b" in reply.body["errors"]["flags.b.prerequisites"][0]


async def test_a_new_project_with_a_key_that_cannot_be_one_is_told_so(world: World) -> None:
    """In a sentence, with the place in the document."""
    reply = await world.api.post(
        f"{V2}/projects:import", {"format": "halyard.project", "format_version": 1, "project": {"key": "copy"}}
    )
    assert (reply.status, list(reply.body["errors"])) == (422, ["project.key"])
    assert reply.body["detail"] == "The project cannot be used as it is."


async def test_the_summary_names_places_as_the_errors_do(world: World) -> None:
    """By key, also what is misspelt."""
    body = {"format": "halyard.project", "format_version": 1, "flags": [{"key": "till", "tpye": "string"}]}
    reply = await world.api.post(f"{P}/import", body)
    assert (reply.status, list(reply.body["errors"])) == (422, ["flags.till.tpye"])
    assert reply.body["detail"].endswith("look at: flags.till.tpye.")


async def test_a_newer_format_is_refused_before_all_else(world: World) -> None:
    """It may hold members that this version cannot know; the answer says to update."""
    reply = await refused(world, {"format": "halyard.project", "format_version": 2, "unheard_of": 1})
    assert (reply.status, reply.code) == (422, "format_too_new")
    assert "Update Halyard" in reply.body["detail"]
    assert (await refused(world, {"format": "other", "format_version": 1})).body["errors"].keys() == {"format"}


async def test_environments_are_made_unless_that_is_forbidden(world: World) -> None:
    """`create_environments: false` names each one that is not there."""
    body = {"format": "halyard.project", "format_version": 1, "environments": [{"key": "canary", "sort": 9}]}
    reply = await refused(world, {**body, "create_environments": False})
    assert reply.body["errors"].keys() == {"environments.canary"}
    await steps(world, body)
    assert (await world.api.shown(f"{P}/environments"))["data"][-1]["key"] == "canary"


async def test_what_is_too_much_of_a_document_is_refused(world: World) -> None:
    """More environments than a project may have, and more prerequisites in a chain than are followed."""
    head = {"format": "halyard.project", "format_version": 1}
    many = [{"key": f"e{number}"} for number in range(101)]
    assert (await refused(world, {**head, "environments": many})).body["errors"].keys() == {"environments"}
    chain = [{"key": f"f{number}", "prerequisites": [f"f{number + 1}"]} for number in range(20)]
    reply = await refused(world, {**head, "flags": [*chain, {"key": "f20"}]})
    assert "flags.f0.prerequisites" in reply.body["errors"]
    assert "too many in a chain" in reply.body["errors"]["flags.f0.prerequisites"][0]


async def test_a_segment_with_two_faults_has_both_named(world: World) -> None:
    """What the engine says of it is asked only where the rest is in order."""
    body = {"format": "halyard.project", "format_version": 1, "segments": [{"key": "s", "name": " ", "include": [""]}]}
    assert set((await refused(world, body)).body["errors"]) == {"segments.s.name", "segments.s.include[0]"}


async def test_a_salt_that_differs_is_shown(world: World) -> None:
    """Nobody is shown salts elsewhere, but another one gives every unit another bucket."""
    document = await world.api.shown(f"{P}/export")
    config = document["flags"][0]["configs"]["production"]
    before, config["salt"] = config["salt"], "another"
    plan = (await steps(world, document, "?dry_run=1"))["plan"]
    (changed,) = [each for each in plan if each["action"] == "update"]
    assert changed["changes"] == [{"path": "environments.production.salt", "before": before, "after": "another"}]


def test_whoever_is_limited_to_projects_imports_no_new_one(rig: Rig) -> None:
    """As whoever creates one is refused: 403, without an error of the document."""
    document = {"format": "halyard.project", "format_version": 1, "project": {"key": "fresh"}}
    with pytest.raises(Rejected) as refusal:
        rig.do(ImportProject(project=None, document=document), replace(rig.system, projects=frozenset()))
    assert (refusal.value.code, refusal.value.errors) == ("wrong_project", {})


async def test_what_was_deleted_is_not_exported(world: World) -> None:
    """Neither flags nor environments, nor how the ones were configured in the others."""
    assert (await world.api.delete(f"{P}/environments/staging")).status == 204
    assert (await world.api.delete(f"{P}/flags/checkout")).status == 204
    document = await world.api.shown(f"{P}/export")
    assert "checkout" not in [each["key"] for each in document["flags"]]
    assert "staging" not in [each["key"] for each in document["environments"]]
    assert all("staging" not in each["configs"] for each in document["flags"])


def test_what_was_made_while_it_was_read_is_left_out(rig: Rig) -> None:
    """The parts of a project are read one after the other; a config whose flag was not among them waits."""
    rig.do(CreateFlag(project="shop", key="a"))

    def look(connection: Connection) -> Any:
        view = StoredView(connection)
        project = view.project(rig.organisation_id, "shop")
        assert project is not None
        configs = view.project_configs(project.id)
        assert configs
        return project_document(
            project=project,
            environments=view.environments(project.id),
            segments=(),
            flags=(),
            configs=configs,
            now_ms=rig.clock.wall_ms(),
        )

    assert rig.look(look)["flags"] == []


async def test_another_type_has_to_be_confirmed(world: World) -> None:
    """Confirmed, the flag is what the document says, and off where the document says nothing."""
    await world.api.patch(f"{P}/flags/checkout/environments/production", {"enabled": True, "rules": RULES})
    body = {
        "format": "halyard.project", "format_version": 1, "confirm_type_change": True,
        "flags": [{"key": "checkout", "type": "number", "configs": {"staging": {"fallthrough": {"value": 3}}}}],
    }  # fmt: skip
    await steps(world, body)
    flag = await world.api.shown(f"{P}/flags/checkout")
    assert (flag["type"], [each["value"] for each in flag["variations"]]) == ("number", [0, 3])
    production = await world.api.shown(f"{P}/flags/checkout/environments/production")
    assert (production["enabled"], production["rules"], production["fallthrough"]) == (
        False,
        [],
        {"variation": "default"},
    )


async def test_importing_needs_what_it_does(world: World) -> None:
    """Writing flags is enough for flags; environments and the project need projects:write, pruning flags:delete."""
    writer = world.caller("write")
    head = {"format": "halyard.project", "format_version": 1}
    assert (await writer.post(f"{P}/import", {**head, "flags": [{"key": "mine"}]})).status == 200
    for body, needed in (
        ({"environments": [{"key": "canary"}]}, "projects:write"),
        ({"project": {"name": "Mine"}}, "projects:write"),
        ({"prune": True}, "flags:delete"),
    ):
        reply = await writer.post(f"{P}/import", {**head, **body})
        assert (reply.status, reply.code, reply.body["needed"]) == (403, "permission_missing", needed)
    assert (await world.caller("read").post(f"{P}/import", head)).status == 403


async def test_a_new_project_is_made_of_a_document(world: World) -> None:
    """Under its own key, which must be free; its environments are those of the document alone."""
    document = await world.api.shown(f"{P}/export")
    taken = await world.api.post(f"{V2}/projects:import", document)
    assert (taken.status, taken.code, set(taken.body["errors"])) == (409, "key_taken", {"project.key"})
    document["project"]["key"] = "twin"
    planned = await world.api.post(f"{V2}/projects:import?dry_run=1", document)
    assert (planned.status, planned.body["counts"]["create"]) == (200, 6)
    made = await world.api.post(f"{V2}/projects:import", document)
    assert (made.status, made.headers["location"]) == (201, f"{V2}/projects/twin")
    twin = await world.api.shown(f"{V2}/projects/twin/export")
    assert {**twin, "exported_at": ""} == {**document, "exported_at": ""}
    del document["project"]["key"]
    assert (await world.api.post(f"{V2}/projects:import", document)).body["errors"].keys() == {"project.key"}


async def test_a_thousand_flags_are_imported_at_once(world: World) -> None:
    """Far beyond what other writes may hold, in one request, and the import is the whole of them."""
    document = await world.api.shown(f"{P}/export")
    sample = document["flags"][0]
    for config in sample["configs"].values():
        config["rules"] = RULES
    document["flags"] = [
        {**sample, "key": f"flag-{number}", "prerequisites": ["flag-0"] if number else []} for number in range(1_000)
    ]
    answer = await steps(world, document)
    assert answer["counts"]["create"] == 1_000
    assert (await world.api.shown(f"{P}/flags?limit=1"))["total"] == 1_001
    answer = await steps(world, document)
    assert answer["counts"]["unchanged"] == 1_005
