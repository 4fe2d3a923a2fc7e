"""Aliases: names such as `production` that point to one version of a model at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from api.jobs.admission import check_model_ready
from api.models.references import resolve
from api.tenancy import missing
from store.database import database_now
from store.tables import ModelAlias

AliasName = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
        description="A letter, then up to 63 letters, digits, `_`, `.` or `-`",
    ),
]


class AliasDocument(BaseModel):
    """What `name@alias` stands for."""

    model_config = ConfigDict(from_attributes=True)

    object: Literal["model_alias"] = "model_alias"
    name: str
    alias: str
    model_id: str
    updated_at: datetime


def point(session: Session, model_id: str, alias: str, *, tenant_id: str) -> AliasDocument:
    """Let an alias of a model's name point to that model, wherever it pointed before.

    Raises NotFound, ModelNotReady or ModelRejected.
    """
    model = resolve(session, model_id, tenant_id=tenant_id, lock="share")
    check_model_ready(model)
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    key = {"tenant_id": tenant_id, "name": model.name, "alias": alias}
    found = {"model_id": model.id, "updated_at": database_now(session)}
    statement = insert(ModelAlias).values(key | found)
    moved = statement.on_conflict_do_update(index_elements=list(key), set_=found)
    session.execute(moved)
    return AliasDocument(**key | found)


def remove(session: Session, model_id: str, alias: str, *, tenant_id: str) -> None:
    """Remove an alias from a model; raises NotFound when it does not point there."""
    model = resolve(session, model_id, tenant_id=tenant_id)
    pointing = (ModelAlias.model_id == model.id, ModelAlias.alias == alias)
    if session.scalar(delete(ModelAlias).where(*pointing).returning(ModelAlias.alias)) is None:
        raise missing("alias", f"{model.name}@{alias}")
