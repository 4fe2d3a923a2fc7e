"""`/v1/architectures`."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from api.auth import authenticated_tenant
from api.problems import problem_responses
from store.catalog import architectures

router = APIRouter(prefix="/v1/architectures", tags=["models"])


class ArchitectureDocument(BaseModel):
    """An architecture: `arguments` and their defaults, and the parameters it has with those."""

    name: str
    summary: str
    arguments: dict[str, int | bool | str]
    input_shape: list[int]
    parameters: int


class ArchitectureList(BaseModel):
    """Every architecture there is."""

    data: list[ArchitectureDocument]


@router.get(
    "",
    operation_id="list_architectures",
    dependencies=[Depends(authenticated_tenant)],
    responses=problem_responses("unauthenticated"),
)
def list_architectures() -> ArchitectureList:
    """List the architectures a model can name."""
    known = [ArchitectureDocument.model_validate(asdict(entry)) for entry in architectures()]
    return ArchitectureList(data=known)
