"""Decides about projects, and the environments that come with a new one."""

from collections.abc import Sequence
from dataclasses import replace

from upstream.domain.commands import (
    CreateProject,
    DeleteProject,
    NewEnvironment,
    UpdateProject,
    given,
)
from upstream.domain.diff import changes_between
from upstream.domain.entities import Environment, Project
from upstream.domain.environments import MAX_ENVIRONMENTS, new_environment
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import check_version, is_changed, next_version, project_of
from upstream.domain.naming import TEXT_CHARACTERS, check_name, check_text, choose_key

USUAL_ENVIRONMENTS = (
    NewEnvironment(key="development", name="Development"),
    NewEnvironment(key="staging", name="Staging"),
    NewEnvironment(key="production", name="Production", critical=True),
)
_INVALID = "The project cannot be used as it is."
_MAX_LIMIT = 1 << 53


def create_project(command: CreateProject, view: View, facts: Facts) -> Decision:
    """Create a project with its environments."""
    if facts.actor.projects is not None:
        detail = "Whoever is limited to some projects cannot create another one."
        raise Rejected(Kind.FORBIDDEN, detail, code="wrong_project")
    problems = Problems()
    taken = {project.key for project in view.projects(facts.actor.organisation_id)}
    key = choose_key(problems, "project", key=command.key, name=command.name, taken=taken)
    project = Project(
        id=facts.new_id(),
        organisation_id=facts.actor.organisation_id,
        key=key,
        name=key if command.name is None else command.name,
        description=command.description,
        mau_limit=command.mau_limit,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    check_project(problems, project)
    wanted = USUAL_ENVIRONMENTS if command.environments is None else command.environments
    environments = _new_environments(problems, project, wanted, facts)
    problems.check(_INVALID)
    changes = changes_between(None, project)
    for environment in environments:
        changes += changes_between(None, environment, prefix=f"environments.{environment.key}")
    return Decision(
        action="project.created",
        entity=project,
        save=(project, *environments),
        changes=changes,
        project_id=project.id,
    )


def check_project(problems: Problems, project: Project) -> None:
    """Note what is wrong with a project."""
    check_name(problems, "name", project.name)
    check_text(problems, "description", project.description, limit=TEXT_CHARACTERS)
    if project.mau_limit is not None and not 0 <= project.mau_limit <= _MAX_LIMIT:
        problems.add("mau_limit", "A limit is a whole number, 0 or more.")


def _new_environments(
    problems: Problems,
    project: Project,
    wanted: Sequence[NewEnvironment],
    facts: Facts,
) -> list[Environment]:
    if len(wanted) > MAX_ENVIRONMENTS:
        problems.add("environments", f"A project has at most {MAX_ENVIRONMENTS} environments.")
        return []
    made: dict[str, Environment] = {}
    for index, new in enumerate(wanted):
        path = f"environments[{index}]"
        key = choose_key(problems, "environment", key=new.key, name=new.name, taken=made, path=f"{path}.key")
        made[key] = new_environment(project, key, new.name, index, new.critical, facts)
        check_name(problems, f"{path}.name", made[key].name)
    return list(made.values())


def update_project(command: UpdateProject, view: View, facts: Facts) -> Decision:
    """Change a project's texts or limit."""
    project = project_of(view, facts, command.project)
    check_version(project, command.if_match)
    after = replace(project, **given(command, "name", "description", "mau_limit"))
    problems = Problems()
    check_project(problems, after)
    problems.check(_INVALID)
    saved = next_version(after, facts) if is_changed(project, after) else None
    return Decision(
        action="project.updated",
        entity=saved or project,
        save=(saved,) if saved else (),
        changes=changes_between(project, after),
        project_id=project.id,
    )


def delete_project(command: DeleteProject, view: View, facts: Facts) -> Decision:
    """Delete a project with all that it owns."""
    project = project_of(view, facts, command.project)
    check_version(project, command.if_match)
    return Decision(
        action="project.deleted",
        entity=project,
        remove=(*view.environments(project.id), project),
        changes=changes_between(project, None),
        project_id=project.id,
    )
