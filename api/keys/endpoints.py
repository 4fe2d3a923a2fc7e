"""`/v1/api-keys`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.auth import PrincipalDep, TenantId
from api.dependencies import ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.keys import service
from api.keys.schemas import KeyDocument, KeyRequest, NewKeyDocument, RotationRequest
from api.pagination import CursorDep, Page, page_bounds
from api.problems import problem_responses
from api.scopes import known_scopes
from store.tables import ApiKey

router = APIRouter(prefix="/v1/api-keys", tags=["keys"])
_MAKING_PROBLEMS = (
    "unauthenticated",
    "insufficient_scope",
    "quota_exceeded",
    "too_large",
    "unsupported_media_type",
    "invalid_request",
    *IDEMPOTENCY_PROBLEMS,
)


@router.post(
    "",
    status_code=201,
    operation_id="create_api_key",
    response_model=NewKeyDocument,
    responses=problem_responses(*_MAKING_PROBLEMS),
)
def create_api_key(
    request: KeyRequest,
    asked: Request,
    principal: PrincipalDep,
    services: ServicesDep,
    once: OnceDep,
) -> Response:
    """Make a key of some of the scopes that the asking key has; `key` is told this once.

    It ends with the asking key at the latest.
    """
    scopes = known_scopes(asked.app.routes)

    def create(session: Session) -> Created:
        services.quotas.claim(session, principal.tenant_id, keys=1)
        row, key = service.create(
            session,
            request,
            principal=principal,
            known_scopes=scopes,
            secret_key=services.secret_key,
        )
        return _created(row, key)

    return once(create)


@router.get(
    "",
    operation_id="list_api_keys",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_api_keys(
    tenant_id: TenantId, services: ServicesDep, cursor: CursorDep
) -> Page[KeyDocument]:
    """List the keys, newest first, those that have ended too."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id)
    data = [KeyDocument.model_validate(key) for key in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{key_id}",
    operation_id="get_api_key",
    responses=problem_responses("unauthenticated", "not_found"),
)
def get_api_key(key_id: str, tenant_id: TenantId, services: ServicesDep) -> KeyDocument:
    """Return a key without its text."""
    with services.database.reading() as session:
        return KeyDocument.model_validate(service.get(session, key_id, tenant_id=tenant_id))


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    operation_id="rotate_api_key",
    response_model=NewKeyDocument,
    responses=problem_responses(*_MAKING_PROBLEMS, "not_found", "key_ended"),
)
def rotate_api_key(
    *,
    key_id: str,
    request: RotationRequest | None = None,
    principal: PrincipalDep,
    services: ServicesDep,
    once: OnceDep,
) -> Response:
    """Make a key of the same name, scopes and lifetime; the old one ends after `overlap_s`.

    The new one ends with the asking key at the latest.
    """
    wish = request or RotationRequest()

    def create(session: Session) -> Created:
        row, key = service.rotate(
            session,
            key_id,
            principal=principal,
            overlap_s=wish.overlap_s,
            secret_key=services.secret_key,
        )
        services.quotas.claim(session, principal.tenant_id, keys=0)  # with both of them counted
        return _created(row, key)

    answer = once(create)
    services.known_keys.forget(key_id)
    return answer


@router.post(
    "/{key_id}/revoke",
    operation_id="revoke_api_key",
    responses=problem_responses("unauthenticated", "not_found"),
)
def revoke_api_key(key_id: str, tenant_id: TenantId, services: ServicesDep) -> KeyDocument:
    """End a key at once, also the one that asks; again, it changes nothing."""
    with services.database.writing() as session:
        document = KeyDocument.model_validate(service.revoke(session, key_id, tenant_id=tenant_id))
    services.known_keys.forget(key_id)
    return document


def _created(row: ApiKey, key: str) -> Created:
    document = NewKeyDocument(**dict(KeyDocument.model_validate(row)), key=key)
    return Created(document, f"/v1/api-keys/{row.id}", 201, secrets=frozenset({"key"}))
