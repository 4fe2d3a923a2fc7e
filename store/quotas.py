"""How much a tenant may have: counted and compared in the transaction that adds to it.

A limit is the operator's (`CSTAR_QUOTA_...`) unless the tenant's row has its own; 0 is no limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from store import uploads
from store.database import database_now
from store.settings import Settings
from store.states import FINAL, JobKind, JobState
from store.tables import (
    ApiKey,
    Artifact,
    Dataset,
    File,
    Job,
    Model,
    Tenant,
    Upload,
    WebhookEndpoint,
)

_GOING_ON = frozenset(JobState) - FINAL  # named one by one, so that an index finds them
_VALIDATIONS = (JobKind.VALIDATE_MODEL, JobKind.VALIDATE_DATASET)


def lock(session: Session, tenant_id: str) -> Tenant:
    """Return the tenant's row; until the transaction ends nobody else adds to what it has.

    NO KEY: rows that refer to the tenant are written meanwhile. SQLite has one writer anyway.
    """
    statement = select(Tenant).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    return session.scalars(statement).one()


def defaults(settings: Settings) -> dict[str, int]:
    """Return the operator's limits by name."""
    return {name: getattr(settings, f"quota_{name}") for name in COUNTED}


def limit_of(tenant: Tenant, name: str, default: int) -> int | None:
    """Return a tenant's limit, None if there is none."""
    return int(tenant.quotas.get(name, default)) or None


def used(session: Session, tenant_id: str, name: str) -> int:
    """Return how much a tenant has of one thing."""
    return COUNTED[name](session, tenant_id)


def set_limits(tenant: Tenant, limits: Mapping[str, int | None]) -> None:
    """Give a tenant limits of its own; None goes back to the operator's."""
    merged = {**tenant.quotas, **limits}
    tenant.quotas = {name: value for name, value in merged.items() if value is not None}


def _jobs(session: Session, tenant_id: str) -> int:
    """Count jobs and dry runs that have not ended; validations belong to models and data sets."""
    statement = select(func.count()).select_from(Job).where(Job.tenant_id == tenant_id)
    going_on = statement.where(Job.state.in_(_GOING_ON), Job.kind.not_in(_VALIDATIONS))
    return session.scalars(going_on).one()


def _bytes(session: Session, tenant_id: str) -> int:
    """Add up files, artifacts and uploads under way; two files of the same bytes count twice."""
    files = select(func.coalesce(func.sum(File.bytes), 0)).where(File.tenant_id == tenant_id)
    artifacts = select(func.coalesce(func.sum(Artifact.bytes), 0)).join(Job)
    announced = select(func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.tenant_id == tenant_id, Upload.status.in_(uploads.LIVE)
    )
    mine = artifacts.where(Job.tenant_id == tenant_id)
    statements: tuple[Select[int], ...] = (files, mine, announced)
    return sum(int(session.scalars(statement).one()) for statement in statements)


def _models(session: Session, tenant_id: str) -> int:
    statement = select(func.count()).select_from(Model).where(Model.tenant_id == tenant_id)
    return session.scalars(statement.where(Model.deleted_at.is_(None))).one()


def _datasets(session: Session, tenant_id: str) -> int:
    statement = select(func.count()).select_from(Dataset).where(Dataset.tenant_id == tenant_id)
    return session.scalars(statement.where(Dataset.deleted_at.is_(None))).one()


def _uploads(session: Session, tenant_id: str) -> int:
    statement = select(func.count()).select_from(Upload).where(Upload.tenant_id == tenant_id)
    return session.scalars(statement.where(Upload.status.in_(uploads.LIVE))).one()


def _webhook_endpoints(session: Session, tenant_id: str) -> int:
    mine = WebhookEndpoint.tenant_id == tenant_id
    return session.scalars(select(func.count()).select_from(WebhookEndpoint).where(mine)).one()


def _keys(session: Session, tenant_id: str) -> int:
    """Count the keys that open something still."""
    endless = ApiKey.expires_at.is_(None)
    good = or_(endless, ApiKey.expires_at > database_now(session))
    statement = select(func.count()).select_from(ApiKey).where(ApiKey.tenant_id == tenant_id)
    return session.scalars(statement.where(ApiKey.revoked_at.is_(None), good)).one()


COUNTED: dict[str, Callable[[Session, str], int]] = {
    "jobs": _jobs,
    "bytes": _bytes,
    "models": _models,
    "datasets": _datasets,
    "uploads": _uploads,
    "webhook_endpoints": _webhook_endpoints,
    "keys": _keys,
}
