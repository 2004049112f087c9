"""The chain over an organisation's audit log: how a seal is made, and what is wrong with one that does not fit.

A seal holds the SHA-256 over the hash of the seal before it and the canonical bytes of a whole audit row, so nothing
sealed can be changed, removed, put elsewhere or slipped in without breaking what follows. The newest seal's number and
hash, kept elsewhere, tell whether the end was cut off or the whole chain was made anew. Pure: rows come in as mappings
from column to what is stored there, JSON as its text, so that every database gives the same bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, TypeAlias

import orjson

Row: TypeAlias = Mapping[str, Any]

LATE_MS: Final = 600_000
"""Age beside the chain's end from which an entry that stands before it cannot just have been slow to commit."""

_MOST_FAULTS: Final = 100


class FaultKind(StrEnum):
    """What can be wrong with a chain."""

    CHANGED = "changed"
    REORDERED = "reordered"
    REMOVED = "removed"
    INSERTED = "inserted"
    BROKEN_LINK = "broken_link"
    UNEXPECTED_END = "unexpected_end"


@dataclass(frozen=True, slots=True)
class Seal:
    """One link: its place in the chain from 1 on, the entry that it seals, and its hash."""

    number: int
    audit_id: str
    hash: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a chain as somebody noted it down, written `NUMBER:HASH`."""

    number: int
    hash: str

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.number}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong; `number` is the place in the chain, where there is one."""

    kind: FaultKind
    number: int | None
    audit_id: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a verification found. `unsealed` entries are so new that they have no seal yet."""

    sealed: int
    unsealed: int
    head: Seal | None
    faults: tuple[Fault, ...]
    is_complete: bool = True
    """Whether `faults` names every fault; there is a limit."""

    @property
    def is_intact(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.faults


def genesis(organisation_id: str) -> str:
    """Return what stands before the first seal of an organisation."""
    return sha256(b"halyard audit chain 1\n" + organisation_id.encode()).hexdigest()


def link(previous: str, row: Row) -> str:
    """Return the hash of the seal that follows `previous` and seals `row`."""
    # Columns without a value are left out, so that one that is added later changes no hash.
    known = {name: value for name, value in row.items() if value is not None}
    return sha256(previous.encode() + b"\n" + orjson.dumps(known, option=orjson.OPT_SORT_KEYS)).hexdigest()


def is_late(row: Row, newest: Row | None) -> bool:
    """Tell whether an entry without a seal stands so far before the newest sealed one that it was slipped in.

    Several processes may commit a little out of order; nobody commits ten minutes late.
    """
    if newest is None or row["seq"] > newest["seq"]:
        return False
    return bool(row["at"] < newest["at"] - LATE_MS)


def parse_mark(text: str) -> Mark:
    """Read `NUMBER:HASH`.

    Raises:
        ValueError: it is something else.
    """
    number, _, digest = text.strip().partition(":")
    is_number = number.isascii() and number.isdigit() and 0 < len(number) < 19  # noqa: PLR2004 - 64 bits
    if not is_number or len(digest) != 64 or set(digest) - set("0123456789abcdef"):  # noqa: PLR2004 - of SHA-256
        raise ValueError("Write the mark as a verification printed it: NUMBER:HASH, the hash in 64 hexadecimal digits.")
    return Mark(int(number), digest)


@dataclass(slots=True)
class _Misfit:
    """A seal that does not fit its entry."""

    seal: Seal
    previous: str
    row: Row


@dataclass(slots=True)
class Verifier:
    """Goes through one chain from its beginning: `take` every seal in order, then `finish`."""

    organisation_id: str
    expected: Mark | None = None
    _sealed: int = 0
    _head: Seal | None = None
    _newest: Row | None = None
    _faults: list[Fault] = field(default_factory=list)
    _misfits: list[_Misfit] = field(default_factory=list)
    _is_complete: bool = True
    _is_expected_met: bool = False

    def take(self, seal: Seal, row: Row | None) -> None:
        """Check the next seal against the one before it and its entry (None: there is no such entry)."""
        previous = self._head.hash if self._head is not None else genesis(self.organisation_id)
        follows = self._head.number + 1 if self._head is not None else 1
        if seal.number != follows:
            self._note(
                FaultKind.BROKEN_LINK, seal.number, seal.audit_id, f"Seals {follows} to {seal.number - 1} are missing."
            )
        if row is None:
            self._note(FaultKind.REMOVED, seal.number, seal.audit_id, "The entry was removed.")
        elif seal.number == follows and link(previous, row) != seal.hash:
            self._misfit(_Misfit(seal, previous, row))
        if self.expected is not None and seal.number == self.expected.number:
            self._is_expected_met = seal.hash == self.expected.hash
        self._sealed += 1
        self._head = seal
        self._newest = row or self._newest

    def finish(self, unsealed: Iterable[Row], removed: Iterable[str] = ()) -> Report:
        """Return what was found.

        Args:
            unsealed: the entries without a seal.
            removed: ids of entries that something else refers to and that are not there.
        """
        self._explain_misfits()
        count = 0
        for row in unsealed:
            count += 1
            if is_late(row, self._newest):
                detail = "The entry stands among sealed ones and has no seal: it was put in, or its seal was removed."
                self._note(FaultKind.INSERTED, None, row["id"], detail)
        known = {fault.audit_id for fault in self._faults}
        for audit_id in removed:
            if audit_id not in known:
                detail = "The history of a flag or segment refers to this entry, which was removed with its seal."
                self._note(FaultKind.REMOVED, None, audit_id, detail)
        if self.expected is not None and not self._is_expected_met:
            self._note(FaultKind.UNEXPECTED_END, self.expected.number, None, self._unexpected(self.expected))
        return Report(
            sealed=self._sealed,
            unsealed=count,
            head=self._head,
            faults=tuple(self._faults),
            is_complete=self._is_complete,
        )

    def _unexpected(self, expected: Mark) -> str:
        if self._head is None or self._head.number < expected.number:
            return f"The chain ends before seal {expected.number}, which was there once: its end was cut off."
        return f"Seal {expected.number} has another hash than the one that was noted: the chain was made anew."

    def _misfit(self, misfit: _Misfit) -> None:
        if len(self._misfits) < _MOST_FAULTS:
            self._misfits.append(misfit)
        else:
            self._is_complete = False

    def _explain_misfits(self) -> None:
        """Name each seal that does not fit: where another misfit's entry fits it, the two were exchanged."""
        numbers = {misfit.seal.number for misfit in self._misfits}
        for misfit in self._misfits:
            seal = misfit.seal
            of_others = (each.row for each in self._misfits if each is not misfit)
            owner = next((row for row in of_others if link(misfit.previous, row) == seal.hash), None)
            if owner is not None:
                detail = f"Here stands an entry of another place; the entry {owner['id']} belongs here."
                self._note(FaultKind.REORDERED, seal.number, seal.audit_id, detail)
            elif seal.number - 1 in numbers:
                detail = "The seal does not follow from the one before it, which does not fit its entry either."
                self._note(FaultKind.BROKEN_LINK, seal.number, seal.audit_id, detail)
            else:
                detail = "The entry, or its seal, is not as it was sealed."
                self._note(FaultKind.CHANGED, seal.number, seal.audit_id, detail)
        self._faults.sort(key=lambda fault: fault.number or 0)

    def _note(self, kind: FaultKind, number: int | None, audit_id: str | None, detail: str) -> None:
        if len(self._faults) < _MOST_FAULTS:
            self._faults.append(Fault(kind, number, audit_id, detail))
        else:
            self._is_complete = False
