"""Where models come from, and the names they go by."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base


class ModelName(Base):
    """How many versions a name of a tenant has had; a number is never given twice."""

    __tablename__ = "model_names"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_version: Mapped[int]


class ModelLineage(Base):
    """From which model, and by which job, a compressed model was made."""

    __tablename__ = "model_lineage"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    parent_model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)


class ModelAlias(Base):
    """A name such as `production` that points to one version of a model at a time."""

    __tablename__ = "model_aliases"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    updated_at: Mapped[datetime]
