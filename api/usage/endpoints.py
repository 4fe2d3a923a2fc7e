"""`/v1/usage`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.problems import problem_responses
from api.quotas import Amount

router = APIRouter(prefix="/v1/usage", tags=["usage"])


class UsageDocument(BaseModel):
    """`jobs` and dry runs that have not ended, `bytes` of files, artifacts and uploads.

    `uploads` are those not completed, `keys` those that open something.
    """

    object: Literal["usage"] = "usage"
    jobs: Amount
    bytes: Amount
    models: Amount
    datasets: Amount
    uploads: Amount
    webhook_endpoints: Amount
    keys: Amount


@router.get("", operation_id="get_usage", responses=problem_responses("unauthenticated"))
def get_usage(tenant_id: TenantId, services: ServicesDep) -> UsageDocument:
    """Return how much there is of what is limited, and the limits."""
    with services.database.reading() as session:
        return UsageDocument.model_validate(services.quotas.usage(session, tenant_id))
