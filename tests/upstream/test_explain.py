"""Why a flag serves what it serves: now, at another time, and at every revision that there was."""

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from relay.protocol.state import State
from tests.upstream.databases import IS_POSTGRESQL, copy_of
from tests.upstream.management import P, Reply, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.access_commands import (
    CreateKey,
)
from upstream.domain.commands import (
    ArchiveFlag,
    Batch,
    Command,
    ConfigFields,
    CreateEnvironment,
    CreateFlag,
    CreateSegment,
    DeleteFlag,
    DeleteSegment,
    ImportProject,
    RestoreFlag,
    ToggleFlag,
    UpdateConfig,
    UpdateFlag,
    UpdateSegment,
)
from upstream.domain.entities import CredentialKind
from upstream.domain.errors import Rejected
from upstream.storage import tables
from upstream.storage.past import Past, read_past

EXPLAIN = "/api/v2/explain"
RULE = {"id": "germans", "when": {"attribute": "country", "op": "in", "values": ["de"]}, "serve": {"variation": "on"}}
ASKED = {"project": "shop", "environment": "production", "flag": "checkout"}


async def explained(world: World, **members: object) -> Any:
    reply = await world.caller("read").post(EXPLAIN, {**ASKED, **members})
    assert reply.status == 200, reply.raw
    return reply.body


async def test_every_step_of_an_evaluation_is_told(world: World) -> None:
    """The switch, the rule with what it compared, and what is served; reading is enough, and nothing is counted."""
    await world.api.patch(f"{P}/flags/checkout/environments/production", {"enabled": True, "rules": [RULE]})
    answer = await explained(world, context={"country": "de"})
    head = {
        name: answer[name] for name in ("project", "environment", "flag", "value", "variation", "reason", "rule_id")
    }
    assert head == {**ASKED, "value": True, "variation": "on", "reason": "RULE_MATCH", "rule_id": "germans"}
    assert [(each["step"], each["holds"]) for each in answer["steps"]] == [("switch", True), ("rule", True)]
    (clause, _) = answer["steps"][1]["steps"]
    assert (clause["text"], clause["actual"]) == ('country in "de": it is "de"', "de")
    assert (await explained(world, context={"country": "fr"}))["reason"] == "DEFAULT"
    assert (await world.api.shown(f"{P}/metrics"))["data"] == []


async def test_what_the_flag_depends_on_is_looked_at(world: World) -> None:
    """Prerequisites, exclusion groups and segments inside segments, each by key or by id."""
    await world.api.made(f"{P}/segments", {"key": "inner", "when": {"attribute": "n", "op": "gt", "values": [1]}})
    await world.api.made(f"{P}/segments", {"key": "outer", "when": {"segment": "inner"}})
    rules = [{"when": {"segment": "outer"}, "variation": "on"}]
    made = await world.api.made(
        f"{P}/flags",
        {"key": "a", "prerequisites": ["b"], "mutual_exclusion_group": "g", "enabled": True, "rules": rules},
    )
    await world.api.made(f"{P}/flags", {"key": "b", "enabled": True})
    await world.api.made(f"{P}/flags", {"key": "c", "mutual_exclusion_group": "g", "enabled": True})
    for unit in ("u1", "u2", "u3", "u4"):
        answer = await explained(world, flag=made["id"], context={"targetingKey": unit, "n": 2})
        group = next(step for step in answer["steps"] if step["step"] == "group")
        assert set(group["draws"]) == {"a", "c"}
        assert answer["reason"] == ("RULE_MATCH" if group["winner"] == "a" else "EXCLUDED")
    await world.api.post(f"{P}/flags/b:toggle", {"environment": "production", "enabled": False})
    assert (await explained(world, flag="a"))["blocked_by"] == "b"


async def test_a_segment_that_two_rules_name_is_read_once(world: World) -> None:
    """And each of the two says whether it holds."""
    await world.api.made(f"{P}/segments", {"key": "twice", "include": ["eve"]})
    rules = [{"when": {"segment": "twice"}, "serve": {"variation": value}} for value in ("on", "off")]
    await world.api.patch(f"{P}/flags/checkout/environments/production", {"enabled": True, "rules": rules})
    answer = await explained(world, context={"targetingKey": "bob"})
    assert [(each["step"], each["holds"]) for each in answer["steps"]][1:3] == [("rule", False), ("rule", False)]


async def test_a_ramp_is_explained_at_any_time(world: World) -> None:
    """`at` turns the clock of the evaluation, forwards and backwards."""
    ramp = {"to": "on", "else": "off", "start_at": "2030-01-01T00:00:00Z", "increment": 50_000, "every_s": 3_600}
    body = {"enabled": True, "fallthrough": {"ramp": ramp}}
    await world.api.patch(f"{P}/flags/checkout/environments/production", body)
    shares = []
    for at in ("2029-12-31T23:00:00Z", "2030-01-01T01:00:00Z", "2030-01-01T02:00:00+00:00"):
        answer = await explained(world, at=at, context={"targetingKey": "ada"})
        shares.append(answer["steps"][-1]["steps"][0]["share"])
    assert shares == [0, 50_000, 100_000]
    assert answer["at"] == "2030-01-01T02:00:00.000Z"


async def test_an_earlier_revision_is_explained_as_it_was(world: World) -> None:
    """Also a flag that has been deleted since, and a key that another flag has now."""
    production = f"{P}/environments/production"
    await world.api.patch(f"{P}/flags/checkout/environments/production", {"enabled": True, "rules": [RULE]})
    then = (await world.api.shown(production))["revision"]
    await world.api.delete(f"{P}/flags/checkout")
    await world.api.made(f"{P}/flags", {"key": "checkout", "default_value": "text"})
    now = await explained(world, context={"country": "de"})
    assert (now["value"], now["revision"]) == ("text", then + 2)
    past = await explained(world, context={"country": "de"}, revision=then)
    assert (past["value"], past["rule_id"], past["revision"]) == (True, "germans", then)
    gone = await world.api.post(EXPLAIN, {**ASKED, "revision": then + 1})
    assert (gone.status, gone.code) == (404, "flag_not_found")


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"revision": 9_999}, 404, "revision_not_found"),
        ({"revision": 0}, 422, "invalid_body"),
        ({"flag": "nope"}, 404, "flag_not_found"),
        ({"environment": "nope"}, 404, "environment_not_found"),
        ({"project": "lab"}, 404, "project_not_found"),
        ({"at": "yesterday"}, 422, "invalid_body"),
        ({"context": []}, 422, "invalid_body"),
    ],
)
async def test_what_cannot_be_explained_is_refused(
    world: World, members: dict[str, object], status: int, code: str
) -> None:
    """Revisions to come, unknown things, other organisations' things, and what is no time or context."""
    reply: Reply = await world.api.post(EXPLAIN, {**ASKED, **members})
    assert (reply.status, reply.code) == (status, code)


async def test_projects_that_a_token_is_not_for_are_not_explained(world: World) -> None:
    """A 403, as on every other route of the project."""
    assert (await world.caller("limited").post(EXPLAIN, ASKED)).code == "wrong_project"


def past_of(rig: Rig, revision: int) -> Past:
    environment = rig.environment()
    return rig.look(lambda connection: read_past(connection, environment, revision))


def without_versions(objects: Any) -> dict[str, Any]:
    """Return objects as they were published, but for the version that each carries."""
    return {key: {**orjson.loads(raw), "version": 0} for key, raw in objects.items()}


KEYS = st.sampled_from(["a", "b", "c"])
ENVIRONMENT = st.sampled_from(["production", "production", "staging"])
RULES = st.sampled_from([[], [RULE], [{"id": "r", "when": {"segment": "s"}, "serve": {"variation": "off"}}]])
SINGLE: st.SearchStrategy[Command] = st.one_of(
    st.builds(lambda key: CreateFlag(project="shop", key=key), KEYS),
    st.builds(lambda key, is_on: UpdateFlag(project="shop", flag=key, is_active=is_on), KEYS, st.booleans()),
    st.builds(
        lambda key, text: UpdateFlag(project="shop", flag=key, description=text), KEYS, st.text("xy", max_size=1)
    ),
    st.builds(lambda key: DeleteFlag(project="shop", flag=key), KEYS),
    st.builds(lambda key: ArchiveFlag(project="shop", flag=key), KEYS),
    st.builds(lambda key: RestoreFlag(project="shop", flag=key), KEYS),
    st.builds(lambda key, at: ToggleFlag(project="shop", flag=key, environment=at), KEYS, ENVIRONMENT),
    st.builds(
        lambda key, at, rules: UpdateConfig(project="shop", flag=key, environment=at, fields=ConfigFields(rules=rules)),
        KEYS,
        ENVIRONMENT,
        RULES,
    ),
    st.just(CreateSegment(project="shop", key="s", include=["ada"])),
    st.builds(lambda unit: UpdateSegment(project="shop", segment="s", include=[unit]), st.sampled_from(["ada", "bob"])),
    st.just(DeleteSegment(project="shop", segment="s", force=True)),
    st.just(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production")),
    st.just(CreateKey(kind=CredentialKind.RELAY)),
    st.builds(
        lambda keys: ImportProject(
            project="shop", document={"flags": [{"key": key, "name": "Imported"} for key in keys]}, prune=True
        ),
        st.sets(KEYS, max_size=2).map(sorted),
    ),
)
COMMANDS = SINGLE | st.builds(lambda parts: Batch(commands=tuple(parts)), st.lists(SINGLE, min_size=2, max_size=3))


# Each example has a database of its own, which takes a server much longer to make.
@settings(
    max_examples=max(1, settings().max_examples // (4 if IS_POSTGRESQL else 1)),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(commands=st.lists(COMMANDS, min_size=5, max_size=30))
def test_every_revision_is_rebuilt_as_it_was_published(
    template: Path, tmp_path_factory: pytest.TempPathFactory, commands: list[Command]
) -> None:
    """Whatever is done in whatever order: the past equals the snapshot that followers had at that revision."""
    with closing(Rig(copy_of(template, tmp_path_factory.mktemp("past")))) as rig:
        taken = published_by(rig, commands)
        for revision, state in taken.items():
            past = past_of(rig, revision)
            assert without_versions(past.flags) == without_versions(state.flags)
            assert without_versions(past.segments) == without_versions(state.segments)
        assert sorted(taken) == list(range(min(taken), max(taken) + 1))


def published_by(rig: Rig, commands: list[Command]) -> dict[int, State]:
    """Carry out what is not refused, and return what production published at each revision."""
    taken = {rig.state().revision: rig.state()}
    for command in commands:
        rig.clock.jump_wall(1)
        with suppress(Rejected):
            rig.do(command)
        state = rig.state()
        taken[state.revision] = state
    return taken


def test_an_environment_is_rebuilt_from_its_first_revision_on(rig: Rig) -> None:
    """One that was made when flags were there already."""
    rig.do(CreateFlag(project="shop", key="a"))
    rig.do(CreateEnvironment(project="shop", key="canary"))
    rig.do(ToggleFlag(project="shop", flag="a", environment="canary"))
    canary = rig.environment("canary")
    first = rig.look(lambda connection: read_past(connection, canary, 1))
    assert orjson.loads(first.flags["a"])["enabled"] is False
    assert orjson.loads(rig.state("canary").flags["a"])["enabled"] is True


def test_before_versions_were_kept_nothing_is_rebuilt(rig: Rig) -> None:
    """A database from before begins its history with what there was; the refusal names the first revision."""
    rig.do(CreateFlag(project="shop", key="a"))
    rig.do(ToggleFlag(project="shop", flag="a", environment="production"))
    history = tables.entity_history
    begun = rig.state().revision
    # As the migration leaves it: one version of each thing, of no audit entry.
    first = (history.c.environment_id == rig.environment().id, history.c.version == 1)
    rig.look(lambda connection: connection.execute(history.delete().where(*first)))
    rig.look(lambda connection: connection.execute(update(history).values(audit_id=None, revisions={})))
    with pytest.raises(Rejected) as refused:
        past_of(rig, begun - 1)
    assert (refused.value.code, "from revision 3 on" in str(refused.value)) == ("before_history", True)
    rig.do(ToggleFlag(project="shop", flag="a", environment="production"))
    assert orjson.loads(past_of(rig, begun).flags["a"])["enabled"] is True
    assert orjson.loads(past_of(rig, begun + 1).flags["a"])["enabled"] is False
