"""Decides about environments: new ones, clones of others, their order and their marks."""

from collections.abc import Sequence
from dataclasses import replace

from upstream.domain.commands import (
    CloneEnvironment,
    CreateEnvironment,
    DeleteEnvironment,
    ReorderEnvironments,
    UpdateEnvironment,
    given,
)
from upstream.domain.configs import fresh_config
from upstream.domain.diff import changes_between
from upstream.domain.entities import Change, Environment, Project
from upstream.domain.errors import Problems
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import check_version, environment_of, is_changed, next_version, project_of
from upstream.domain.naming import check_name, choose_key

MAX_ENVIRONMENTS = 100
_SECRET_BYTES = 32
_INVALID = "The environment cannot be used as it is."


def new_environment(  # noqa: PLR0913, PLR0917 - each of them is needed
    project: Project,
    key: str,
    name: str | None,
    sort: int,
    critical: bool,  # noqa: FBT001 - a field of the entity
    facts: Facts,
) -> Environment:
    """Return an environment with secrets of its own."""
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


def create_environment(command: CreateEnvironment, view: View, facts: Facts) -> Decision:
    """Add an environment in which every flag is there and switched off."""
    project = project_of(view, facts, command.project)
    others = view.environments(project.id)
    problems = Problems()
    key = _free_key(problems, command.key, command.name, others)
    sort = _last(others) if command.sort is None else command.sort
    environment = replace(
        new_environment(project, key, command.name, sort, command.critical, facts),
        require_review=command.require_review,
    )
    check_environment(problems, environment)
    problems.check(_INVALID)
    configs = tuple(fresh_config(flag, environment, facts) for flag in view.flags(project.id))
    return Decision(
        action="environment.created",
        entity=environment,
        save=(environment, *configs),
        changes=changes_between(None, environment),
        project_id=project.id,
        environment_id=environment.id,
    )


def clone_environment(command: CloneEnvironment, view: View, facts: Facts) -> Decision:
    """Add an environment in which every flag is as it is in another one.

    The salts are kept: a rollout reaches the same users in both, so that what is tried in the clone is what happens in
    the original. Secrets are the clone's own, and it has no keys yet.
    """
    project = project_of(view, facts, command.project)
    source = environment_of(view, project, command.environment)
    others = view.environments(project.id)
    problems = Problems()
    name = f"{source.name} copy" if command.name is None and command.key is None else command.name
    key = _free_key(problems, command.key, name, others)
    environment = replace(
        new_environment(project, key, name, _last(others), source.critical, facts),
        require_review=source.require_review,
    )
    check_environment(problems, environment)
    problems.check(_INVALID)
    now_ms = facts.now_ms
    configs = tuple(
        replace(config, environment_id=environment.id, enabled_at=now_ms, version=1, updated_at=now_ms)
        for flag in view.flags(project.id)
        if (config := view.config(flag.id, source.id)) is not None
    )
    return Decision(
        action="environment.cloned",
        entity=environment,
        save=(environment, *configs),
        changes=(Change(path="cloned_from", before=None, after=source.key), *changes_between(None, environment)),
        project_id=project.id,
        environment_id=environment.id,
    )


def reorder_environments(command: ReorderEnvironments, view: View, facts: Facts) -> Decision:
    """Put the environments of a project into another order."""
    project = project_of(view, facts, command.project)
    present = view.environments(project.id)
    wanted = _in_order(command.environments, present)
    moved = tuple(
        next_version(replace(environment, sort=place), facts)
        for place, environment in enumerate(wanted)
        if environment.sort != place
    )
    before, after = ([each.key for each in order] for order in (present, wanted))
    return Decision(
        action="project.environments_reordered",
        entity=project,
        save=moved,
        changes=(Change(path="environments", before=before, after=after),) if before != after else (),
        project_id=project.id,
    )


def _in_order(references: Sequence[str], present: Sequence[Environment]) -> list[Environment]:
    """Return the environments in the order in which they are named, by id or key.

    Raises:
        Rejected: INVALID unless each of them is named once.
    """
    known = {name: environment for environment in present for name in (environment.id, environment.key)}
    problems = Problems()
    wanted: dict[str, Environment] = {}
    for index, reference in enumerate(references):
        environment = known.get(reference)
        if environment is None:
            problems.add(f"environments[{index}]", f"There is no environment {reference!r} in this project.")
        elif environment.id in wanted:
            problems.add(f"environments[{index}]", f"{environment.key!r} is named twice.")
        else:
            wanted[environment.id] = environment
    left_out = [each.key for each in present if each.id not in wanted]
    if left_out:
        problems.add("environments", f"Name every environment of the project; left out: {', '.join(left_out)}.")
    problems.check("The environments cannot be put into this order.")
    return list(wanted.values())


def _free_key(problems: Problems, key: str | None, name: str | None, others: Sequence[Environment]) -> str:
    if len(others) >= MAX_ENVIRONMENTS:
        problems.add("key", f"A project has at most {MAX_ENVIRONMENTS} environments.")
    return choose_key(problems, "environment", key=key, name=name, taken={other.key for other in others})


def _last(others: Sequence[Environment]) -> int:
    return max((other.sort for other in others), default=-1) + 1


def check_environment(problems: Problems, environment: Environment) -> None:
    """Note what is wrong with an environment."""
    check_name(problems, "name", environment.name)
    if not -(1 << 31) <= environment.sort < 1 << 31:
        problems.add("sort", "This must be a whole number of at most 32 bits.")


def update_environment(command: UpdateEnvironment, view: View, facts: Facts) -> Decision:
    """Change an environment's name, place or marks."""
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    check_version(environment, command.if_match)
    after = replace(environment, **given(command, "name", "sort", "critical", "require_review"))
    problems = Problems()
    check_environment(problems, after)
    problems.check(_INVALID)
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
