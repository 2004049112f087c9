"""What docs/access.md says of permissions is what `upstream.domain.permissions` grants."""

import re
from pathlib import Path

from upstream.api.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from upstream.domain.entities import Role
from upstream.domain.permissions import BY_ROLE, BY_SCOPE, Action
from upstream.settings import Auth

TEXT = (Path(__file__).parents[2] / "docs/access.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, the line of names first."""
    (_, _, below) = TEXT.partition(f"## {heading}\n")
    table = re.search(r"(^\|.*\|\n)+", below, re.MULTILINE)
    assert table is not None
    lines = [line for line in table[0].splitlines() if not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_roles_is_the_one_in_force() -> None:
    """Each role has exactly the permissions that are marked with yes, and every permission has a line."""
    (_, *names), *lines = rows("Roles")
    assert set(names) == set(Role)
    shown = {
        Role(name): {_action(line[0]) for line in lines if line[place] == "yes"} for place, name in enumerate(names, 1)
    }
    assert shown == BY_ROLE
    assert {_action(line[0]) for line in lines} == set(Action)


def _action(cell: str) -> Action:
    return Action(cell.split("`")[1])


def test_the_table_of_scopes_is_the_one_in_force() -> None:
    """Each scope grants exactly the permissions beside it, and every scope has a line."""
    _, *lines = rows("Scopes")
    shown = {scope.strip("`"): {Action(each) for each in re.findall(r"`(.+?)`", granted)} for scope, granted in lines}
    assert shown == BY_SCOPE


def test_the_numbers_are_those_in_force() -> None:
    """Lengths of passwords and lives of one-time tokens are the constants and defaults."""
    assert f"{MIN_CHARACTERS} to {MAX_CHARACTERS:,} characters" in TEXT
    assert f"`upstream.auth.invitation_s` ({Auth().invitation_s // 3600} h)" in TEXT
    assert f"`upstream.auth.password_reset_s` ({Auth().password_reset_s // 3600} h)" in TEXT
