"""Lists: `{data, total, limit, offset, has_more}`, with limit and offset or page, search, sort and direction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, Literal, Self, TypeVar

from fastapi import Depends, Query

from relay.errors import Problem
from upstream.storage import reads

E = TypeVar("E")

USUAL_LIMIT: Final = 50
# Far beyond any list, and safe in every database's integers.
_MAX_OFFSET: Final = 1_000_000_000
_MAX_SEARCH: Final = 200
_MAX_NAME: Final = 40

Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The part of a list that a request asks for. `sort` None is the list's usual order."""

    limit: int
    offset: int
    search: str | None
    sort: str | None
    direction: Direction | None

    def query(self, kind: type) -> reads.Query:
        """Return what is to be read of the list of that kind of thing.

        Raises:
            Problem: 422 when the list cannot be sorted as asked.
        """
        names = reads.SORTS[kind]
        if self.sort is not None and self.sort not in names:
            raise Problem(
                422,
                "invalid_parameters",
                "These parameters cannot be used: sort.",
                errors={"sort": [f"This list can be sorted by: {', '.join(names)}."]},
            )
        return reads.Query(
            limit=self.limit, offset=self.offset, search=self.search, sort=self.sort, dir=self.direction or "asc"
        )


async def asked_page(
    limit: Annotated[int, Query(ge=1, description="At most 100; more is taken as 100.")] = USUAL_LIMIT,
    offset: Annotated[int, Query(ge=0, le=_MAX_OFFSET, description="Entries to pass over.")] = 0,
    page: Annotated[int | None, Query(ge=1, le=_MAX_OFFSET, description="Page from 1 on, instead of offset.")] = None,
    search: Annotated[str | None, Query(max_length=_MAX_SEARCH, description="Text in key, name and the like.")] = None,
    sort: Annotated[str | None, Query(max_length=_MAX_NAME, description="Field to sort by.")] = None,
    dir: Annotated[Direction | None, Query(description="Direction of sorting.")] = None,  # noqa: A002 - the API's name
) -> Page:
    """Return the page that the query parameters ask for."""
    limit = min(limit, reads.MAX_LIMIT)
    start = offset if page is None else (page - 1) * limit
    return Page(limit=limit, offset=min(start, _MAX_OFFSET), search=search, sort=sort, direction=dir)


Paged = Annotated[Page, Depends(asked_page)]


@dataclass(frozen=True, slots=True)
class Found(Generic[E]):
    """One page of a list, and how long the list is."""

    entries: Sequence[E]
    total: int

    @classmethod
    def of(cls, read: reads.Page[E]) -> Self:
        """Return what was read."""
        return cls(read.items, read.total)

    def shown(self, page: Page, shape: Callable[[E], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the page as it is answered."""
        return {
            "data": [shape(entry) for entry in self.entries],
            "total": self.total,
            "limit": page.limit,
            "offset": page.offset,
            "has_more": page.offset + len(self.entries) < self.total,
        }
