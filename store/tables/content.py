"""Bytes and uploaded files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.states import Damage
from store.tables.base import Base, one_of


class Blob(Base):
    """Bytes in the blob store, named by their SHA-256 (hex).

    A row that is not condemned has its bytes; one that is may be removed at any moment, and
    nothing refers to it. `damage` is what a scrub found (its last look was at `verified_at`).
    """

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    condemned_at: Mapped[datetime | None] = mapped_column(index=True)
    verified_at: Mapped[datetime | None] = mapped_column(index=True)
    damage: Mapped[str | None]
    __table_args__ = (one_of("damage", Damage),)


class File(Base):
    """An uploaded file."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    __table_args__ = (CheckConstraint("purpose IN ('checkpoint', 'dataset')", name="purpose"),)
