"""`/healthz`, `/readyz`, `/version`, `/metrics`."""

from __future__ import annotations

import hmac
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy import select
from starlette.responses import PlainTextResponse

from api.auth import unauthenticated
from api.dependencies import ServicesDep
from api.problems import problem_responses
from store.tables import Worker

router = APIRouter(tags=["system"])
VERSION = version("cstar-service")
_scraper = HTTPBearer(
    auto_error=False,
    scheme_name="MetricsToken",
    description="`CSTAR_METRICS_TOKEN`, where it is set.",
)


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


@router.get(
    "/metrics",
    operation_id="get_metrics",
    response_class=PlainTextResponse,
    responses=problem_responses("unauthenticated", "unavailable"),
)
def get_metrics(
    services: ServicesDep,
    presented: Annotated[HTTPAuthorizationCredentials | None, Depends(_scraper)],
) -> Response:
    """Return what an operator watches, for Prometheus; names no tenant and nothing of theirs."""
    wanted = services.settings.metrics_token
    if wanted is not None and not _matches(presented, wanted.get_secret_value()):
        raise unauthenticated("Send CSTAR_METRICS_TOKEN as `Authorization: Bearer ...`.", "")
    return Response(services.scrape.text(), media_type=CONTENT_TYPE_LATEST)


def _matches(presented: HTTPAuthorizationCredentials | None, wanted: str) -> bool:
    given = presented.credentials if presented is not None else ""
    return hmac.compare_digest(given.encode(), wanted.encode())
