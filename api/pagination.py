"""Keyset pages, newest first: `after` goes on to older rows, `before` back to newer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, StringConstraints
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.errors import Fault, InvalidRequest

Item = TypeVar("Item")
Row = TypeVar("Row")
# PostgreSQL refuses NUL in text.
Text = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
Limit = Annotated[int, Query(ge=1, le=100, description="Rows of a page")]


class Page(BaseModel, Generic[Item]):
    """A page of a list; pass `last_id` as `after` to go on while `has_more`."""

    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


@dataclass(frozen=True)
class Cursor:
    """Where a page begins; at most one of `after` and `before`."""

    limit: int
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class Slice(Generic[Row]):
    """The rows of a page, and whether there are more in the direction gone."""

    rows: Sequence[Row]
    has_more: bool


def cursor(
    limit: Limit = 20,
    after: Annotated[Text | None, Query(description="Id of the row before the page")] = None,
    before: Annotated[Text | None, Query(description="Id of the row after the page")] = None,
) -> Cursor:
    """Return the cursor of the query string."""
    if after is not None and before is not None:
        detail = "Give after or before, not both."
        raise InvalidRequest(detail, faults=[Fault(detail, parameter="before")])
    return Cursor(limit, after, before)


CursorDep = Annotated[Cursor, Depends(cursor)]


def keyset(
    session: Session,
    statement: Select[Row],
    identifier: InstrumentedAttribute[str],
    cursor: Cursor,
) -> Slice[Row]:
    """Return one page of `statement`, newest id first."""
    if cursor.after is not None:
        statement = statement.where(identifier < cursor.after)
    if cursor.before is not None:
        statement = statement.where(identifier > cursor.before)
    backwards = cursor.before is not None
    order: Any = identifier.asc() if backwards else identifier.desc()
    rows = session.scalars(statement.order_by(order).limit(cursor.limit + 1)).all()
    page = rows[: cursor.limit]
    return Slice(page[::-1] if backwards else page, has_more=len(rows) > cursor.limit)


def page_bounds(data: Sequence[Any]) -> dict[str, str | None]:
    """Return `first_id` and `last_id` of a page's documents."""
    return {
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
    }
