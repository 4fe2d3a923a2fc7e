"""Numbering the models of one name: 1, 2, ..., a number never given twice."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from store.tables import ModelName


def next_version(session: Session, *, tenant_id: str, name: str) -> int:
    """Return the number of a new model; until the transaction ends, others of the name wait."""
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement = insert(ModelName).values(tenant_id=tenant_id, name=name, last_version=1)
    numbered = statement.on_conflict_do_update(
        index_elements=[ModelName.tenant_id, ModelName.name],
        set_={"last_version": ModelName.last_version + 1},
    ).returning(ModelName.last_version)
    return session.scalars(numbered).one()
