"""The one table from command to what it needs and what decides it."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from upstream.domain import access_commands as a
from upstream.domain import (
    bulk,
    configs,
    credential_changes,
    credentials,
    environments,
    flag_endings,
    flag_rules,
    flag_targets,
    flag_variations,
    flags,
    importing,
    joining,
    members,
    organisations,
    projects,
    promotion,
    requests,
    reverts,
    rollouts,
    schedules,
    segments,
)
from upstream.domain import commands as c
from upstream.domain import flag_commands as f
from upstream.domain import governance_commands as g
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.permissions import Action, Actor, may
from upstream.domain.review import check_review

Decider = Callable[[Any, View, Facts], Decision]


class Only(StrEnum):
    """Who alone may do what no permission gives."""

    INSTALLATION = "the installation itself"
    MEMBER = "a member, for themselves"


DECIDERS: Mapping[type, tuple[Action | Only, Decider]] = {
    a.CreateOrganisation: (Only.INSTALLATION, organisations.create_organisation),
    a.Found: (Only.INSTALLATION, organisations.found),
    a.UpdateOrganisation: (Action.ORGANISATION_WRITE, organisations.update_organisation),
    a.CreateMember: (Action.MEMBERS_WRITE, members.create_member),
    a.UpdateMember: (Action.MEMBERS_WRITE, members.update_member),
    a.DeleteMember: (Action.MEMBERS_WRITE, members.delete_member),
    a.InviteMember: (Action.MEMBERS_WRITE, joining.invite_member),
    a.ResetPassword: (Action.MEMBERS_WRITE, joining.reset_password),
    a.ChoosePassword: (Only.MEMBER, joining.choose_password),
    a.ChangePassword: (Only.MEMBER, joining.change_password),
    a.RenameMyself: (Only.MEMBER, joining.rename_myself),
    c.CreateProject: (Action.PROJECTS_WRITE, projects.create_project),
    c.UpdateProject: (Action.PROJECTS_WRITE, projects.update_project),
    c.DeleteProject: (Action.PROJECTS_WRITE, projects.delete_project),
    c.CreateEnvironment: (Action.PROJECTS_WRITE, environments.create_environment),
    c.CloneEnvironment: (Action.PROJECTS_WRITE, environments.clone_environment),
    c.ReorderEnvironments: (Action.PROJECTS_WRITE, environments.reorder_environments),
    c.UpdateEnvironment: (Action.PROJECTS_WRITE, environments.update_environment),
    c.DeleteEnvironment: (Action.PROJECTS_WRITE, environments.delete_environment),
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
    a.CreateKey: (Action.KEYS_WRITE, credentials.create_key),
    a.UpdateKey: (Action.KEYS_WRITE, credential_changes.update_key),
    a.RotateKey: (Action.KEYS_WRITE, credential_changes.rotate_key),
    a.RevokeKey: (Action.KEYS_WRITE, credential_changes.revoke_key),
    a.CreateToken: (Action.KEYS_WRITE, credentials.create_token),
    a.UpdateToken: (Action.KEYS_WRITE, credential_changes.update_token),
    a.RotateToken: (Action.KEYS_WRITE, credential_changes.rotate_token),
    a.RevokeToken: (Action.KEYS_WRITE, credential_changes.revoke_token),
    # What an import does beyond writing flags needs further permissions; it looks at them itself.
    c.ImportProject: (Action.FLAGS_WRITE, importing.import_project),
    g.RevertFlag: (Action.FLAGS_WRITE, reverts.revert_flag),
    g.RevertSegment: (Action.FLAGS_WRITE, reverts.revert_segment),
    # Who keeps commands for later has to be permitted these commands, which are tried before (`storage.deferral`).
    g.CreateSchedule: (Action.FLAGS_READ, schedules.create_schedule),
    g.CancelSchedule: (Action.FLAGS_WRITE, schedules.cancel_schedule),
    g.RunSchedule: (Only.INSTALLATION, schedules.run_schedule),
    g.FailSchedule: (Only.INSTALLATION, schedules.fail_schedule),
    g.ProposeChange: (Action.FLAGS_READ, requests.propose_change),
    g.AmendRequest: (Action.FLAGS_READ, requests.amend_request),
    g.UpdateRequest: (Action.FLAGS_WRITE, requests.update_request),
    g.ReviewRequest: (Action.FLAGS_WRITE, requests.review_request),
    g.WithdrawRequest: (Action.FLAGS_WRITE, requests.withdraw_request),
    g.ApplyRequest: (Action.FLAGS_WRITE, requests.apply_request),
}


def decide(command: c.Command, view: View, facts: Facts) -> Decision:
    """Return what `command` comes to in the state that `view` shows.

    Raises:
        Rejected: the command is not to be carried out.
    """
    needed, decider = DECIDERS[type(command)]
    if isinstance(needed, Only):
        if not _is(facts.actor, needed):
            raise Rejected(Kind.FORBIDDEN, f"Only {needed} may do this.", code="permission_missing")
    elif not may(facts.actor, needed):
        detail = f"This needs the permission {needed}."
        raise Rejected(Kind.FORBIDDEN, detail, code="permission_missing", extra={"needed": needed})
    decision = decider(command, view, facts)
    check_review(command, decision, view, facts)
    return decision


def _is(actor: Actor, only: Only) -> bool:
    return actor.type == ("system" if only is Only.INSTALLATION else "member")
