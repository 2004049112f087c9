"""`…/history`, `:compare`, `:at` and `:revert` of flags, their configs and segments: what they were, and back to it.

Without `environment` it is about the flag itself, with it about the flag's config there. Versions are counted for each
of these on its own, and are kept for ever, however far the change log reaches back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, changed
from upstream.api.body import Body, JsonBody
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.flag_states import states_after
from upstream.api.paging import Found, Paged
from upstream.api.places import FlagRef, InProject, ProjectRead, ProjectWrite, SegmentRef, place_of
from upstream.api.services import Served
from upstream.domain.diff import changes_between
from upstream.domain.entities import AuditEntry, Environment, Flag
from upstream.domain.governance_commands import RevertFlag, RevertSegment
from upstream.domain.lookup import environment_of, flag_of, segment_of
from upstream.domain.reverts import no_version
from upstream.storage.entity_history import Version, count_versions, version_in_force, version_of, versions_of
from upstream.storage.reads import audit_entries
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}", tags=["history"])

# What every integer column of both databases can hold.
_MAX_VERSION: Final = (1 << 63) - 1

EnvironmentQuery = Annotated[
    str | None, Query(max_length=200, description="Id or key of an environment: the flag's config there.")
]
VersionRef = Annotated[int, Path(ge=1, le=_MAX_VERSION, description="Number of the version.")]
VersionQuery = Annotated[int, Query(ge=1, le=_MAX_VERSION)]


class RevertBody(Body):
    """Which version to restore: of the flag itself, or with `environment` of its config there."""

    version: int | None = Field(default=None, ge=1, le=_MAX_VERSION)
    revision: int | None = Field(
        default=None, ge=0, le=_MAX_VERSION, description="Instead of a version: the one in force at this revision."
    )
    environment: str | None = None
    reason: str | None = Field(default=None, max_length=1_000)


class RevertSegmentBody(Body):
    """Which version of the segment to restore."""

    version: int = Field(ge=1, le=_MAX_VERSION)
    reason: str | None = Field(default=None, max_length=1_000)


@dataclass(frozen=True, slots=True)
class _Thing:
    """Whose history is asked for: its id, the environment's where it is a config, and what to call it."""

    id: str
    environment_id: str
    name: str


@router.get("/flags/{f}/history")
async def list_flag_history(
    at: ProjectRead, f: FlagRef, page: Paged, services: Served, environment: EnvironmentQuery = None
) -> Response:
    """List the versions of a flag or of its config in an environment, newest first; sort and search do not count."""
    found = await services.database.read(
        lambda c: _listed(c, _flag_thing(c, at, f, environment), page.limit, page.offset)
    )
    return Json(found.shown(page, lambda row: row))


@router.get("/flags/{f}/history:compare")
async def compare_flag_versions(
    at: ProjectRead,
    f: FlagRef,
    services: Served,
    from_: Annotated[VersionQuery, Query(alias="from", description="The version on the left side.")],
    to: Annotated[VersionQuery, Query(description="The version on the right side.")],
    environment: EnvironmentQuery = None,
) -> Response:
    """Return what differs between two versions."""
    return Json(await services.database.read(lambda c: _compared(c, _flag_thing(c, at, f, environment), from_, to)))


@router.get("/flags/{f}/history:at")
async def read_flag_at_revision(
    at: ProjectRead,
    f: FlagRef,
    services: Served,
    environment: Annotated[str, Query(max_length=200, description="Id or key of the environment.")],
    revision: Annotated[int, Query(ge=0, le=_MAX_VERSION, description="A revision that the environment has had.")],
) -> Response:
    """Return the flag and its config as they were in force at a revision of an environment."""

    def look(connection: Connection) -> dict[str, Any]:
        view = StoredView(connection)
        found, place = flag_of(view, at.project, f), environment_of(view, at.project, environment)
        return {
            "environment": place.key,
            "revision": revision,
            "flag": _in_force(connection, _Thing(found.id, "", f"flag {found.key!r}"), place, revision),
            "config": _in_force(connection, _config_thing(found, place), place, revision),
        }

    return Json(await services.database.read(look))


@router.get("/flags/{f}/history/{version}")
async def read_flag_version(
    at: ProjectRead, f: FlagRef, version: VersionRef, services: Served, environment: EnvironmentQuery = None
) -> Response:
    """Return a whole version of a flag, or of its config in an environment."""
    return Json(await services.database.read(lambda c: _whole(c, _flag_thing(c, at, f, environment), version)))


@router.post("/flags/{f}:revert")
async def revert_flag(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[RevertBody, Depends(JsonBody(RevertBody))],
    services: Served,
    doing: Doing,
) -> Response:
    """Restore what a flag, or its config in an environment, was at a version: as a new version."""
    place = None if body.environment is None else await place_of(services, at.project, f, body.environment)
    command = RevertFlag(project=at.project.id, flag=f, if_match=if_match, **body.given())
    outcome = await doing(command, at.actor)
    if place is None:
        return changed(outcome, await states_after(services, outcome))
    return changed(outcome, {"flag": place.flag.key, "environment": place.environment.key})


@router.get("/segments/{s}/history")
async def list_segment_history(at: ProjectRead, s: SegmentRef, page: Paged, services: Served) -> Response:
    """List the versions of a segment, newest first; sort and search do not count."""
    found = await services.database.read(lambda c: _listed(c, _segment_thing(c, at, s), page.limit, page.offset))
    return Json(found.shown(page, lambda row: row))


@router.get("/segments/{s}/history:compare")
async def compare_segment_versions(
    at: ProjectRead,
    s: SegmentRef,
    services: Served,
    from_: Annotated[VersionQuery, Query(alias="from", description="The version on the left side.")],
    to: Annotated[VersionQuery, Query(description="The version on the right side.")],
) -> Response:
    """Return what differs between two versions."""
    return Json(await services.database.read(lambda c: _compared(c, _segment_thing(c, at, s), from_, to)))


@router.get("/segments/{s}/history/{version}")
async def read_segment_version(at: ProjectRead, s: SegmentRef, version: VersionRef, services: Served) -> Response:
    """Return a whole version of a segment."""
    return Json(await services.database.read(lambda c: _whole(c, _segment_thing(c, at, s), version)))


@router.post("/segments/{s}:revert")
async def revert_segment(
    at: ProjectWrite,
    s: SegmentRef,
    if_match: IfMatch,
    body: Annotated[RevertSegmentBody, Depends(JsonBody(RevertSegmentBody))],
    doing: Doing,
) -> Response:
    """Restore what a segment was at a version: as a new version."""
    command = RevertSegment(project=at.project.id, segment=s, if_match=if_match, **body.given())
    return changed(await doing(command, at.actor))


def _flag_thing(connection: Connection, at: InProject, flag: str, environment: str | None) -> _Thing:
    view = StoredView(connection)
    found = flag_of(view, at.project, flag)
    if environment is None:
        return _Thing(found.id, "", f"flag {found.key!r}")
    return _config_thing(found, environment_of(view, at.project, environment))


def _config_thing(flag: Flag, environment: Environment) -> _Thing:
    return _Thing(flag.id, environment.id, f"flag {flag.key!r} in {environment.key!r}")


def _segment_thing(connection: Connection, at: InProject, segment: str) -> _Thing:
    found = segment_of(StoredView(connection), at.project, segment)
    return _Thing(found.id, "", f"segment {found.key!r}")


def _listed(connection: Connection, thing: _Thing, limit: int, offset: int) -> Found[Mapping[str, Any]]:
    # One more than is shown: the version before the last one.
    versions = versions_of(connection, thing.id, thing.environment_id, limit=limit + 1, offset=offset)
    entries = audit_entries(connection, [each.audit_id for each in versions if each.audit_id is not None])
    earlier = [*versions[1:], None]
    rows = [_row(each, earlier[index], entries) for index, each in enumerate(versions[:limit])]
    return Found(rows, count_versions(connection, thing.id, thing.environment_id))


def _row(version: Version, before: Version | None, entries: Mapping[str, AuditEntry]) -> Mapping[str, Any]:
    changes = () if before is None else changes_between(before.entity, version.entity)
    entry = entries.get(version.audit_id or "")
    return {**_head(version), **_origin(entry), "changed": [change.path for change in changes]}


def _head(version: Version) -> dict[str, Any]:
    return {
        "version": version.entity.version,
        "at": shapes.moment(version.at),
        "audit_id": version.audit_id,
        "revisions": version.revisions,
    }


def _origin(entry: AuditEntry | None) -> dict[str, Any]:
    if entry is None:
        return {"actor": None, "action": None, "reason": None}
    shown = shapes.audit_entry(entry)
    return {name: shown[name] for name in ("actor", "action", "reason")}


def _whole(connection: Connection, thing: _Thing, number: int) -> dict[str, Any]:
    return _shown(_existing(connection, thing, number))


def _existing(connection: Connection, thing: _Thing, number: int) -> Version:
    found = version_of(connection, thing.id, thing.environment_id, number)
    if found is None:
        raise no_version(thing.name, number)
    return found


def _in_force(connection: Connection, thing: _Thing, environment: Environment, revision: int) -> dict[str, Any]:
    found = None
    if revision <= environment.revision:
        found = version_in_force(connection, thing.id, thing.environment_id, environment.id, revision)
    if found is None:
        raise no_version(thing.name, None, revision)
    return _shown(found)


def _shown(version: Version) -> dict[str, Any]:
    return {**_head(version), "content": shapes.shape(version.entity)}


def _compared(connection: Connection, thing: _Thing, left: int, right: int) -> dict[str, Any]:
    before, after = _existing(connection, thing, left), _existing(connection, thing, right)
    return {
        "from": _head(before),
        "to": _head(after),
        "changes": shapes.shown_changes(changes_between(before.entity, after.entity)),
    }
