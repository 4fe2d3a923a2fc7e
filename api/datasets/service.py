"""Creating data sets and finding them."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.files.service import named_in_body
from api.pagination import Cursor, Slice, keyset
from api.tenancy import find, owned
from store.contracts import DatasetRequest, document
from store.database import database_now
from store.identifiers import new_id
from store.states import JobKind, Status
from store.submit import IO_QUEUE, submit
from store.tables import Dataset


def create(session: Session, request: DatasetRequest, *, tenant_id: str) -> Dataset:
    """Add a data set and the job that validates it, in one transaction."""
    file = named_in_body(session, request.file_id, tenant_id=tenant_id, purpose="dataset")
    requested = document(request)
    dataset = Dataset(
        id=new_id("dts"),
        tenant_id=tenant_id,
        name=request.name,
        file_id=file.id,
        requested=requested,
        status=Status.VALIDATING,
        reasons=[],
        created_at=database_now(session),
    )
    session.add(dataset)
    session.flush()
    submit(
        session,
        tenant_id=tenant_id,
        kind=JobKind.VALIDATE_DATASET,
        queue=IO_QUEUE,
        request=requested,
        dataset_id=dataset.id,
    )
    return dataset


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[Dataset]:
    """Return a page of the tenant's data sets."""
    return keyset(session, owned(Dataset, tenant_id), Dataset.id, cursor)


def get(session: Session, dataset_id: str, *, tenant_id: str) -> Dataset:
    """Return a data set; raises NotFound."""
    return find(session, Dataset, dataset_id, tenant_id=tenant_id)
