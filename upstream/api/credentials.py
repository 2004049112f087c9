"""What keys and tokens share in the API: who sees which, and how lists of them are made."""

from collections.abc import Collection

from sqlalchemy import Connection

from upstream.api.paging import Found, Page
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.errors import not_found
from upstream.domain.permissions import Actor, contains
from upstream.storage import reads, tables
from upstream.storage.records import find_all


def is_visible(credential: Credential, actor: Actor) -> bool:
    """Tell whether the caller, who may be limited to projects, may know of this key or token."""
    return contains(actor, credential.projects)


def credential_at(connection: Connection, actor: Actor, credential_id: str, word: str) -> Credential:
    """Return the key, or token, with that id; `word` says which of the two is wanted.

    Raises:
        Rejected: there is none that the caller may know of.
    """
    found = reads.get_credential(connection, actor.organisation_id, credential_id)
    is_wanted = found is not None and (found.kind is CredentialKind.TOKEN) == (word == "token")
    if found is None or not is_wanted or not is_visible(found, actor):
        raise not_found(word, credential_id)
    return found


def credentials_page(
    connection: Connection,
    actor: Actor,
    page: Page,
    kinds: Collection[CredentialKind],
    environment_id: str | None = None,
) -> Found[Credential]:
    """Return one page of the keys or tokens that the caller may know of; revoked ones are left out."""
    query = page.query(Credential)
    if actor.projects is None:
        mine = actor.organisation_id
        return Found.of(reads.list_credentials(connection, mine, query, kinds=kinds, environment_id=environment_id))
    # Somebody limited to projects sees few keys, so these are filtered and cut here; newest first, as stored.
    table = tables.credentials.c
    known = find_all(
        connection,
        Credential,
        table.organisation_id == actor.organisation_id,
        table.revoked_at.is_(None),
        order=table.created_at,
    )
    seen = [
        each
        for each in known
        if each.kind in kinds and is_visible(each, actor) and environment_id in {None, each.environment_id}
    ]
    return Found(seen[page.offset : page.offset + page.limit], len(seen))
