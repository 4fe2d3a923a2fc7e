"""What jobs work on: models and data sets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.states import Status
from store.tables.base import Base, one_of


class Model(Base):
    """A network: an uploaded checkpoint with its architecture, or what a compression left.

    `weights_sha256` is its safetensors file. `network_sha256` is the `architecture.json` that an
    exported network is built from; an uploaded one is built from the registry, and has none.
    A deleted model keeps its row for the jobs that name it, and nothing that takes room.
    """

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    version: Mapped[int]
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"), index=True)
    requested: Mapped[dict[str, Any]]
    status: Mapped[str]
    reasons: Mapped[list[Any]]
    architecture: Mapped[dict[str, Any] | None]
    input: Mapped[dict[str, Any]]
    num_classes: Mapped[int]
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    limits: Mapped[dict[str, Any] | None]
    weights_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    network_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("status", Status),
        UniqueConstraint("tenant_id", "name", "version"),
    )


class Dataset(Base):
    """An uploaded data set; `content_sha256` names the split, `blob_sha256` the canonical copy.

    A deleted one keeps its row for the jobs that name it, as a model does.
    """

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"), index=True)
    requested: Mapped[dict[str, Any]]
    status: Mapped[str]
    reasons: Mapped[list[Any]]
    num_examples: Mapped[dict[str, Any] | None]
    shape: Mapped[list[Any] | None]
    num_classes: Mapped[int | None]
    class_names: Mapped[list[Any] | None]
    content_sha256: Mapped[str | None] = mapped_column(String(64))
    blob_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    __table_args__ = (one_of("status", Status),)
