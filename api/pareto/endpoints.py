"""`/v1/models/{id}/pareto`."""

from __future__ import annotations

from fastapi import APIRouter

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.models.references import resolve
from api.pareto import service
from api.pareto.schemas import ParetoDocument
from api.pareto.service import AxesQuery
from api.problems import problem_responses

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get(
    "/{model_id}/pareto",
    operation_id="get_model_pareto",
    responses=problem_responses("unauthenticated", "not_found", "invalid_request"),
)
def get_model_pareto(
    model_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    axes: AxesQuery = service.DEFAULT_AXES,
) -> ParetoDocument:
    """Return what the succeeded compressions of a model came to, beside the model itself.

    Points are compared when they were measured on one data set against one attacker.
    """
    with services.database.reading() as session:
        model = resolve(session, model_id, tenant_id=tenant_id)
        return service.of_model(session, model, service.axes_of(axes))
