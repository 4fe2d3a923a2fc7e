"""Files on their way in, part by part."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from store.states import UploadStatus
from store.tables.base import Base, one_of


class Upload(Base):
    """A file announced with its size and SHA-256 (hex), of which numbered parts arrive.

    While it is completing, the process that checks it holds a lease. `verified_at` is set once
    the parts were found to be the file that was announced, before they get the name of a blob;
    `failure` tells why the last completion failed.
    """

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id", ondelete="SET NULL"))
    failure: Mapped[dict[str, Any] | None]
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint("purpose IN ('checkpoint', 'dataset')", name="purpose"),
        one_of("status", UploadStatus),
        Index(None, "status", "expires_at"),
        Index(None, "file_id"),
    )


class UploadPart(Base):
    """A part that has arrived; `e_tag` is the object store's, where it has one."""

    __tablename__ = "upload_parts"
    upload_id: Mapped[str] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    e_tag: Mapped[str | None]
    arrived_at: Mapped[datetime]
