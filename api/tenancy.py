"""Whose rows a request may see: every query of a tenant's rows starts here."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.errors import Fault, NotFound
from store.tables import Artifact, Base, Dataset, Job, Model

Lock = Literal["share", "change", "update"]
Owned = TypeVar("Owned", bound=Base)


def owned(entity: type[Owned], tenant_id: str) -> Select[Owned]:
    """Select the rows of a tenant that are there; an artifact belongs to the tenant of its job."""
    columns: Any = entity
    if entity is Artifact:
        jobs = select(Job.id).where(Job.tenant_id == tenant_id)
        return select(entity).where(columns.job_id.in_(jobs))
    statement = select(entity).where(columns.tenant_id == tenant_id)
    if entity in (Model, Dataset):  # a deleted one keeps its row for the jobs that name it
        statement = statement.where(columns.deleted_at.is_(None))
    return statement


def find(
    session: Session,
    entity: type[Owned],
    identifier: str,
    *,
    tenant_id: str,
    pointer: str | None = None,
    lock: Lock | None = None,
) -> Owned:
    """Return the tenant's row of that id; `pointer` is where a body named it. Raises NotFound.

    `lock` is for a row that the transaction is about to refer to ("share": nobody deletes it
    meanwhile), to change ("change": nobody else does, but others refer to it) or to delete
    ("update": nobody refers to it meanwhile). The row is then as it is once it is locked.
    """
    columns: Any = entity
    statement = owned(entity, tenant_id).where(columns.id == identifier)
    if lock is not None:  # SQLite has one writer at a time, and no use for it
        statement = statement.with_for_update(read=lock == "share", key_share=lock == "change")
        statement = statement.execution_options(populate_existing=True)
    # PostgreSQL refuses NUL in text; no identifier holds what cannot be printed.
    row = session.scalar(statement) if identifier.isprintable() else None
    if row is None:
        noun = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", entity.__name__).lower()
        raise missing(noun, identifier, pointer=pointer)
    return row


def missing(noun: str, identifier: str, *, pointer: str | None = None) -> NotFound:
    """Return the error for an id that names nothing this tenant may see."""
    detail = f"There is no {noun} {identifier!r}."
    return NotFound(detail, faults=[Fault(detail, pointer=pointer)] if pointer else [])
