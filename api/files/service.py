"""The rows of files."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.errors import Fault, WrongPurpose
from api.pagination import Cursor, Slice, keyset
from api.tenancy import find, owned
from store.blobs import StoredBlob, remember
from store.database import database_now
from store.identifiers import new_id
from store.tables import File


def register(
    session: Session, blob: StoredBlob, *, tenant_id: str, filename: str, purpose: str
) -> File:
    """Give stored bytes a file of the tenant."""
    remember(session, blob)
    file = File(
        id=new_id("file"),
        tenant_id=tenant_id,
        filename=filename,
        purpose=purpose,
        sha256=blob.sha256,
        bytes=blob.bytes,
        created_at=database_now(session),
    )
    session.add(file)
    session.flush()
    return file


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[File]:
    """Return a page of the tenant's files."""
    return keyset(session, owned(File, tenant_id), File.id, cursor)


def get(session: Session, file_id: str, *, tenant_id: str) -> File:
    """Return a file; raises NotFound."""
    return find(session, File, file_id, tenant_id=tenant_id)


def named_in_body(session: Session, file_id: str, *, tenant_id: str, purpose: str) -> File:
    """Return the file a body names in `file_id`; raises NotFound or WrongPurpose."""
    file = find(session, File, file_id, tenant_id=tenant_id, pointer="/file_id", lock="share")
    if file.purpose != purpose:
        detail = (
            f"File {file.id} was uploaded with purpose={file.purpose}; "
            f"upload it with purpose={purpose} and name that file."
        )
        raise WrongPurpose(detail, faults=[Fault(detail, pointer="/file_id")])
    return file
