"""API keys as bearer tokens (RFC 6750), and whether a key may do what it is used for."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.audit import trail
from api.dependencies import Services, ServicesDep
from api.known_keys import TRUSTED_S
from api.principal import Principal
from api.problems import HttpError
from api.scopes import required_scope
from store.database import database_now
from store.keys import KeyRefused, allows, authenticate

SCHEME = "ApiKey"
_bearer = HTTPBearer(
    auto_error=False, scheme_name=SCHEME, description="An API key, `Bearer cst_...`."
)
_log = logging.getLogger(__name__)
_REFUSALS = {
    "malformed": "This is no API key: it is mistyped or cut off. Copy it again, all of it.",
    "unknown": "The API key is unknown; ask the operator for another.",
    "revoked": "The API key was revoked; use another.",
    "expired": "The API key has expired; use another.",
}


async def authenticated(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Return whose key came with the request and may do what it asks for.

    Raises a problem: `unauthenticated`, `insufficient_scope` or `rate_limited`.
    """
    if credentials is None:
        services.auth_failures.count("missing")
        await services.rate_limits.count_failure(request)
        raise unauthenticated("Send your API key as `Authorization: Bearer cst_...`.", "")
    key = credentials.credentials
    principal = services.known_keys.principal_of(key)
    if principal is None:
        principal = await _looked_up(request, services, key)
    await services.rate_limits.count(request, principal.key_id)
    _check_scope(principal, request, services)
    trail.note(request, principal)
    return principal


async def _looked_up(request: Request, services: Services, key: str) -> Principal:
    """Look a key up, unless too many others have come from its address that were none."""
    if not services.known_keys.was_good(key):
        await services.rate_limits.check_address(request)
    try:
        return await run_in_threadpool(_look_up, services, key, request)
    except HttpError:
        await services.rate_limits.count_failure(request)
        raise


def _look_up(services: Services, key: str, request: Request) -> Principal:
    generation = services.known_keys.generation
    try:
        with services.database.reading() as session:
            row = authenticate(session, key, secret_key=services.secret_key)
            now = database_now(session)
    except KeyRefused as refused:
        services.auth_failures.count(refused.reason)
        client = request.client.host if request.client else "?"
        _log.warning("refused a key: %s (%s) from %s", refused.reason, refused.key_id, client)
        raise unauthenticated(_REFUSALS[refused.reason], ', error="invalid_token"') from None
    principal = Principal(row.tenant_id, row.id, frozenset(row.scopes))
    left_s = (row.expires_at - now).total_seconds() if row.expires_at else TRUSTED_S
    services.known_keys.trust(key, principal, generation=generation, good_for_s=left_s)
    services.last_used.note(row.id, now)
    return principal


def _check_scope(principal: Principal, request: Request, services: Services) -> None:
    wanted = required_scope(request.scope["route"].tags, request.method)
    if allows(principal.scopes, wanted):
        return
    services.auth_failures.count("insufficient_scope")
    held = ", ".join(sorted(principal.scopes))
    raise HttpError(
        "insufficient_scope",
        f"This needs a key with the scope {wanted}; this one has {held}.",
        headers=challenge(f', error="insufficient_scope", scope="{wanted}"'),
    )


def unauthenticated(detail: str, attributes: str) -> HttpError:
    """Return the 401 problem with its challenge; `attributes` are added to that."""
    return HttpError("unauthenticated", detail, headers=challenge(attributes))


def challenge(attributes: str) -> dict[str, str]:
    """Return the header that says how to authenticate (RFC 6750, 3)."""
    return {"WWW-Authenticate": f'Bearer realm="cstar"{attributes}'}


PrincipalDep = Annotated[Principal, Depends(authenticated)]


async def authenticated_tenant(principal: PrincipalDep) -> str:
    """Return the tenant whose key came with the request."""
    return principal.tenant_id


TenantId = Annotated[str, Depends(authenticated_tenant)]
