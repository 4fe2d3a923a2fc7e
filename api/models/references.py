"""How a client names a model: by its id, or by its name and an alias as `name@alias`."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.tenancy import Lock, find, missing
from store.tables import Model, ModelAlias


def resolve(
    session: Session,
    reference: str,
    *,
    tenant_id: str,
    pointer: str | None = None,
    lock: Lock | None = None,
) -> Model:
    """Return the model that a reference names at this moment; raises NotFound (see `find`)."""
    model_id = reference if "@" not in reference else _aliased(session, reference, tenant_id)
    if model_id is None:
        raise missing("model", reference, pointer=pointer)
    return find(session, Model, model_id, tenant_id=tenant_id, pointer=pointer, lock=lock)


def _aliased(session: Session, reference: str, tenant_id: str) -> str | None:
    if not reference.isprintable():  # PostgreSQL refuses NUL in text
        return None
    name, _, alias = reference.rpartition("@")
    of_tenant = select(ModelAlias.model_id).where(ModelAlias.tenant_id == tenant_id)
    return session.scalar(of_tenant.where(ModelAlias.name == name, ModelAlias.alias == alias))
