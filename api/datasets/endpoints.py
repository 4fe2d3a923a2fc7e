"""`/v1/datasets`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api import deletion
from api.auth import TenantId
from api.conditional import NOT_MODIFIED, tagged
from api.datasets import service
from api.datasets.schemas import DatasetDocument
from api.dependencies import ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.pagination import CursorDep, Page, page_bounds
from api.problems import problem_responses
from api.waiting import WaitDep
from store.contracts import DatasetRequest
from store.states import Status

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=202,
    operation_id="create_dataset",
    response_model=DatasetDocument,
    responses=problem_responses(
        *IDEMPOTENCY_PROBLEMS,
        "unauthenticated",
        "quota_exceeded",
        "not_found",
        "too_large",
        "unsupported_media_type",
        "invalid_request",
        "wrong_purpose",
    ),
)
def create_dataset(
    request: DatasetRequest, tenant_id: TenantId, services: ServicesDep, once: OnceDep
) -> Response:
    """Make a data set of an uploaded file; it is `validating` until it is ready or rejected."""

    def create(session: Session) -> Created:
        services.quotas.claim(session, tenant_id, datasets=1)
        dataset = service.create(session, request, tenant_id=tenant_id)
        return Created(DatasetDocument.model_validate(dataset), f"/v1/datasets/{dataset.id}")

    return once(create)


@router.get(
    "",
    operation_id="list_datasets",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_datasets(
    tenant_id: TenantId, services: ServicesDep, cursor: CursorDep
) -> Page[DatasetDocument]:
    """List the data sets, newest first."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id)
    data = [DatasetDocument.model_validate(dataset) for dataset in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{dataset_id}",
    operation_id="get_dataset",
    response_model=DatasetDocument,
    responses={**NOT_MODIFIED, **problem_responses("unauthenticated", "not_found")},
)
async def get_dataset(
    *,
    request: Request,
    dataset_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    wait: WaitDep,
) -> Response:
    """Return a data set; `Prefer: wait=N` holds the answer while it is validating."""

    def read() -> DatasetDocument:
        with services.database.reading() as session:
            dataset = service.get(session, dataset_id, tenant_id=tenant_id)
            return DatasetDocument.model_validate(dataset)

    document = await wait.until(read, lambda dataset: dataset.status is not Status.VALIDATING)
    return tagged(request, document, wait.applied)


@router.delete(
    "/{dataset_id}",
    status_code=204,
    operation_id="delete_dataset",
    responses=problem_responses("unauthenticated", "not_found", "in_use"),
)
def delete_dataset(dataset_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Delete a data set that no unfinished job uses; finished jobs keep naming it."""
    with services.database.writing() as session:
        deletion.delete_dataset(session, dataset_id, tenant_id=tenant_id)
