"""`halyard upstream audit verify`: reads the database, whether an upstream runs on it or not, and writes a report."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from relay.clock import SystemClock
from relay.errors import BadSettings
from upstream import data_dir
from upstream.domain.audit_chain import Mark, Report
from upstream.sealing import verified
from upstream.settings import UpstreamSettings
from upstream.storage.audit_chain import organisations


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found about one organisation's log."""

    organisation_id: str
    name: str
    report: Report


async def verify(settings: UpstreamSettings, organisation: str | None, expected: Mark | None) -> list[Verified]:
    """Verify the logs of all organisations, or of the one with that id or name.

    Raises:
        BadSettings: there is no such database or organisation, or the mark could be of several.
    """
    _check_there(settings)
    with closing(data_dir.open_stored(settings, SystemClock())) as database:
        known = await database.read(organisations)
        chosen = [each for each in known if organisation in {None, *each}]
        if organisation is not None and not chosen:
            raise BadSettings([f"--organisation: there is none with the id or name {organisation!r}"])
        if expected is not None and len(chosen) != 1:
            raise BadSettings(["--expect: a mark is of one organisation; name it with --organisation"])
        return [Verified(*each, await verified(database, each[0], expected)) for each in chosen]


def _check_there(settings: UpstreamSettings) -> None:
    """Do not make a database where there is none, only to find it in order."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise BadSettings([f"upstream.database.url: there is no database {url.database}"])


def lines_of(found: Verified) -> Iterator[str]:
    """Yield the report in lines."""
    report = found.report
    yield f"{found.name} ({found.organisation_id})"
    yield f"  sealed   {report.sealed} entries" + (f", {report.unsealed} not sealed yet" if report.unsealed else "")
    if report.head is not None:
        yield f"  mark     {Mark(report.head.number, report.head.hash)}"
    if report.is_intact:
        yield "  intact   nothing sealed was changed, removed or put in"
    for fault in report.faults:
        place = "" if fault.number is None else f" seal {fault.number}"
        entry = "" if fault.audit_id is None else f" entry {fault.audit_id}"
        yield f"  FAULT    {fault.kind}:{place}{entry}: {fault.detail}"
    if not report.is_complete:
        yield "  FAULT    there are more faults than are named here"
