"""What uploads are and what has arrived of them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.dependencies import Services
from api.errors import Fault, InvalidRequest, PartOutOfRange, UploadNotOpen
from api.files import service as files
from api.files.receiving import too_large
from api.files.schemas import file_document
from api.pagination import Cursor, Slice, keyset
from api.tenancy import find, owned
from api.uploads.receiving import wrong_size
from api.uploads.schemas import (
    MAX_PARTS,
    PartDocument,
    PresignedPart,
    UploadDocument,
    UploadRequest,
    UploadSummary,
    UploadUrls,
)
from store import uploads
from store.database import database_now
from store.parts import FoundPart, Layout
from store.states import UploadStatus
from store.tables import File, Upload, UploadPart

PART_BYTES = 32 << 20
PRESIGNED_AT_ONCE = 100
PRESIGNED_S = 3600.0


def create(
    session: Session, services: Services, request: UploadRequest, *, tenant_id: str
) -> Upload:
    """Open an upload, completed at once if the tenant has these bytes; raises a refusal."""
    limit = services.settings.max_upload_bytes
    if request.bytes > limit:
        raise too_large(limit)
    upload = uploads.create(
        session,
        tenant_id=tenant_id,
        filename=request.filename,
        purpose=request.purpose,
        bytes=request.bytes,
        sha256=request.sha256,
        part_bytes=_part_bytes(request),
        expiry_s=services.settings.upload_expiry_s,
    )
    if _has_already(session, services, upload):
        _complete_at_once(session, services, upload)
    return upload


def get(session: Session, upload_id: str, *, tenant_id: str) -> Upload:
    """Return an upload; raises NotFound."""
    return find(session, Upload, upload_id, tenant_id=tenant_id)


def locked(session: Session, upload_id: str, *, tenant_id: str) -> Upload:
    """Return an upload that nobody else changes in this transaction; raises NotFound."""
    return find(session, Upload, upload_id, tenant_id=tenant_id, lock="update")


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[Upload]:
    """Return a page of the tenant's uploads."""
    return keyset(session, owned(Upload, tenant_id), Upload.id, cursor)


def begin_part(
    session: Session, upload_id: str, number: int, *, tenant_id: str, declared: int | None
) -> tuple[Layout, str]:
    """Return the layout and purpose of an upload that takes this part, which counts as missing now.

    What it replaces is overwritten, unless it is refused here: raises NotFound, UploadNotOpen,
    PartOutOfRange, or WrongPartSize when `declared` bytes are not what the part has.
    """
    upload = get(session, upload_id, tenant_id=tenant_id)
    layout = uploads.layout_of(upload)
    if upload.status != UploadStatus.OPEN:
        raise not_open(upload.status)
    if not 1 <= number <= layout.count:
        raise PartOutOfRange(
            f"This upload has parts 1 to {layout.count}.", members={"part_count": layout.count}
        )
    if declared not in (None, layout.size(number)):
        raise wrong_size(layout.size(number), declared)
    if session.get(UploadPart, (upload_id, number)) is not None:
        uploads.forget(session, upload_id, [number])
    return layout, upload.purpose


def not_open(status: str) -> UploadNotOpen:
    """Return the error for what the status of an upload does not allow."""
    next_step = {
        UploadStatus.COMPLETING: "POST to its complete URL again to go on, or wait.",
        UploadStatus.COMPLETED: "Its file is there; use that.",
        UploadStatus.OPEN: "It was being completed a moment ago; send the part again.",
    }.get(UploadStatus(status), "Begin another one.")
    detail = f"The upload is {status}. {next_step}"
    return UploadNotOpen(detail, members={"upload_status": status})


def arrived(session: Session, upload: Upload, services: Services) -> list[PartDocument]:
    """Return the parts there are, in their order."""
    layout = uploads.layout_of(upload)
    rows = {part.number: part for part in uploads.parts(session, upload.id)}
    found = services.parts.found(layout) if upload.status in uploads.LIVE else None
    if found is None:
        return [part_document(layout, number, row) for number, row in rows.items()]
    return [
        part_document(layout, number, _same(rows.get(number), part))
        for number, part in sorted(found.items())
        if part.bytes == layout.size(number)
    ]


def missing(upload: Upload, parts: list[PartDocument]) -> list[int]:
    """Return the numbers of the parts that are still to be sent."""
    there = {part.number for part in parts}
    everything = range(1, uploads.layout_of(upload).count + 1)
    return [number for number in everything if number not in there]


def part_document(layout: Layout, number: int, row: UploadPart | None) -> PartDocument:
    """Return a part that has arrived; without a row, the store alone knows of it."""
    return PartDocument(
        number=number,
        bytes=layout.size(number),
        sha256=row.sha256 if row else None,
        arrived_at=row.arrived_at if row else None,
    )


def summary(session: Session, upload: Upload) -> UploadSummary:
    """Return an upload without its parts."""
    file = session.get(File, upload.file_id) if upload.file_id else None
    url = f"/v1/uploads/{upload.id}"
    urls = UploadUrls(
        self=url,
        part=f"{url}/parts/{{number}}",
        complete=f"{url}/complete",
        cancel=f"{url}/cancel",
    )
    return UploadSummary.model_validate(
        {
            "id": upload.id,
            "status": upload.status,
            "filename": upload.filename,
            "purpose": upload.purpose,
            "bytes": upload.bytes,
            "sha256": upload.sha256,
            "part_bytes": upload.part_bytes,
            "part_count": uploads.layout_of(upload).count,
            "file": file_document(file) if file else None,
            "failure": upload.failure,
            "created_at": upload.created_at,
            "expires_at": upload.expires_at,
            "urls": urls,
        }
    )


def document(session: Session, upload: Upload, services: Services) -> UploadDocument:
    """Return an upload with what has arrived and where the rest may be sent."""
    parts = arrived(session, upload, services)
    is_open = upload.status == UploadStatus.OPEN
    absent = missing(upload, parts) if is_open else []
    presigned = _presigned(session, upload, absent, services)
    return UploadDocument(
        **summary(session, upload).model_dump(),
        parts=parts,
        missing_parts=absent,
        presigned_parts=presigned,
    )


def _part_bytes(request: UploadRequest) -> int:
    least = -(-request.bytes // MAX_PARTS)
    if request.part_bytes is None:
        return max(PART_BYTES, -(-least // (1 << 20)) << 20)
    if request.part_bytes < least:
        detail = f"A file has at most {MAX_PARTS} parts; this one needs part_bytes >= {least}."
        raise InvalidRequest(detail, faults=[Fault(detail, pointer="/part_bytes")])
    return request.part_bytes


def _has_already(session: Session, services: Services, upload: Upload) -> bool:
    """Say whether this very tenant has a whole file of these bytes; what others have is theirs."""
    same = (
        File.purpose == upload.purpose,
        File.sha256 == upload.sha256,
        File.bytes == upload.bytes,
    )
    mine = select(File.id).where(File.tenant_id == upload.tenant_id, *same).limit(1)
    if session.scalar(mine) is None:
        return False
    return services.blobs.exists(upload.sha256)


def _complete_at_once(session: Session, services: Services, upload: Upload) -> None:
    file = files.register(
        session,
        services.blobs.stored(upload.sha256, upload.bytes),
        tenant_id=upload.tenant_id,
        filename=upload.filename,
        purpose=upload.purpose,
    )
    upload.status, upload.file_id = UploadStatus.COMPLETED, file.id
    upload.finished_at = database_now(session)


def _same(row: UploadPart | None, found: FoundPart) -> UploadPart | None:
    return row if row is not None and row.e_tag == found.e_tag else None


def _presigned(
    session: Session, upload: Upload, numbers: list[int], services: Services
) -> list[PresignedPart]:
    if not services.settings.presign_parts:
        return []
    layout = uploads.layout_of(upload)
    expires_at = database_now(session) + timedelta(seconds=PRESIGNED_S)
    urls = {
        number: services.parts.presign(layout, number, expires_in_s=PRESIGNED_S)
        for number in numbers[:PRESIGNED_AT_ONCE]
    }
    return [
        PresignedPart(number=number, url=url, expires_at=expires_at)
        for number, url in urls.items()
        if url is not None
    ]
