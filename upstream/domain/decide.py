"""The one table from command to what it needs and what decides it."""

from collections.abc import Callable, Mapping
from typing import Any

from upstream.domain import (
    bulk,
    configs,
    credentials,
    flag_endings,
    flag_rules,
    flag_targets,
    flag_variations,
    flags,
    members,
    projects,
    promotion,
    rollouts,
    segments,
)
from upstream.domain import commands as c
from upstream.domain import flag_commands as f
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.permissions import Action, may

Decider = Callable[[Any, View, Facts], Decision]

DECIDERS: Mapping[type, tuple[Action | None, Decider]] = {
    # None: only the installation itself.
    c.CreateOrganisation: (None, projects.create_organisation),
    c.CreateMember: (Action.MEMBERS_WRITE, members.create_member),
    c.UpdateMember: (Action.MEMBERS_WRITE, members.update_member),
    c.DeleteMember: (Action.MEMBERS_WRITE, members.delete_member),
    c.CreateProject: (Action.PROJECTS_WRITE, projects.create_project),
    c.UpdateProject: (Action.PROJECTS_WRITE, projects.update_project),
    c.DeleteProject: (Action.PROJECTS_WRITE, projects.delete_project),
    c.CreateEnvironment: (Action.PROJECTS_WRITE, projects.create_environment),
    c.UpdateEnvironment: (Action.PROJECTS_WRITE, projects.update_environment),
    c.DeleteEnvironment: (Action.PROJECTS_WRITE, projects.delete_environment),
    c.CreateFlag: (Action.FLAGS_WRITE, flags.create_flag),
    c.UpdateFlag: (Action.FLAGS_WRITE, flags.update_flag),
    c.DeleteFlag: (Action.FLAGS_DELETE, flag_endings.delete_flag),
    c.ArchiveFlag: (Action.FLAGS_WRITE, flag_endings.archive_flag),
    c.RestoreFlag: (Action.FLAGS_WRITE, flag_endings.restore_flag),
    c.UpdateConfig: (Action.FLAGS_WRITE, configs.update_config),
    c.ToggleFlag: (Action.FLAGS_WRITE, configs.toggle_flag),
    c.KillFlag: (Action.FLAGS_WRITE, configs.kill_flag),
    f.PromoteFlag: (Action.FLAGS_WRITE, promotion.promote_flag),
    f.CopyFlag: (Action.FLAGS_WRITE, promotion.copy_flag),
    f.TagFlag: (Action.FLAGS_WRITE, bulk.tag_flag),
    f.AddRule: (Action.FLAGS_WRITE, flag_rules.add_rule),
    f.UpdateRule: (Action.FLAGS_WRITE, flag_rules.update_rule),
    f.DeleteRule: (Action.FLAGS_WRITE, flag_rules.delete_rule),
    f.ReorderRules: (Action.FLAGS_WRITE, flag_rules.reorder_rules),
    f.AddTargets: (Action.FLAGS_WRITE, flag_targets.add_targets),
    f.RemoveTargets: (Action.FLAGS_WRITE, flag_targets.remove_targets),
    f.RollOut: (Action.FLAGS_WRITE, rollouts.roll_out),
    f.RampUp: (Action.FLAGS_WRITE, rollouts.ramp_up),
    f.AddVariation: (Action.FLAGS_WRITE, flag_variations.add_variation),
    f.UpdateVariation: (Action.FLAGS_WRITE, flag_variations.update_variation),
    f.DeleteVariation: (Action.FLAGS_WRITE, flag_variations.delete_variation),
    c.CreateSegment: (Action.FLAGS_WRITE, segments.create_segment),
    c.UpdateSegment: (Action.FLAGS_WRITE, segments.update_segment),
    c.DeleteSegment: (Action.FLAGS_DELETE, segments.delete_segment),
    c.CreateKey: (Action.KEYS_WRITE, credentials.create_key),
    c.RevokeKey: (Action.KEYS_WRITE, credentials.revoke_key),
    c.CreateToken: (Action.KEYS_WRITE, credentials.create_token),
    c.RevokeToken: (Action.KEYS_WRITE, credentials.revoke_token),
}


def decide(command: c.Command, view: View, facts: Facts) -> Decision:
    """Return what `command` comes to in the state that `view` shows.

    Raises:
        Rejected: the command is not to be carried out.
    """
    action, decider = DECIDERS[type(command)]
    permitted = facts.actor.type == "system" if action is None else may(facts.actor, action)
    if not permitted:
        needed = "the installation itself" if action is None else f"the permission {action}"
        raise Rejected(Kind.FORBIDDEN, f"This needs {needed}.", code="permission_missing", extra={"needed": action})
    return decider(command, view, facts)
