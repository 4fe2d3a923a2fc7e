"""`/v1/jobs/{id}/artifacts` and `/v1/artifacts/{id}/content`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import select

from api.auth import TenantId
from api.content import CONTENT_RESPONSES, Content, send
from api.dependencies import ServicesDep
from api.jobs import service as jobs
from api.problems import problem_responses
from api.tenancy import find
from store.tables import Artifact

router = APIRouter(prefix="/v1", tags=["artifacts"])


class ArtifactDocument(BaseModel):
    """A file of a succeeded job; `sha256` is hexadecimal."""

    id: str
    object: Literal["artifact"] = "artifact"
    kind: str
    filename: str
    bytes: int
    sha256: str
    media_type: str
    url: str


class ArtifactList(BaseModel):
    """All artifacts of a job."""

    data: list[ArtifactDocument]


@router.get(
    "/jobs/{job_id}/artifacts",
    operation_id="list_job_artifacts",
    responses=problem_responses("unauthenticated", "not_found"),
)
def list_job_artifacts(job_id: str, tenant_id: TenantId, services: ServicesDep) -> ArtifactList:
    """List the files a job has left; none before it succeeded."""
    with services.database.reading() as session:
        job = jobs.get(session, job_id, tenant_id=tenant_id)
        rows = session.scalars(
            select(Artifact).where(Artifact.job_id == job.id).order_by(Artifact.filename)
        ).all()
    return ArtifactList(data=[_document(row) for row in rows])


@router.head(
    "/artifacts/{artifact_id}/content",
    operation_id="head_artifact_content",
    response_class=Response,
    responses=CONTENT_RESPONSES,
)
@router.get(
    "/artifacts/{artifact_id}/content",
    operation_id="download_artifact",
    response_class=Response,
    responses=CONTENT_RESPONSES,
)
def download_artifact(
    request: Request, artifact_id: str, tenant_id: TenantId, services: ServicesDep
) -> Response:
    """Return an artifact's bytes; single ranges, `If-Range` and `If-None-Match` are honoured."""
    with services.database.reading() as session:
        row = find(session, Artifact, artifact_id, tenant_id=tenant_id)
    content = Content(row.sha256, row.bytes, row.filename, row.media_type)
    return send(request, content, services.blobs)


def _document(row: Artifact) -> ArtifactDocument:
    names = ("id", "kind", "filename", "bytes", "sha256", "media_type")
    url = f"/v1/artifacts/{row.id}/content"
    return ArtifactDocument(url=url, **{name: getattr(row, name) for name in names})
