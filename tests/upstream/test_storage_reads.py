"""Pages of what is stored: bounded, stable, searched, and never more statements than they need."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, event

from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.access_commands import (
    CreateKey,
    CreateMember,
    CreateToken,
    RevokeToken,
)
from upstream.domain.commands import (
    ArchiveFlag,
    ConfigFields,
    CreateFlag,
    CreateProject,
    CreateSegment,
    DeleteFlag,
    ToggleFlag,
)
from upstream.domain.entities import CredentialKind, FlagType
from upstream.storage import reads
from upstream.storage.reads import AuditFilter, FlagFilter, Page, Query

T = TypeVar("T")


def keys(page: Page[reads.FlagRow]) -> list[str]:
    return [row.flag.key for row in page.items]


@pytest.fixture
def flags(rig: Rig) -> Callable[..., Page[reads.FlagRow]]:
    """Four flags, one archived and one deleted; returns what lists them."""
    rig.do(CreateFlag(project="shop", key="b", name="Zebra", tags=["ui", "x"], owner="ann"))
    rig.do(CreateFlag(project="shop", key="a", name="Ape", default_value="v", description="50%_off"))
    rig.do(CreateFlag(project="shop", key="c", environments={"production": ConfigFields(enabled=True)}))
    rig.do(CreateFlag(project="shop", key="old"))
    rig.do(CreateFlag(project="shop", key="gone"))
    rig.do(ArchiveFlag(project="shop", flag="old"))
    rig.do(DeleteFlag(project="shop", flag="gone"))
    project_id = rig.project.id

    def listed(query: Query | None = None, **wanted: object) -> Page[reads.FlagRow]:
        chosen = FlagFilter(**wanted)  # type: ignore[arg-type]
        return rig.look(lambda connection: reads.list_flags(connection, project_id, query or Query(), chosen))

    return listed


def test_pages_are_stable_and_complete(flags: Callable[..., Page[reads.FlagRow]]) -> None:
    """Page after page gives everything once, in order, with the total on each."""
    pages = [flags(Query(limit=2, offset=offset)) for offset in (0, 2, 4)]
    assert [keys(page) for page in pages] == [["a", "b"], ["c"], []]
    assert [(page.total, page.has_more) for page in pages] == [(3, True), (3, False), (3, False)]


def test_lists_are_sorted_by_what_they_offer(flags: Callable[..., Page[reads.FlagRow]]) -> None:
    """By name, backwards, and as usual for a name that is not offered."""
    assert keys(flags(Query(sort="name"))) == ["a", "b", "c"]
    assert keys(flags(Query(sort="key", dir="desc"))) == ["c", "b", "a"]
    assert keys(flags(Query(sort="salt; DROP TABLE flags"))) == ["a", "b", "c"]


@pytest.mark.parametrize(("search", "found"), [("zeb", ["b"]), ("50%_", ["a"]), ("%", ["a"]), ("nothing", [])])
def test_search_takes_text_literally(flags: Callable[..., Page[reads.FlagRow]], search: str, found: list[str]) -> None:
    """Case does not matter; wildcards of SQL are ordinary characters."""
    assert keys(flags(Query(search=search))) == found


def test_flags_are_filtered(rig: Rig, flags: Callable[..., Page[reads.FlagRow]]) -> None:
    """By archive, type, tag, owner, and by being enabled somewhere."""
    production = rig.environment().id
    assert keys(flags(archived=True)) == ["old"]
    assert keys(flags(archived=None)) == ["a", "b", "c", "old"]
    assert keys(flags(type=FlagType.STRING)) == ["a"]
    assert keys(flags(tags=["ui"])) == ["b"]
    assert keys(flags(tags=["u"])) == []
    assert keys(flags(owner="ann")) == ["b"]
    assert keys(flags(environment_id=production, enabled=True)) == ["c"]
    assert keys(flags(environment_id=production, enabled=False)) == ["a", "b"]


def test_a_page_of_flags_costs_three_statements(rig: Rig, flags: Callable[..., Page[reads.FlagRow]]) -> None:
    """Configs come with the flags, whatever the number of flags and environments."""
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(rig.engine, "before_cursor_execute", note)
    page = flags()
    event.remove(rig.engine, "before_cursor_execute", note)
    assert [len(row.configs) for row in page.items] == [3, 3, 3]
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 3


def test_a_single_flag_comes_with_its_configs(rig: Rig, flags: Callable[..., Page[reads.FlagRow]]) -> None:
    """By key or id; a deleted one is not there."""
    project_id, row = rig.project.id, flags().items[0]
    for reference in ("a", row.flag.id, row.flag.id.upper()):
        assert rig.look(partial(reads.get_flag, project_id=project_id, reference=reference)) == row
    assert rig.look(lambda connection: reads.get_flag(connection, project_id, "gone")) is None


def test_other_lists_page_alike(rig: Rig) -> None:
    """Projects, environments, segments, keys and members are listed within their organisation."""
    rig.do(CreateProject(key="other"))
    rig.do(CreateSegment(project="shop", key="pro"))
    rig.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    token = rig.make(CreateToken(name="ci", scopes=["flags:read"]))
    rig.do(RevokeToken(credential=token.id))
    rig.do(CreateMember(email="a@example.test"))
    here, shop, production = rig.organisation_id, rig.project.id, rig.environment().id

    def total(read: Callable[[Connection], Page[T]]) -> int:
        return rig.look(read).total

    usual = Query()
    assert total(lambda c: reads.list_projects(c, here, usual)) == 2
    assert total(lambda c: reads.list_projects(c, here, usual, visible={shop})) == 1
    assert total(lambda c: reads.list_projects(c, "another", usual)) == 0
    assert [each.key for each in rig.look(lambda c: reads.list_environments(c, shop, usual)).items] == [
        "development",
        "staging",
        "production",
    ]
    assert total(lambda c: reads.list_segments(c, shop, usual)) == 1
    assert total(lambda c: reads.list_members(c, here, usual)) == 1

    def credentials(**wanted: Any) -> int:
        return total(lambda c: reads.list_credentials(c, here, usual, reads.CredentialFilter(**wanted)))

    assert credentials() == 1
    assert credentials(include_revoked=True) == 2
    assert credentials(kinds=[CredentialKind.TOKEN], include_revoked=True) == 1
    assert credentials(environment_id=production) == 1
    assert credentials(project_id=shop) == 1


def test_single_things_are_found_within_their_organisation_only(rig: Rig) -> None:
    """Another organisation's ids lead nowhere."""
    token = rig.make(CreateToken(name="ci", scopes=["flags:read"]))
    member = rig.make(CreateMember(email="a@example.test"))
    here = rig.organisation_id
    assert rig.look(lambda c: reads.get_credential(c, here, token.id)) == token
    assert rig.look(lambda c: reads.get_credential(c, "another", token.id)) is None
    assert rig.look(lambda c: reads.get_member(c, here, "A@example.test")) == member
    assert rig.look(lambda c: reads.get_member(c, "another", member.id)) is None
    organisation = rig.look(lambda c: reads.get_organisation(c, here))
    assert organisation is not None
    assert organisation.name == "Acme"
    project_id, staging = rig.project.id, rig.environment("staging")
    for reference in ("staging", staging.id):
        assert rig.look(partial(reads.get_environment, project_id=project_id, reference=reference)) == staging
    assert rig.look(lambda c: reads.get_environment(c, project_id, "nope")) is None


def test_the_audit_log_is_newest_first_and_filtered(rig: Rig) -> None:
    """By project, environment, target, action, actor and time; limited to the projects that may be seen."""
    rig.do(CreateFlag(project="shop", key="x"))
    rig.clock.jump_wall(1000)
    rig.do(ToggleFlag(project="shop", flag="x", environment="production"))
    shop, production, now_ms = rig.project.id, rig.environment().id, rig.clock.wall_ms()

    def actions(query: Query | None = None, visible: set[str] | None = None, **wanted: object) -> list[str]:
        chosen = AuditFilter(**wanted)  # type: ignore[arg-type]
        page = rig.look(lambda c: reads.list_audit(c, rig.organisation_id, query or Query(), chosen, visible=visible))
        return [entry.action for entry in page.items]

    everything = ["flag.toggled", "flag.created", "project.created", "organisation.created"]
    assert actions() == everything
    assert actions(Query(sort="seq")) == everything[::-1]
    assert actions(Query(search="toggled")) == ["flag.toggled"]
    assert actions(project_id=shop, after=now_ms) == ["flag.toggled"]
    assert actions(before=now_ms, action="flag.created") == ["flag.created"]
    assert actions(environment_id=production) == ["flag.toggled"]
    assert actions(actor="nobody") == []
    assert actions(visible={shop}) == everything[:3]
    assert actions(visible=set()) == []
