"""API keys as bearer tokens (RFC 6750)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.dependencies import Services, ServicesDep
from api.problems import HttpError
from store.keys import tenant_of

_bearer = HTTPBearer(
    auto_error=False, scheme_name="ApiKey", description="An API key, `Bearer cst_...`."
)


async def authenticated_tenant(
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """Return the tenant whose key came with the request; raises a 401 problem."""
    if credentials is None:
        raise unauthenticated("Send your API key as `Authorization: Bearer cst_...`.", "")
    key = credentials.credentials
    known = services.known_keys.tenant_of(key)
    if known is not None:
        return known
    return await run_in_threadpool(_look_up, services, key)


def _look_up(services: Services, key: str) -> str:
    with services.database.reading() as session:
        tenant = tenant_of(session, key, secret_key=services.secret_key)
    if tenant is None:
        raise unauthenticated(
            "The API key is unknown or revoked; ask the operator for another.",
            ', error="invalid_token"',
        )
    services.known_keys.trust(key, tenant)
    return tenant


def unauthenticated(detail: str, attributes: str) -> HttpError:
    """Return the 401 problem with its challenge; `attributes` are added to that."""
    challenge = f'Bearer realm="cstar"{attributes}'
    return HttpError("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


TenantId = Annotated[str, Depends(authenticated_tenant)]
