"""The rows of tenants and keys: made, found by what a client presents, replaced, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import database_now
from store.identifiers import new_id
from store.keys import tokens
from store.keys.scopes import EVERYTHING
from store.tables import ApiKey, Tenant

DEFAULT_OVERLAP_S = 86_400.0  # how long a key that was rotated stays good

Reason = Literal["malformed", "unknown", "revoked", "expired"]


class KeyRefused(Exception):
    """A presented key opens nothing; `key_id` names it where it is known."""

    def __init__(self, reason: Reason, key_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key_id = key_id


class KeyInvalid(Exception):
    """A key that has expired or was revoked has nothing to be rotated for."""


def create_tenant(session: Session, name: str) -> Tenant:
    """Add a tenant."""
    tenant = Tenant(id=new_id("tnt"), name=name, created_at=database_now(session))
    session.add(tenant)
    session.flush()
    return tenant


def tenant_named(session: Session, name: str) -> Tenant:
    """Return the oldest tenant of that name; it is added when there is none."""
    known = session.scalars(select(Tenant).where(Tenant.name == name).order_by(Tenant.id)).first()
    return known or create_tenant(session, name)


def issue(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    secret_key: str,
    scopes: Sequence[str] = (EVERYTHING,),
    lifetime_s: float | None = None,
    created_by: str | None = None,
    rotated_from: str | None = None,
) -> tuple[ApiKey, str]:
    """Add a key; returns its row and its text, which cannot be read again afterwards.

    It ends with the key it was made with at the latest: who has that would else have it for ever.
    """
    key = tokens.new_key()
    now = database_now(session)
    wished = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
    latest = None if created_by is None else session.get_one(ApiKey, created_by).expires_at
    expires_at = _earlier(wished, latest)
    if lifetime_s is None and expires_at is not None:  # so that a rotation gives it an end too
        lifetime_s = (expires_at - now).total_seconds()
    row = ApiKey(
        id=new_id("key"),
        tenant_id=tenant_id,
        name=name,
        digest=tokens.digest(key, secret_key),
        prefix=tokens.shown(key),
        scopes=list(scopes),
        lifetime_s=lifetime_s,
        created_by=created_by,
        rotated_from=rotated_from,
        created_at=now,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return row, key


def create_key(session: Session, *, tenant_id: str, name: str, secret_key: str) -> str:
    """Add a key that may do everything and return it; it cannot be read again afterwards."""
    return issue(session, tenant_id=tenant_id, name=name, secret_key=secret_key)[1]


def authenticate(session: Session, key: str, *, secret_key: str) -> ApiKey:
    """Return the row of a presented key; raises KeyRefused."""
    if not tokens.is_well_formed(key):
        raise KeyRefused("malformed")
    digest = tokens.digest(key, secret_key)
    row = session.scalar(select(ApiKey).where(ApiKey.digest == digest))
    if row is None:
        raise KeyRefused("unknown")
    reason = _closed(row, database_now(session))
    if reason is not None:
        raise KeyRefused(reason, row.id)
    return row


def tenant_of(session: Session, key: str, *, secret_key: str) -> str | None:
    """Return the tenant of a presented key, None when it opens nothing."""
    try:
        return authenticate(session, key, secret_key=secret_key).tenant_id
    except KeyRefused:
        return None


def revoke(session: Session, row: ApiKey) -> None:
    """End a key at once; one that was revoked before stays as it was."""
    row.revoked_at = row.revoked_at or database_now(session)
    session.flush()


def rotate(
    session: Session, row: ApiKey, *, secret_key: str, overlap_s: float, created_by: str | None
) -> tuple[ApiKey, str]:
    """Add a key of the same name, scopes and lifetime; the old one ends after `overlap_s`.

    The new one ends with the key it was made with at the latest, as that was before. Raises
    KeyInvalid for a key that has ended.
    """
    # as it is now, and nobody ends it meanwhile; keys that it makes may refer to it all the while
    session.refresh(row, with_for_update={"key_share": True})
    now = database_now(session)
    if _closed(row, now) is not None:
        raise KeyInvalid(row.id)
    made = issue(
        session,
        tenant_id=row.tenant_id,
        name=row.name,
        secret_key=secret_key,
        scopes=row.scopes,
        lifetime_s=row.lifetime_s,
        created_by=created_by,
        rotated_from=row.id,
    )
    _end(row, now, overlap_s)
    session.flush()
    return made


def _end(row: ApiKey, now: datetime, overlap_s: float) -> None:
    if overlap_s == 0:
        row.revoked_at = now
        return
    row.expires_at = _earlier(row.expires_at, now + timedelta(seconds=overlap_s))


def _earlier(*moments: datetime | None) -> datetime | None:
    """Return the earliest; None is never."""
    return min((moment for moment in moments if moment is not None), default=None)


def _closed(row: ApiKey, now: datetime) -> Reason | None:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else None
