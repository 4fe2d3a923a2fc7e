"""`/healthz`, `/readyz`, `/version`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import select

from api.dependencies import ServicesDep
from api.problems import problem_responses
from store.tables import Worker

router = APIRouter(tags=["system"])
VERSION = version("cstar-service")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Version(BaseModel):
    """The version of the service and of the interface, and how uploads are confined.

    `sandbox` is that of the worker heard of last: `bubblewrap`, or `rlimits` where that cannot
    run; None before any worker has been heard of.
    """

    version: str
    api: Literal["v1"] = "v1"
    sandbox: str | None


@router.get("/healthz", operation_id="get_health")
def get_health() -> Health:
    """Return ok while the process lives."""
    return Health()


@router.get("/readyz", operation_id="get_readiness", responses=problem_responses("unavailable"))
def get_readiness(services: ServicesDep) -> Health:
    """Return ok while the database answers; a broker that is down only delays jobs."""
    with services.database.reading() as session:
        session.execute(select(1)).one()
    return Health()


@router.get("/version", operation_id="get_version")
def get_version(services: ServicesDep) -> Version:
    """Return the version of the service."""
    newest = select(Worker.facts).order_by(Worker.last_seen_at.desc(), Worker.id).limit(1)
    with services.database.reading() as session:
        facts = session.scalar(newest) or {}
    return Version(version=VERSION, sandbox=facts.get("sandbox"))
