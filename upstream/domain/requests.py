"""Decides about change requests: opened, amended, reviewed, withdrawn, applied, and voided by what others change.

A request is bound to the versions that its author and its reviewers saw. Any edit of one of these voids it, in the
editing transaction (`voided_by`); that they hold is checked once more when it is applied. Nobody reviews their own
request, through whichever door they come (`person`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from upstream.domain.actors import person, recorded
from upstream.domain.bindings import first_hit, holds, named, touched_by
from upstream.domain.entities import Change, ChangeRequest, JsonObject, RequestStatus
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.governance_commands import (
    AmendRequest,
    ApplyRequest,
    ProposeChange,
    ReviewRequest,
    UpdateRequest,
    WithdrawRequest,
)
from upstream.domain.lookup import change_request_of, check_version, next_version, project_of
from upstream.domain.naming import TEXT_CHARACTERS, check_name, check_text
from upstream.domain.schedules import check_length

MAX_WAITING = 200
"""Requests of a project that may be open or approved at a time: each edit looks at all of them."""
MAX_COMMANDS = 100
WAITING = (RequestStatus.OPEN, RequestStatus.APPROVED)
_INVALID = "The change request cannot be used as it is."


def propose_change(command: ProposeChange, view: View, facts: Facts) -> Decision:
    """Open a request."""
    project = project_of(view, facts, command.project)
    _check_texts(command.title, None)
    _check_size(command.commands)
    if view.waiting_requests(project.id) >= MAX_WAITING:
        detail = f"The project {project.key!r} has {MAX_WAITING} open change requests; apply or withdraw some first."
        raise Rejected(Kind.CONFLICT, detail, code="too_many_requests_open")
    request = ChangeRequest(
        id=facts.new_id(),
        project_id=project.id,
        title=command.title,
        description=None,
        commands=tuple(command.commands),
        bound=tuple(command.bound),
        preview=command.preview,
        status=RequestStatus.OPEN,
        author={**recorded(facts.actor), "person": person(facts.actor, view)},
        reviews=(),
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    changes = (
        Change(path="title", before=None, after=request.title),
        Change(path="commands", before=None, after=request.commands),
    )
    return Decision(
        action="change_request.created", entity=request, save=(request,), changes=changes, project_id=project.id
    )


def amend_request(command: AmendRequest, view: View, facts: Facts) -> Decision:
    """Add to a request what its author proposes beside; who approved it approved something else."""
    request = waiting_request_of(view, facts, command.project, command.request)
    check_author(request, view, facts)
    _check_size(command.commands)
    after = replace(
        request,
        commands=tuple(command.commands),
        bound=tuple(command.bound),
        preview=command.preview,
        status=RequestStatus.OPEN,
        reviews=(),
    )
    added = after.commands[len(request.commands) :]
    changes = (Change(path="commands", before=None, after=added),)
    return _decided("change_request.amended", request, after, facts, changes=changes)


def update_request(command: UpdateRequest, view: View, facts: Facts) -> Decision:
    """Change title and description."""
    request = waiting_request_of(view, facts, command.project, command.request)
    check_version(request, command.if_match)
    check_author(request, view, facts)
    after = replace(
        request,
        title=request.title if command.title is None else command.title,
        description=request.description if command.description is None else command.description,
    )
    _check_texts(after.title, after.description)
    changes = tuple(
        Change(path=name, before=getattr(request, name), after=getattr(after, name))
        for name in ("title", "description")
        if getattr(request, name) != getattr(after, name)
    )
    return _decided("change_request.updated", request, after, facts, changes=changes)


def review_request(command: ReviewRequest, view: View, facts: Facts) -> Decision:
    """Approve or reject a request of somebody else."""
    request = waiting_request_of(view, facts, command.project, command.request)
    check_version(request, command.if_match)
    _check_comment(command.comment)
    if person(facts.actor, view) == request.author["person"]:
        detail = "This is your own change request: another person has to review it."
        raise Rejected(Kind.FORBIDDEN, detail, code="own_request")
    is_approval = command.verdict == "approved"
    if is_approval and request.status is not RequestStatus.OPEN:
        raise _wrong_status(request, "approved")
    review = {"by": recorded(facts.actor), "verdict": command.verdict, "comment": command.comment, "at": facts.now_ms}
    review["person"] = person(facts.actor, view)
    status = RequestStatus.APPROVED if is_approval else RequestStatus.REJECTED
    after = replace(request, status=status, reviews=(*request.reviews, review))
    return _decided(f"change_request.{command.verdict}", request, after, facts, reason=command.comment)


def withdraw_request(command: WithdrawRequest, view: View, facts: Facts) -> Decision:
    """Take back one's own request."""
    request = waiting_request_of(view, facts, command.project, command.request)
    check_version(request, command.if_match)
    _check_comment(command.comment)
    check_author(request, view, facts)
    after = replace(request, status=RequestStatus.WITHDRAWN)
    return _decided("change_request.withdrawn", request, after, facts, reason=command.comment)


def apply_request(command: ApplyRequest, view: View, facts: Facts) -> Decision:
    """Note that a request is applied; its commands follow in the same transaction (`steps`)."""
    request = waiting_request_of(view, facts, command.project, command.request)
    check_version(request, command.if_match)
    _check_comment(command.comment)
    if request.status is not RequestStatus.APPROVED:
        raise _wrong_status(request, "applied; somebody else has to approve it first", code="request_not_approved")
    approvers = {each["person"] for each in request.reviews if each["verdict"] == "approved"}
    if person(facts.actor, view) not in {request.author["person"], *approvers}:
        detail = "Its author, or whoever approved it, applies a change request."
        raise Rejected(Kind.FORBIDDEN, detail, code="not_your_request")
    changed = [each for each in request.bound if not holds(each, view)]
    if changed:
        detail = f"{named(changed[0])} has changed since this was proposed; propose it anew."
        raise Rejected(Kind.CONFLICT, detail, code="request_outdated", extra={"changed": changed})
    after = replace(request, status=RequestStatus.APPLIED)
    return _decided("change_request.applied", request, after, facts, reason=command.comment)


def waiting_request_of(view: View, facts: Facts, project: str, reference: str) -> ChangeRequest:
    """Return a request that is still open or approved.

    Raises:
        Rejected: NOT_FOUND; CONFLICT for one that has ended.
    """
    request = change_request_of(view, project_of(view, facts, project), reference)
    if request.status not in WAITING:
        raise _wrong_status(request, "changed any more", code="request_closed")
    return request


def check_author(request: ChangeRequest, view: View, facts: Facts) -> None:
    """Refuse what only its author may do to a request.

    Raises:
        Rejected: FORBIDDEN.
    """
    if person(facts.actor, view) != request.author["person"]:
        raise Rejected(Kind.FORBIDDEN, "Only its author does this to a change request.", code="not_your_request")


def _wrong_status(request: ChangeRequest, what: str, *, code: str = "request_not_open") -> Rejected:
    detail = f"This change request is {request.status} and cannot be {what}."
    return Rejected(Kind.CONFLICT, detail, code=code)


def voided_by(requests: Sequence[ChangeRequest], decisions: Iterable[Decision], facts: Facts) -> tuple[Decision, ...]:
    """Return what becomes of those requests that are bound to something which these decisions change."""
    if not requests:
        return ()
    touched = touched_by(decisions)
    return tuple(
        _decided(
            "change_request.voided",
            request,
            replace(request, status=RequestStatus.VOIDED),
            facts,
            reason=f"{named(hit)} was changed.",
        )
        for request in requests
        if (hit := first_hit(request.bound, touched)) is not None
    )


def _decided(  # noqa: PLR0913 - each of them is needed
    action: str,
    before: ChangeRequest,
    after: ChangeRequest,
    facts: Facts,
    *,
    changes: tuple[Change, ...] = (),
    reason: str | None = None,
) -> Decision:
    if before.status is not after.status:
        changes += (Change(path="status", before=str(before.status), after=str(after.status)),)
    saved = next_version(after, facts) if after != before else None
    return Decision(
        action=action,
        entity=saved or before,
        save=(saved,) if saved else (),
        changes=changes,
        project_id=before.project_id,
        reason=reason,
    )


def _check_texts(title: str, description: str | None) -> None:
    problems = Problems()
    check_name(problems, "title", title)
    check_text(problems, "description", description, limit=TEXT_CHARACTERS)
    problems.check(_INVALID)


def _check_comment(comment: str | None) -> None:
    problems = Problems()
    check_text(problems, "comment", comment, limit=TEXT_CHARACTERS)
    problems.check(_INVALID)


def _check_size(commands: Sequence[JsonObject]) -> None:
    if len(commands) > MAX_COMMANDS:
        detail = f"A change request holds at most {MAX_COMMANDS} changes; open another one."
        raise Rejected(Kind.CONFLICT, detail, code="request_too_long")
    check_length(commands)
