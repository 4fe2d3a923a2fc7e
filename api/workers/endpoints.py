"""`/v1/workers`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from api.auth import authenticated_tenant
from api.dependencies import ServicesDep
from api.problems import problem_responses
from store.tables import Worker

router = APIRouter(prefix="/v1/workers", tags=["system"])
MAX_LISTED = 200


class WorkerDocument(BaseModel):
    """A worker process; `facts` tells its device and sandbox."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    hostname: str
    pid: int
    queues: list[str]
    facts: dict[str, Any]
    started_at: datetime
    last_seen_at: datetime


class WorkerList(BaseModel):
    """The workers heard of last, newest first."""

    data: list[WorkerDocument]


@router.get(
    "",
    operation_id="list_workers",
    dependencies=[Depends(authenticated_tenant)],
    responses=problem_responses("unauthenticated"),
)
def list_workers(services: ServicesDep) -> WorkerList:
    """List the workers, the one heard of last first."""
    newest = select(Worker).order_by(Worker.last_seen_at.desc(), Worker.id).limit(MAX_LISTED)
    with services.database.reading() as session:
        workers = session.scalars(newest).all()
    return WorkerList(data=[WorkerDocument.model_validate(worker) for worker in workers])
