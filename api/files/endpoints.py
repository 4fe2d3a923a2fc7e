"""`/v1/files`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api import deletion
from api.auth import TenantId
from api.content import CONTENT_RESPONSES, Content, send
from api.dependencies import Services, ServicesDep
from api.digests import ContentDigest, announced_sha256, field_value
from api.files import service
from api.files.receiving import receive, too_large
from api.files.schemas import FileDocument, Filename, Purpose, file_document
from api.middleware import streams_body
from api.pagination import CursorDep, Page, page_bounds
from api.problems import HttpError, problem_responses
from store.blobs import StoredBlob

router = APIRouter(prefix="/v1/files", tags=["files"])

BINARY_BODY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_UPLOAD_PROBLEMS = problem_responses(
    "invalid_digest",
    "unauthenticated",
    "quota_exceeded",
    "too_large",
    "unsupported_media_type",
    "invalid_request",
    "empty_file",
    "unknown_format",
    "digest_mismatch",
    "unavailable",
    "storage_full",
)


@router.put(
    "",
    status_code=201,
    operation_id="upload_file",
    responses=_UPLOAD_PROBLEMS,
    openapi_extra={"requestBody": {"required": True, "content": BINARY_BODY}},
)
@streams_body
async def upload_file(
    *,
    request: Request,
    response: Response,
    filename: Filename,
    purpose: Purpose,
    tenant_id: TenantId,
    services: ServicesDep,
    content_digest: ContentDigest = None,
) -> FileDocument:
    """Upload a file: the request's body is the file, byte for byte."""
    limit = min(services.settings.max_upload_bytes, services.settings.max_single_upload_bytes)
    expected = announced_sha256(content_digest)
    check_encoding(request)
    if (declared_length(request) or 0) > limit:
        raise too_large(limit)
    blob = await receive(
        request.stream(), services.blobs, purpose=purpose, limit=limit, expected_sha256=expected
    )
    document = await run_in_threadpool(
        _register, services, blob, tenant_id=tenant_id, filename=filename, purpose=purpose
    )
    response.headers["Location"] = f"/v1/files/{document.id}"
    response.headers["Repr-Digest"] = field_value(document.sha256)
    return document


@router.get(
    "",
    operation_id="list_files",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_files(tenant_id: TenantId, services: ServicesDep, cursor: CursorDep) -> Page[FileDocument]:
    """List the files, newest first."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id)
    data = [file_document(file) for file in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{file_id}",
    operation_id="get_file",
    responses=problem_responses("unauthenticated", "not_found"),
)
def get_file(file_id: str, tenant_id: TenantId, services: ServicesDep) -> FileDocument:
    """Return a file's record."""
    with services.database.reading() as session:
        return file_document(service.get(session, file_id, tenant_id=tenant_id))


@router.delete(
    "/{file_id}",
    status_code=204,
    operation_id="delete_file",
    responses=problem_responses("unauthenticated", "not_found", "in_use"),
)
def delete_file(file_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Delete a file that no model and no data set is made of."""
    with services.database.writing() as session:
        deletion.delete_file(session, file_id, tenant_id=tenant_id)


@router.head(
    "/{file_id}/content",
    operation_id="head_file_content",
    response_class=Response,
    responses=CONTENT_RESPONSES,
)
@router.get(
    "/{file_id}/content",
    operation_id="download_file",
    response_class=Response,
    responses=CONTENT_RESPONSES,
)
def download_file(
    request: Request, file_id: str, tenant_id: TenantId, services: ServicesDep
) -> Response:
    """Return a file's bytes; single ranges, `If-Range` and `If-None-Match` are honoured."""
    with services.database.reading() as session:
        file = service.get(session, file_id, tenant_id=tenant_id)
    content = Content(file.sha256, file.bytes, file.filename, "application/octet-stream")
    return send(request, content, services.blobs)


def check_encoding(request: Request) -> None:
    """Raise a 415 problem when the body is not the file's own bytes."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        detail = f"Content-Encoding {encoding} is not supported; send the file's own bytes."
        raise HttpError("unsupported_media_type", detail)


def declared_length(request: Request) -> int | None:
    """Return how many bytes the body is said to have."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else None


def _register(
    services: Services, blob: StoredBlob, *, tenant_id: str, filename: str, purpose: str
) -> FileDocument:
    with services.database.writing() as session:
        services.quotas.claim(session, tenant_id, bytes=blob.bytes)
        file = service.register(
            session, blob, tenant_id=tenant_id, filename=filename, purpose=purpose
        )
        return file_document(file)
