"""Sends changes, and shows what came of them: done, only tried, scheduled, or proposed."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from upstream.console import changes
from upstream.console.moments import shown
from upstream.console.output import Output, plain
from upstream.console.session import AtAuthority, Trying

_SECRET_NOTE = "Shown this once: keep it now. Halyard itself only has its hash."  # noqa: S105 - a sentence about secrets


async def carry_out(
    at: AtAuthority,
    how: Trying,
    method: str,
    path: str,
    body: Any = None,
    *,
    done: Callable[[Mapping[str, Any]], str],
    key: str | None = None,
) -> None:
    """Send one change and print what came of it.

    Args:
        at: where.
        how: at once, or otherwise.
        method: of the request.
        path: of the request.
        body: of the request.
        done: makes a sentence of the answer, when it was done.
        key: what `--quiet` prints; else the answer's `key` or `id`.

    Raises:
        Failed: it was not done.
    """
    answer = await at.call(method, path, body, how)
    if how.dry_run:
        changes.show_preview(at.out, answer.body)
    elif answer.status == HTTPStatus.ACCEPTED:
        show_postponed(at.out, answer.body)
    else:
        found = key or answer.body.get("key") or answer.body.get("id")
        at.out.said(answer.body, done(answer.body), found)
        changes.warn(at.out, answer.body)


async def reveal(at: AtAuthority, how: Trying, path: str, body: Any, *, member: str, what: str) -> None:
    """Send a change whose answer holds a secret, and print that: alone with `--quiet`, whole with `--json`.

    Args:
        at: where.
        how: at once, or otherwise.
        path: of the request.
        body: of the request.
        member: where in the answer the secret is, as dotted names.
        what: what was made.

    Raises:
        Failed: it was not done.
    """
    answer = await at.call("POST", path, body, how)
    if how.dry_run:
        changes.show_preview(at.out, answer.body)
        return
    secret: Any = answer.body
    for name in member.split("."):
        secret = secret[name]
    show_secret(at.out, answer.body, str(secret), what)
    changes.warn(at.out, answer.body)


def show_secret(out: Output, body: Any, secret: str, what: str) -> None:
    """Print a secret that is shown once."""
    if out.as_json:
        out.document(body)
        return
    if not out.quiet:
        out.note(what)
    out.text(secret)
    out.note(_SECRET_NOTE)


def show_postponed(out: Output, body: Mapping[str, Any]) -> None:
    """Print what is kept for later: a schedule, or a change request."""
    found = str(body.get("id", ""))
    if body.get("title") is not None:
        text = f"Proposed as {plain(str(body['title']))!r}. Others look at it with: halyard requests show {found}"
    else:
        when = shown(body.get("run_at"))
        text = f"Scheduled for {when} UTC. Call it off with: halyard schedules cancel {found}"
    out.said(body, text, found)
    changes.warn(out, body)
