"""The rows of uploads in parts: what has arrived, who completes, and what is over."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from store.database import Database, database_now
from store.identifiers import new_id
from store.parts import Layout, PartStore
from store.states import UploadStatus
from store.tables import Upload, UploadPart

LONGEST_S = 7 * 86400.0  # however often parts arrive
LIVE = frozenset({UploadStatus.OPEN, UploadStatus.COMPLETING})


def layout_of(upload: Upload) -> Layout:
    """Return how the file of an upload is cut into parts."""
    return Layout(upload.id, upload.bytes, upload.part_bytes)


def create(
    session: Session,
    *,
    tenant_id: str,
    filename: str,
    purpose: str,
    bytes: int,
    sha256: str,
    part_bytes: int,
    expiry_s: float,
) -> Upload:
    """Open an upload that ends when nothing arrives for `expiry_s`."""
    now = database_now(session)
    upload = Upload(
        id=new_id("upl"),
        tenant_id=tenant_id,
        filename=filename,
        purpose=purpose,
        bytes=bytes,
        sha256=sha256,
        part_bytes=part_bytes,
        status=UploadStatus.OPEN,
        created_at=now,
        expires_at=now + timedelta(seconds=expiry_s),
    )
    session.add(upload)
    session.flush()
    return upload


def parts(session: Session, upload_id: str) -> list[UploadPart]:
    """Return the parts that the service has received, in their order."""
    found = select(UploadPart).where(UploadPart.upload_id == upload_id)
    return list(session.scalars(found.order_by(UploadPart.number)))


def forget(session: Session, upload_id: str, numbers: Collection[int]) -> None:
    """Take parts for not arrived."""
    mine = (UploadPart.upload_id == upload_id, UploadPart.number.in_(numbers))
    session.execute(delete(UploadPart).where(*mine))


def arrive(
    session: Session,
    upload_id: str,
    number: int,
    *,
    sha256: str,
    e_tag: str | None,
    expiry_s: float,
) -> UploadPart | None:
    """Note that a part has arrived; None when the upload takes no more."""
    is_open = (Upload.id == upload_id, Upload.status == UploadStatus.OPEN)
    upload = session.scalar(select(Upload).where(*is_open).with_for_update())
    if upload is None:
        return None
    now = database_now(session)
    upload.expires_at = _expiry(upload, now, expiry_s)
    part = UploadPart(
        upload_id=upload_id, number=number, sha256=sha256, e_tag=e_tag, arrived_at=now
    )
    return session.merge(part)


def claim(session: Session, upload: Upload, *, lease_s: float) -> str | None:
    """Begin to complete a locked upload; None while another process does, or when it is over.

    A lease that ends later than one that begins now is from before the clock was set back.
    """
    now = database_now(session)
    until, latest = upload.lease_expires_at, now + timedelta(seconds=lease_s)
    leased = until is not None and now < until <= latest
    if upload.status not in LIVE or leased:
        return None
    upload.status = UploadStatus.COMPLETING
    upload.failure = None
    upload.lease_token = secrets.token_hex(16)
    upload.lease_expires_at = latest
    return upload.lease_token


def renew(session: Session, upload_id: str, token: str, *, lease_s: float) -> bool:
    """Keep the lease of a completion; False when it was lost."""
    until = database_now(session) + timedelta(seconds=lease_s)
    return _change(session, upload_id, token, lease_expires_at=until)


def note_verified(session: Session, upload_id: str, token: str) -> bool:
    """Note that the parts are the file that was announced; False when the lease was lost."""
    return _change(session, upload_id, token, verified_at=database_now(session))


def complete(session: Session, upload_id: str, token: str, *, file_id: str) -> bool:
    """Give the upload its file; False when the lease was lost."""
    now = database_now(session)
    done = {"status": UploadStatus.COMPLETED, "file_id": file_id, "finished_at": now}
    return _change(session, upload_id, token, **done, **_NO_LEASE)


def reopen(session: Session, upload_id: str, token: str, failure: dict[str, Any]) -> bool:
    """Take parts again, because the completion failed; False when the lease was lost."""
    again = {"status": UploadStatus.OPEN, "failure": failure, "verified_at": None}
    return _change(session, upload_id, token, **again, **_NO_LEASE)


def release(session: Session, upload_id: str, token: str) -> bool:
    """Let whoever asks next go on with the completion."""
    return _change(session, upload_id, token, **_NO_LEASE)


def cancel(session: Session, upload: Upload) -> None:
    """End a locked upload that is live."""
    upload.status = UploadStatus.CANCELLED
    upload.finished_at = database_now(session)
    upload.lease_token = upload.lease_expires_at = None


def expire(session: Session) -> list[str]:
    """End the uploads whose time is up and that nobody completes; returns their ids."""
    now = database_now(session)
    unattended = or_(
        Upload.status == UploadStatus.OPEN,
        and_(
            Upload.status == UploadStatus.COMPLETING,
            or_(Upload.lease_expires_at.is_(None), Upload.lease_expires_at < now),
        ),
    )
    over = update(Upload).where(Upload.expires_at < now, unattended)
    expired = over.values(status=UploadStatus.EXPIRED, finished_at=now, **_NO_LEASE)
    returning = expired.returning(Upload.id).execution_options(synchronize_session=False)
    return list(session.scalars(returning))


def purge(session: Session, *, kept_s: float) -> int:
    """Forget uploads that have been over for `kept_s`; returns how many."""
    limit = database_now(session) - timedelta(seconds=kept_s)
    old = delete(Upload).where(Upload.status.not_in(LIVE), Upload.finished_at < limit)
    return len(session.scalars(old.returning(Upload.id)).all())


def sweep(database: Database, store: PartStore, *, grace_s: float) -> int:
    """Remove parts untouched for `grace_s` of uploads that are over; returns of how many."""
    old = store.old(grace_s=grace_s)
    with database.reading() as session:
        live = session.scalars(select(Upload.id).where(Upload.status.in_(LIVE))).all()
    over = old - set(live)
    discard(store, over)
    return len(over)


def discard(store: PartStore, upload_ids: Iterable[str]) -> None:
    """Remove the parts of uploads that are over."""
    for upload_id in upload_ids:
        store.discard(upload_id)


_NO_LEASE: dict[str, None] = {"lease_token": None, "lease_expires_at": None}


def _change(session: Session, upload_id: str, token: str, **values: Any) -> bool:
    mine = _held(upload_id, token)
    changed = session.scalar(update(Upload).where(mine).values(**values).returning(Upload.id))
    return changed is not None


def _held(upload_id: str, token: str) -> ColumnElement[bool]:
    completing = Upload.status == UploadStatus.COMPLETING
    return and_(Upload.id == upload_id, completing, Upload.lease_token == token)


def _expiry(upload: Upload, now: datetime, expiry_s: float) -> datetime:
    longest = upload.created_at + timedelta(seconds=LONGEST_S)
    idle = now + timedelta(seconds=expiry_s)
    return max(upload.expires_at, min(idle, longest))
