"""API keys: `cst_` and 40 hexadecimal digits, of which only an HMAC-SHA256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import database_now
from store.identifiers import new_id
from store.tables import ApiKey, Tenant

PREFIX = "cst_"


def create_tenant(session: Session, name: str) -> Tenant:
    """Add a tenant."""
    tenant = Tenant(id=new_id("tnt"), name=name, created_at=database_now(session))
    session.add(tenant)
    session.flush()
    return tenant


def create_key(session: Session, *, tenant_id: str, name: str, secret_key: str) -> str:
    """Add a key and return it; it cannot be read again afterwards."""
    key = PREFIX + secrets.token_hex(20)
    session.add(
        ApiKey(
            id=new_id("key"),
            tenant_id=tenant_id,
            name=name,
            digest=_digest(key, secret_key),
            created_at=database_now(session),
        )
    )
    session.flush()
    return key


def tenant_of(session: Session, key: str, *, secret_key: str) -> str | None:
    """Return the tenant a presented key belongs to, None when it is unknown or revoked."""
    return session.scalar(
        select(ApiKey.tenant_id).where(
            ApiKey.digest == _digest(key, secret_key), ApiKey.revoked_at.is_(None)
        )
    )


def _digest(key: str, secret_key: str) -> str:
    return hmac.new(secret_key.encode(), key.encode(), hashlib.sha256).hexdigest()
