"""`/v1/uploads`: announce a file, send its parts in any order and in parallel, complete it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth import TenantId
from api.dependencies import Services, ServicesDep
from api.digests import ContentDigest, announced_sha256, field_value
from api.errors import DomainError
from api.files.endpoints import BINARY_BODY, check_encoding, declared_length
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.middleware import streams_body
from api.pagination import CursorDep, Page, page_bounds
from api.problems import HttpError, problem_responses
from api.uploads import completion, service
from api.uploads.background import Stopping
from api.uploads.receiving import ReceivedPart, receive
from api.uploads.schemas import (
    PartDocument,
    UploadDocument,
    UploadRequest,
    UploadSummary,
)
from api.waiting import WaitDep
from store import uploads
from store.parts import Layout, Sealed
from store.states import UploadStatus

router = APIRouter(prefix="/v1/uploads", tags=["files"])
COMPLETION_WAIT_S = 30  # unless the client says otherwise


@router.post(
    "",
    status_code=201,
    operation_id="create_upload",
    response_model=UploadDocument,
    responses=problem_responses(
        *IDEMPOTENCY_PROBLEMS,
        "unauthenticated",
        "quota_exceeded",
        "too_large",
        "unsupported_media_type",
        "invalid_request",
        "unavailable",
    ),
)
def create_upload(
    request: UploadRequest, tenant_id: TenantId, services: ServicesDep, once: OnceDep
) -> Response:
    """Begin an upload in parts; it is completed at once if you have a file of these bytes."""

    def create(session: Session) -> Created:
        services.quotas.claim(session, tenant_id, uploads=1, bytes=request.bytes)
        upload = service.create(session, services, request, tenant_id=tenant_id)
        document = service.document(session, upload, services)
        return Created(document, f"/v1/uploads/{upload.id}", status=201)

    return once(create)


@router.get(
    "",
    operation_id="list_uploads",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_uploads(
    tenant_id: TenantId, services: ServicesDep, cursor: CursorDep
) -> Page[UploadSummary]:
    """List the uploads, newest first; `GET` one of them for its parts."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id)
        data = [service.summary(session, upload) for upload in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{upload_id}",
    operation_id="get_upload",
    responses=problem_responses("unauthenticated", "not_found"),
)
async def get_upload(
    upload_id: str, tenant_id: TenantId, services: ServicesDep, wait: WaitDep
) -> UploadDocument:
    """Return an upload with what has arrived; `Prefer: wait=N` holds it while it completes."""
    read = partial(_read, services, upload_id, tenant_id)
    return await wait.until(read, _has_settled)


@router.put(
    "/{upload_id}/parts/{number}",
    operation_id="upload_part",
    responses=problem_responses(
        "invalid_digest",
        "unauthenticated",
        "not_found",
        "upload_not_open",
        "unsupported_media_type",
        "invalid_request",
        "unknown_format",
        "digest_mismatch",
        "part_out_of_range",
        "wrong_part_size",
        "storage_full",
    ),
    openapi_extra={"requestBody": {"required": True, "content": BINARY_BODY}},
)
@streams_body
async def upload_part(
    *,
    request: Request,
    response: Response,
    upload_id: str,
    number: Annotated[int, Path(description="From 1 to the upload's `part_count`")],
    tenant_id: TenantId,
    services: ServicesDep,
    content_digest: ContentDigest = None,
) -> PartDocument:
    """Send a part: the request's body is its bytes. Sent again, it replaces what there was."""
    expected = announced_sha256(content_digest)
    check_encoding(request)
    place: dict[str, Any] = {"upload_id": upload_id, "number": number, "tenant_id": tenant_id}
    declared = declared_length(request)
    layout, purpose = await run_in_threadpool(_begin_part, services, declared, **place)
    try:
        part = await receive(
            request.stream(),
            services.parts,
            layout,
            number,
            purpose=purpose,
            expected_sha256=expected,
        )
    except Sealed:
        part = None  # it was completed or cancelled meanwhile
    document = await run_in_threadpool(_note_part, services, layout, part, **place)
    response.headers["Repr-Digest"] = field_value(str(document.sha256))
    return document


@router.post(
    "/{upload_id}/complete",
    operation_id="complete_upload",
    responses={
        202: {"model": UploadDocument, "description": "It is being checked; ask again"},
        **problem_responses(
            "unauthenticated",
            "quota_exceeded",
            "not_found",
            "upload_not_open",
            "parts_missing",
            "unknown_format",
            "digest_mismatch",
            "unavailable",
            "storage_full",
        ),
    },
)
async def complete_upload(
    upload_id: str, response: Response, tenant_id: TenantId, services: ServicesDep, wait: WaitDep
) -> UploadDocument:
    """Check the whole and make it a file; may be repeated, and answers with the same file then.

    Waits for at most 30 seconds, or as `Prefer: wait=N` says, and answers 202 if that is not
    enough: it goes on meanwhile.
    """
    if not wait.applied:
        wait.seconds = COMPLETION_WAIT_S
    claimed = await run_in_threadpool(completion.claim, services, upload_id, tenant_id=tenant_id)
    if claimed is not None:
        await _carry_out(services, claimed, seconds=wait.seconds)
        wait.seconds = 0
    read = partial(_read, services, upload_id, tenant_id)
    document = await wait.until(read, _has_settled)
    if document.status is UploadStatus.COMPLETING:
        response.status_code = 202
        response.headers["Location"] = f"/v1/uploads/{upload_id}"  # RFC 9110, 15.3.3
    return _well(document)


@router.post(
    "/{upload_id}/cancel",
    operation_id="cancel_upload",
    responses=problem_responses("unauthenticated", "not_found", "upload_not_open"),
)
def cancel_upload(upload_id: str, tenant_id: TenantId, services: ServicesDep) -> UploadDocument:
    """Give up an upload and what has arrived of it; may be repeated."""
    with services.database.writing() as session:
        upload = service.locked(session, upload_id, tenant_id=tenant_id)
        if upload.status in uploads.LIVE:
            uploads.cancel(session, upload)
        elif upload.status != UploadStatus.CANCELLED:
            raise service.not_open(upload.status)
    services.parts.discard(upload.id)
    return _read(services, upload_id, tenant_id)


class _Told(DomainError):
    """What a completion found, told again."""

    def __init__(self, document: UploadDocument) -> None:
        assert document.failure is not None
        super().__init__(document.failure.detail, members=document.failure.members)
        self.code = document.failure.code


async def _carry_out(services: Services, claimed: completion.Claim, *, seconds: float) -> None:
    work = partial(completion.carry_out, services, claimed)
    try:
        await services.completions.run(work, seconds=seconds)
    except completion.LeaseLost:
        return  # the upload's status tells what happened
    except Stopping as error:
        detail = "The server is about to restart; complete the upload again, it goes on then."
        raise HttpError("unavailable", detail) from error


def _well(document: UploadDocument) -> UploadDocument:
    """Return the upload unless its completion failed, or ended because the upload did."""
    if document.status is UploadStatus.OPEN and document.failure is not None:
        raise _Told(document)
    if document.status in (UploadStatus.CANCELLED, UploadStatus.EXPIRED):
        raise service.not_open(document.status)
    return document


def _has_settled(document: UploadDocument) -> bool:
    return document.status is not UploadStatus.COMPLETING


def _read(services: Services, upload_id: str, tenant_id: str) -> UploadDocument:
    with services.database.reading() as session:
        upload = service.get(session, upload_id, tenant_id=tenant_id)
        return service.document(session, upload, services)


def _begin_part(services: Services, declared: int | None, **place: Any) -> tuple[Layout, str]:
    with services.database.writing() as session:
        return service.begin_part(session, **place, declared=declared)


def _note_part(
    services: Services,
    layout: Layout,
    part: ReceivedPart | None,
    *,
    upload_id: str,
    number: int,
    tenant_id: str,
) -> PartDocument:
    expiry_s = services.settings.upload_expiry_s
    with services.database.writing() as session:
        row = None
        if part is not None:
            arrived: dict[str, Any] = {
                "sha256": part.sha256,
                "e_tag": part.e_tag,
                "expiry_s": expiry_s,
            }
            row = uploads.arrive(session, upload_id, number, **arrived)
        if row is None:
            raise service.not_open(service.get(session, upload_id, tenant_id=tenant_id).status)
        return service.part_document(layout, number, row)
