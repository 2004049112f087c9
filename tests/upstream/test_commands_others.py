"""What becomes of projects, environments, segments, keys, tokens and members, and who may do what."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson
import pytest

from relay.engine.parse import InvalidConfig
from relay.protocol.keys import fingerprint, kind_of
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.access_commands import (
    CreateKey,
    CreateMember,
    CreateOrganisation,
    CreateToken,
    DeleteMember,
    RevokeKey,
    RevokeToken,
    UpdateMember,
)
from upstream.domain.commands import (
    Command,
    ConfigFields,
    CreateEnvironment,
    CreateFlag,
    CreateProject,
    CreateSegment,
    DeleteEnvironment,
    DeleteFlag,
    DeleteProject,
    DeleteSegment,
    NewEnvironment,
    ToggleFlag,
    UpdateEnvironment,
    UpdateProject,
    UpdateSegment,
)
from upstream.domain.entities import Credential, CredentialKind, Member, Organisation, Project, Role
from upstream.domain.errors import Kind
from upstream.domain.permissions import SCOPES, Actor, system_actor

PRO = {"attribute": "plan", "op": "equals", "values": ["pro"]}


def test_a_project_gets_three_environments_with_secrets_of_their_own(rig: Rig) -> None:
    """Development, staging and production start at revision 1."""
    done = rig.do(CreateProject(name="Second"))
    project = done.decision.entity
    assert isinstance(project, Project)
    environments = rig.view(lambda view: view.environments(project.id))
    assert [(each.key, each.critical) for each in environments] == [
        ("development", False),
        ("staging", False),
        ("production", True),
    ]
    assert set(done.revisions.values()) == {1}
    secrets = {secret for each in environments for secret in (each.stream_secret, each.secure_mode_secret)}
    assert len(secrets) == 6
    assert {len(secret) for secret in secrets} == {64}


def test_a_project_can_name_its_environments(rig: Rig) -> None:
    """Given environments replace the usual ones; all their problems are named."""
    rig.do(CreateProject(key="own", environments=[NewEnvironment(key="live", name="Live")]))
    bad = CreateProject(key="bad", mau_limit=-1, environments=[NewEnvironment(key="A b", name="x")])
    assert set(rig.refused(bad).errors) == {"mau_limit", "environments[0].key"}
    assert rig.refused(CreateProject(key="own")).kind is Kind.CONFLICT


def test_environments_are_bounded(rig: Rig) -> None:
    """A project has at most a hundred, made together or one by one."""
    many = [NewEnvironment(key=f"e{number}") for number in range(101)]
    assert list(rig.refused(CreateProject(key="many", environments=many)).errors) == ["environments"]
    rig.do(CreateProject(key="many", environments=many[1:]))
    assert list(rig.refused(CreateEnvironment(project="many", key="more")).errors) == ["key"]


def test_a_limit_is_published_and_a_description_is_not(rig: Rig) -> None:
    """Only what relays need makes a revision."""
    assert rig.do(UpdateProject(project="shop", description="about")).revisions == {}
    assert len(rig.do(UpdateProject(project="shop", mau_limit=1000)).revisions) == 3
    assert rig.state().limits == b'{"mau":1000}'
    assert rig.refused(UpdateProject(project="shop", name="", if_match=3)).kind is Kind.INVALID


def test_a_deleted_project_takes_everything_along_but_the_audit(rig: Rig) -> None:
    """Its environments, flags and keys are gone; the history is not."""
    rig.do(CreateFlag(project="shop", key="x"))
    rig.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    rig.do(DeleteProject(project="shop", if_match=1))
    stored = [line.partition(" ")[0] for line in rig.dump()]
    for table in ("projects", "environments", "flags", "flag_configs", "credentials", "environment_objects"):
        assert table not in stored
    assert stored.count("audit") == 5


def test_environments_can_be_renamed_and_deleted(rig: Rig) -> None:
    """A new name changes no content; deletion kills the environment's keys."""
    done = rig.do(UpdateEnvironment(project="shop", environment="staging", name="Stage", sort=9))
    assert done.revisions == {}
    assert rig.view(lambda view: view.environments(done.decision.project_id or ""))[-1].name == "Stage"
    key = rig.make(CreateKey(kind=CredentialKind.CLIENT, project="shop", environment="staging"))
    rig.do(DeleteEnvironment(project="shop", environment="staging"))
    assert rig.refused(RevokeKey(credential=key.id)).kind is Kind.NOT_FOUND
    assert rig.refused(CreateEnvironment(project="shop", key="production")).code == "key_taken"
    assert set(rig.refused(CreateEnvironment(project="shop", name=" ", sort=1 << 40)).errors) == {"name", "sort"}


def test_segments_are_published_in_every_environment(rig: Rig) -> None:
    """Aliases are normalised, units deduplicated, and a change makes one revision per environment."""
    when = {"attribute": "plan", "op": "eq", "value": "pro"}
    done = rig.do(CreateSegment(project="shop", name="Pro users", include=["a", "a", 7], exclude=["b"], when=when))
    assert len(done.revisions) == 3
    assert orjson.loads(rig.state().segments["pro_users"]) == {
        "name": "Pro users",
        "version": 2,
        "include": ["a", "7"],
        "exclude": ["b"],
        "when": PRO,
    }
    assert rig.do(UpdateSegment(project="shop", segment="pro_users", description="paying")).revisions == {}
    rig.do(UpdateSegment(project="shop", segment="pro_users", when=None, include=[], exclude=["c"]))
    published = orjson.loads(rig.state().segments["pro_users"])
    assert (published["when"], published["include"], published["exclude"]) == (None, [], ["c"])


def test_bad_segments_are_refused_with_every_problem(rig: Rig) -> None:
    """Names, units and conditions are checked together."""
    bad = CreateSegment(project="shop", key="X", name="", include=["", "u"], when={"attribute": "a", "op": "nope"})
    assert set(rig.refused(bad).errors) == {"key", "name", "include[0]", "when.op"}


def test_what_the_engine_refuses_of_a_segment_is_never_stored(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's parser has the last word, whatever was checked before."""

    def refuse(key: str, _: object) -> None:
        raise InvalidConfig(f"segments.{key}.when", "cannot be used")

    monkeypatch.setattr("upstream.domain.segments.parse_segment", refuse)
    assert rig.refused(CreateSegment(project="shop", key="a")).errors == {"when": ("This cannot be used.",)}


def test_segments_cannot_lead_back_to_themselves(rig: Rig) -> None:
    """Cycles are refused with the path, long chains too; unknown segments are a warning."""
    done = rig.do(CreateSegment(project="shop", key="a", when={"not": {"segment": "b"}}))
    assert [notice.code for notice in done.decision.warnings] == ["missing_segment"]
    rejected = rig.refused(
        CreateSegment(project="shop", key="b", when={"attribute": "x", "op": "in_segment", "value": "a"}),
    )
    assert "b → a → b" in rejected.errors["when"][0]
    rig.do(CreateSegment(project="shop", key="s0"))
    for number in range(1, 16):
        rig.do(CreateSegment(project="shop", key=f"s{number}", when={"any": [{"segment": f"s{number - 1}"}]}))
    assert "when" in rig.refused(CreateSegment(project="shop", key="s16", when={"segment": "s15"})).errors


def test_a_segment_in_use_goes_only_by_force(rig: Rig) -> None:
    """The refusal lists the flags and segments that name it."""
    rig.do(CreateSegment(project="shop", key="pro"))
    rig.do(CreateSegment(project="shop", key="all", when={"all": [{"segment": "pro"}]}))
    rules = [{"when": {"any": [PRO, {"segment": "pro"}]}, "value": True}]
    rig.do(CreateFlag(project="shop", key="x", config=ConfigFields(rules=rules)))
    rejected = rig.refused(DeleteSegment(project="shop", segment="pro"))
    assert rejected.extra == {"used_by": ["flag x", "segment all"]}
    rig.do(DeleteSegment(project="shop", segment="pro", force=True))
    assert "pro" not in rig.state().segments
    assert rig.refused(DeleteSegment(project="shop", segment="pro")).code == "segment_not_found"


def test_a_key_is_shown_once_and_only_its_hashes_are_kept(rig: Rig) -> None:
    """The raw text is in the decision and nowhere in the database; the edge hash is never published."""
    done = rig.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production", name="api"))
    raw, key = done.decision.secret, done.decision.entity
    assert raw is not None
    assert isinstance(key, Credential)
    assert kind_of(raw) is CredentialKind.SERVER
    assert (key.hash, key.h2) == (fingerprint(raw), sha256(f"edge:{raw}".encode()).hexdigest())
    assert raw not in "\n".join(rig.dump())
    published = rig.state().credentials[key.id]
    assert key.h2.encode() not in published
    assert orjson.loads(published) == {
        "id": key.id,
        "hash": key.hash,
        "kind": "server",
        "scopes": ["flags:read"],
        "projects": [rig.project.id],
        "expires_at": None,
        "origins": [],
    }
    assert key.id not in rig.state("staging").credentials


def test_a_relay_key_is_published_where_it_reaches(rig: Rig) -> None:
    """Limits by project and environment hold; new environments inside them are covered at once."""
    rig.do(CreateProject(key="other"))
    everywhere = rig.make(CreateKey(kind=CredentialKind.RELAY))
    shop = rig.make(CreateKey(kind=CredentialKind.RELAY, projects=["shop"]))
    single = rig.make(CreateKey(kind=CredentialKind.RELAY, environments=["shop/staging", rig.environment().id]))
    rig.do(CreateEnvironment(project="shop", key="qa"))
    assert set(rig.state("qa").credentials) == {everywhere.id, shop.id}
    assert set(rig.state("staging").credentials) == {everywhere.id, shop.id, single.id}
    other = rig.view(lambda view: view.project(rig.organisation_id, "other"))
    assert other is not None
    assert rig.environment("staging", other.id).revision == 2


@pytest.mark.parametrize(
    ("command", "paths"),
    [
        (CreateKey(kind=CredentialKind.SERVER), {"project", "environment"}),
        (CreateKey(kind=CredentialKind.SERVER, project="shop"), {"environment"}),
        (CreateKey(kind=CredentialKind.TOKEN), {"kind"}),
        (
            CreateKey(
                kind=CredentialKind.CLIENT,
                project="shop",
                environment="production",
                origins=[f"https://{number}.test" for number in range(101)],
            ),
            {"origins"},
        ),
        (CreateKey(kind=CredentialKind.RELAY, origins=["*"], environments=["nope"]), {"origins", "environments[0]"}),
        (CreateKey(kind=CredentialKind.RELAY, project="shop", expires_at=1), {"projects", "expires_at"}),
        (
            CreateKey(
                kind=CredentialKind.CLIENT,
                project="shop",
                environment="production",
                origins=["https://ok.test", "ftp://x", "https://a.test/path"],
                projects=["shop"],
            ),
            {"origins[1]", "origins[2]", "projects"},
        ),
        (CreateToken(name="x" * 300, scopes=["flags:eat"]), {"name", "scopes[0]"}),
        (CreateToken(name="x", scopes=[]), {"scopes"}),
    ],
)
def test_impossible_keys_are_refused(rig: Rig, command: Command, paths: set[str]) -> None:
    """Every problem of a key is named."""
    assert set(rig.refused(command).errors) == paths


def test_a_revoked_key_leaves_the_stream(rig: Rig) -> None:
    """Revoking removes it from every environment; doing it again changes nothing."""
    key = rig.make(CreateKey(kind=CredentialKind.RELAY))
    assert len(rig.do(RevokeKey(credential=key.id)).revisions) == 3
    assert rig.state().credentials == {}
    assert rig.do(RevokeKey(credential=key.id)).audit is None
    assert rig.refused(RevokeToken(credential=key.id)).code == "token_not_found"


def test_a_token_gives_no_more_than_its_maker_has(rig: Rig) -> None:
    """Scopes and projects are bounded by those of the actor."""
    admin = Actor(type="member", id="m", name="Ann", organisation_id=rig.organisation_id, role=Role.ADMIN)
    rig.do(CreateToken(name="ok", scopes=["flags:write", "flags:read"]), admin)
    limited = replace(admin, projects=frozenset({rig.project.id}))
    token = rig.do(CreateToken(name="mine", scopes=["flags:read"]), limited).decision.entity
    assert isinstance(token, Credential)
    assert token.projects == (rig.project.id,)
    clerk = Actor(
        type="token",
        id="t",
        name="ci",
        organisation_id=rig.organisation_id,
        scopes=frozenset({"keys:write"}),
    )
    assert list(rig.refused(CreateToken(name="no", scopes=["flags:write"]), clerk).errors) == ["scopes[0]"]
    everything = rig.make(CreateToken(name="all", scopes=["flags:read"]))
    assert rig.refused(RevokeToken(credential=everything.id), limited).kind is Kind.FORBIDDEN


def actor_of(rig: Rig, **fields: Any) -> Actor:
    return Actor(type="member", id="m", name="Ann", organisation_id=rig.organisation_id, **fields)


def token_of(rig: Rig, *scopes: str, **fields: Any) -> Actor:
    actor = Actor(type="token", id="t", name="ci", organisation_id=rig.organisation_id, scopes=frozenset(scopes))
    return replace(actor, **fields)


@pytest.mark.parametrize(
    "command",
    [
        CreateKey(kind=CredentialKind.RELAY),
        CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"),
        CreateKey(kind=CredentialKind.CLIENT, project="shop", environment="production"),
    ],
)
def test_who_may_not_read_flags_makes_no_key_that_does(rig: Rig, command: Command) -> None:
    """Managing keys alone is not enough: a relay key would read every flag and the environments' secrets."""
    refused = rig.refused(command, token_of(rig, "keys:write"))
    assert (refused.kind, refused.code, refused.extra["needed"]) == (Kind.FORBIDDEN, "permission_missing", "flags:read")
    rig.do(command, token_of(rig, "keys:write", "flags:read"))


def test_a_relay_key_reaches_no_farther_than_its_maker(rig: Rig) -> None:
    """Without named projects it gets the maker's own; other projects and environments are refused."""
    rig.do(CreateProject(key="other"))
    limited = token_of(rig, "keys:write", "flags:read", projects=frozenset({rig.project.id}))
    made = rig.do(CreateKey(kind=CredentialKind.RELAY), limited).decision.entity
    assert isinstance(made, Credential)
    assert made.projects == (rig.project.id,)
    for beyond in ({"projects": ["other"]}, {"environments": ["other/production"]}):
        refused = rig.refused(CreateKey(kind=CredentialKind.RELAY, **beyond), limited)  # type: ignore[arg-type]
        assert refused.code == "wrong_project"


@pytest.mark.parametrize(
    "command",
    [CreateKey(kind=CredentialKind.RELAY), CreateToken(name="heir", scopes=["flags:read"])],
)
def test_nothing_outlives_the_token_that_it_is_made_with(rig: Rig, command: CreateKey | CreateToken) -> None:
    """Without an expiry it gets the token's; an earlier one is kept and a later one refused."""
    end = rig.clock.wall_ms() + 60_000
    maker = token_of(rig, "keys:write", "flags:read", expires_at=end)
    for asked, given in ((None, end), (end, end), (end - 1, end - 1)):
        made = rig.do(replace(command, expires_at=asked), maker).decision.entity
        assert isinstance(made, Credential)
        assert made.expires_at == given
    refused = rig.refused(replace(command, expires_at=end + 1), maker)
    assert list(refused.errors) == ["expires_at"]
    assert "nothing it makes lives longer" in refused.errors["expires_at"][0]


@pytest.mark.parametrize(("role", "may"), [(Role.VIEWER, 0), (Role.DEVELOPER, 2), (Role.ADMIN, 4), (Role.OWNER, 4)])
def test_roles_permit_what_the_table_says(rig: Rig, role: Role, may: int) -> None:
    """Developers change flags, administrators projects and keys too, viewers nothing."""
    commands: list[Command] = [
        CreateFlag(project="shop", key="x"),
        DeleteFlag(project="shop", flag="x"),
        CreateProject(key="p"),
        CreateKey(kind=CredentialKind.RELAY),
    ]
    actor = actor_of(rig, role=role)
    for command in commands[:may]:
        rig.do(command, actor)
    for command in commands[may:]:
        assert rig.refused(command, actor).code == "permission_missing"


def test_scopes_permit_what_the_table_says(rig: Rig) -> None:
    """Writing does not include deleting."""
    token = Actor(
        type="token",
        id="t",
        name="ci",
        organisation_id=rig.organisation_id,
        scopes=frozenset({"flags:write"}),
    )
    rig.do(CreateFlag(project="shop", key="x"), token)
    assert rig.refused(DeleteFlag(project="shop", flag="x"), token).kind is Kind.FORBIDDEN


def test_a_limited_actor_stays_in_its_projects(rig: Rig) -> None:
    """Another project of the organisation is forbidden, another organisation's does not exist."""
    rig.do(CreateProject(key="other"))
    limited = actor_of(rig, role=Role.OWNER, projects=frozenset({rig.project.id}))
    toggle = ToggleFlag(project="other", flag="x", environment="production")
    assert rig.refused(toggle, limited).code == "wrong_project"
    assert rig.refused(CreateProject(key="third"), limited).code == "wrong_project"
    stranger = replace(actor_of(rig, role=Role.OWNER), organisation_id="another")
    assert rig.refused(replace(toggle, project="shop"), stranger).code == "project_not_found"
    assert rig.refused(replace(toggle, project=rig.project.id), stranger).kind is Kind.NOT_FOUND


def test_organisations_are_founded_by_the_installation_alone(rig: Rig) -> None:
    """Nobody signs up into being; names must say something."""
    assert rig.refused(CreateOrganisation(name="X"), actor_of(rig, role=Role.OWNER)).kind is Kind.FORBIDDEN
    assert rig.refused(CreateOrganisation(name=" ")).kind is Kind.INVALID
    second = rig.do(CreateOrganisation(name="Second"), system_actor())
    assert second.audit is not None
    assert isinstance(second.decision.entity, Organisation)
    assert second.audit.organisation_id == second.decision.entity.id


def test_members_have_one_address_and_bounded_roles(rig: Rig) -> None:
    """Addresses are unique in lower case; nobody gives or takes a role above their own."""
    owner = rig.make(CreateMember(email="Ann@Example.test", name="Ann", role=Role.OWNER, password_hash="argon2"))
    assert owner.email == "ann@example.test"
    assert rig.refused(CreateMember(email="ann@example.test")).code == "email_taken"
    assert list(rig.refused(CreateMember(email="nobody")).errors) == ["email"]
    admin = actor_of(rig, role=Role.ADMIN)
    assert rig.refused(CreateMember(email="b@example.test", role=Role.OWNER), admin).code == "role_too_high"
    assert rig.refused(UpdateMember(member=owner.id, name="B"), admin).code == "role_too_high"
    limited = rig.make(CreateMember(email="c@example.test", projects=["shop"]))
    assert limited.projects == (rig.project.id,)


@pytest.mark.parametrize("make_actor", [actor_of, token_of])
@pytest.mark.parametrize("projects", [None, ["other"], ["shop", "other"]])
def test_who_is_limited_does_not_decide_about_who_reaches_farther(
    rig: Rig, make_actor: Callable[..., Actor], projects: list[str] | None
) -> None:
    """Neither a limited administrator nor a limited token sets such a member's password, limits or deletes them."""
    rig.do(CreateProject(key="other"))
    member = rig.make(CreateMember(email="a@example.test", projects=projects))
    scopes = frozenset(SCOPES) if make_actor is token_of else frozenset()
    role = None if make_actor is token_of else Role.ADMIN
    limited = replace(make_actor(rig), role=role, scopes=scopes, projects=frozenset({rig.project.id}))
    attempts: list[Command] = [
        UpdateMember(member=member.id, password_hash="mine"),
        UpdateMember(member=member.email, projects=["shop"]),
        UpdateMember(member=member.id, name="Eve", if_match=7),
        DeleteMember(member=member.id),
        CreateMember(email="b@example.test", projects=["shop", "other"]),
    ]
    for attempt in attempts:
        refused = rig.refused(attempt, limited)
        assert (refused.kind, refused.code) == (Kind.FORBIDDEN, "wrong_project"), attempt


def test_who_is_limited_decides_about_who_is_limited_alike(rig: Rig) -> None:
    """Within their projects they add, change and remove, and what they add is limited as they are."""
    other = rig.make(CreateProject(key="other")).id
    limited = actor_of(rig, role=Role.ADMIN, projects=frozenset({rig.project.id}))
    made = rig.do(CreateMember(email="a@example.test"), limited).decision.entity
    assert isinstance(made, Member)
    assert made.projects == (rig.project.id,)
    rig.do(UpdateMember(member=made.id, password_hash="new"), limited)
    assert rig.refused(UpdateMember(member=made.id, projects=["shop", other]), limited).code == "wrong_project"
    kept = rig.do(UpdateMember(member=made.id, projects=None), limited).decision.entity
    assert isinstance(kept, Member)
    assert kept.projects == (rig.project.id,)
    rig.do(DeleteMember(member=made.id), limited)


def test_an_organisation_keeps_an_owner(rig: Rig) -> None:
    """The last owner can neither leave nor be demoted; with a second one both are possible."""
    first = rig.make(CreateMember(email="a@example.test", role=Role.OWNER))
    assert rig.refused(DeleteMember(member=first.id)).code == "last_owner"
    assert rig.refused(UpdateMember(member=first.email, role=Role.VIEWER)).code == "last_owner"
    assert rig.make(UpdateMember(member=first.id, name="Ann", if_match=1)).name == "Ann"
    rig.do(CreateMember(email="b@example.test", role=Role.OWNER))
    rig.do(UpdateMember(member=first.id, role=Role.VIEWER, projects=["shop"], if_match=2))
    rig.do(DeleteMember(member=first.id))
    assert rig.refused(DeleteMember(member=first.id)).code == "member_not_found"


def test_a_new_password_is_audited_without_its_hash(rig: Rig) -> None:
    """Secrets never reach the audit log."""
    member = rig.make(CreateMember(email="a@example.test", password_hash="first-hash"))
    done = rig.do(UpdateMember(member=member.id, password_hash="second-hash"))
    assert done.audit is not None
    assert [(change.path, change.after) for change in done.audit.changes] == [("password", "changed")]
    assert rig.do(UpdateMember(member=member.id, password_hash="second-hash")).audit is None
