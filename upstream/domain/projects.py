"""Decides about organisations, projects and environments."""

from collections.abc import Sequence
from dataclasses import replace

from upstream.domain.commands import (
    CreateEnvironment,
    CreateOrganisation,
    CreateProject,
    DeleteEnvironment,
    DeleteProject,
    NewEnvironment,
    UpdateEnvironment,
    UpdateProject,
    given,
)
from upstream.domain.configs import fresh_config
from upstream.domain.diff import changes_between
from upstream.domain.entities import Environment, Organisation, Project
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import check_version, environment_of, is_changed, next_version, project_of
from upstream.domain.naming import TEXT_CHARACTERS, check_name, check_text, choose_key

USUAL_ENVIRONMENTS = (
    NewEnvironment(key="development", name="Development"),
    NewEnvironment(key="staging", name="Staging"),
    NewEnvironment(key="production", name="Production", critical=True),
)
MAX_ENVIRONMENTS = 100
_SECRET_BYTES = 32
_INVALID = "The project cannot be used as it is."
_INVALID_ENVIRONMENT = "The environment cannot be used as it is."
_MAX_LIMIT = 1 << 53


def create_organisation(command: CreateOrganisation, view: View, facts: Facts) -> Decision:  # noqa: ARG001 - every decider has the same signature
    """Found a tenant."""
    problems = Problems()
    check_name(problems, "name", command.name)
    problems.check("The organisation cannot be used as it is.")
    organisation = Organisation(
        id=facts.new_id(),
        name=command.name,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    changes = changes_between(None, organisation)
    return Decision(action="organisation.created", entity=organisation, save=(organisation,), changes=changes)


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
        made[key] = fresh_environment(project, key, new.name, index, new.critical, facts)
        check_name(problems, f"{path}.name", made[key].name)
    return list(made.values())


def fresh_environment(  # noqa: PLR0913, PLR0917 - each of them is needed
    project: Project,
    key: str,
    name: str | None,
    sort: int,
    critical: bool,  # noqa: FBT001 - a field of the entity
    facts: Facts,
) -> Environment:
    """Return an environment with secrets of its own, that nobody has checked yet."""
    return Environment(
        id=facts.new_id(),
        project_id=project.id,
        key=key,
        name=key if name is None else name,
        sort=sort,
        critical=critical,
        stream_secret=facts.entropy.token(_SECRET_BYTES).hex(),
        secure_mode_secret=facts.entropy.token(_SECRET_BYTES).hex(),
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )


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


def create_environment(command: CreateEnvironment, view: View, facts: Facts) -> Decision:
    """Add an environment in which every flag is there and switched off."""
    project = project_of(view, facts, command.project)
    others = view.environments(project.id)
    problems = Problems()
    if len(others) >= MAX_ENVIRONMENTS:
        problems.add("key", f"A project has at most {MAX_ENVIRONMENTS} environments.")
    taken = {other.key for other in others}
    key = choose_key(problems, "environment", key=command.key, name=command.name, taken=taken)
    sort = max((other.sort for other in others), default=-1) + 1 if command.sort is None else command.sort
    environment = fresh_environment(project, key, command.name, sort, command.critical, facts)
    check_environment(problems, environment)
    problems.check(_INVALID_ENVIRONMENT)
    configs = tuple(fresh_config(flag, environment, facts) for flag in view.flags(project.id))
    return Decision(
        action="environment.created",
        entity=environment,
        save=(environment, *configs),
        changes=changes_between(None, environment),
        project_id=project.id,
        environment_id=environment.id,
    )


def check_environment(problems: Problems, environment: Environment) -> None:
    """Note what is wrong with an environment."""
    check_name(problems, "name", environment.name)
    if not -(1 << 31) <= environment.sort < 1 << 31:
        problems.add("sort", "This must be a whole number of at most 32 bits.")


def update_environment(command: UpdateEnvironment, view: View, facts: Facts) -> Decision:
    """Change an environment's name, place or mark."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    check_version(environment, command.if_match)
    after = replace(environment, **given(command, "name", "sort", "critical"))
    problems = Problems()
    check_environment(problems, after)
    problems.check(_INVALID_ENVIRONMENT)
    saved = next_version(after, facts) if is_changed(environment, after) else None
    return Decision(
        action="environment.updated",
        entity=saved or environment,
        save=(saved,) if saved else (),
        changes=changes_between(environment, after),
        project_id=project.id,
        environment_id=environment.id,
    )


def delete_environment(command: DeleteEnvironment, view: View, facts: Facts) -> Decision:
    """Delete an environment with its configs and keys."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    check_version(environment, command.if_match)
    return Decision(
        action="environment.deleted",
        entity=environment,
        remove=(environment,),
        changes=changes_between(environment, None),
        project_id=project.id,
        environment_id=environment.id,
    )
