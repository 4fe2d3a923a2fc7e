"""The tables, one class each. Portable between SQLite and PostgreSQL; migrations/ builds them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.states import Damage, JobKind, JobState, Status

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps it naive, PostgreSQL with its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Store as UTC; a naive time is a mistake of the program."""
        if value is not None and value.tzinfo is None:
            raise ValueError("times must carry their zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return an aware UTC time on both databases."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Declarative base: naming conventions make constraints nameable in migrations."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        datetime: UtcDateTime,
        str: String(255),
    }


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Tenant(Base):
    """Whoever owns files, models, data sets and jobs."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key of a tenant; only its HMAC is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Blob(Base):
    """Bytes in the blob store, named by their SHA-256 (hex).

    A row that is not condemned has its bytes; one that is may be removed at any moment, and
    nothing refers to it. `damage` is what a scrub found (its last look was at `verified_at`).
    """

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    condemned_at: Mapped[datetime | None] = mapped_column(index=True)
    verified_at: Mapped[datetime | None] = mapped_column(index=True)
    damage: Mapped[str | None]
    __table_args__ = (_one_of("damage", Damage),)


class File(Base):
    """An uploaded file."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    __table_args__ = (CheckConstraint("purpose IN ('checkpoint', 'dataset')", name="purpose"),)


class Model(Base):
    """An uploaded checkpoint with its architecture; `weights_sha256` is the safetensors copy."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    file_id: Mapped[str] = mapped_column(ForeignKey("files.id"))
    requested: Mapped[dict[str, Any]]
    status: Mapped[str]
    reasons: Mapped[list[Any]]
    architecture: Mapped[dict[str, Any] | None]
    input: Mapped[dict[str, Any]]
    num_classes: Mapped[int]
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    limits: Mapped[dict[str, Any] | None]
    weights_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    created_at: Mapped[datetime]
    __table_args__ = (_one_of("status", Status),)


class Dataset(Base):
    """An uploaded data set; `content_sha256` names the split, `blob_sha256` the canonical copy."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    file_id: Mapped[str] = mapped_column(ForeignKey("files.id"))
    requested: Mapped[dict[str, Any]]
    status: Mapped[str]
    reasons: Mapped[list[Any]]
    num_examples: Mapped[dict[str, Any] | None]
    shape: Mapped[list[Any] | None]
    num_classes: Mapped[int | None]
    class_names: Mapped[list[Any] | None]
    content_sha256: Mapped[str | None] = mapped_column(String(64))
    blob_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    created_at: Mapped[datetime]
    __table_args__ = (_one_of("status", Status),)


class Job(Base):
    """A unit of leased work. `lease_token` fences every write of the attempt that holds it."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str]
    queue: Mapped[str]
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    request: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    priority: Mapped[int]
    max_runtime_s: Mapped[int | None]
    retried_from: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))

    state: Mapped[str]
    phase: Mapped[str | None]
    progress: Mapped[float]
    eta_s: Mapped[float | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    attempt: Mapped[int]
    lost_attempts: Mapped[int]
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    worker_id: Mapped[str | None]
    dispatched_at: Mapped[datetime | None]
    available_at: Mapped[datetime | None]  # while queued: not to be claimed before
    running_s: Mapped[float]
    event_count: Mapped[int]
    metric_count: Mapped[int]
    version: Mapped[int]

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        _one_of("state", JobState),
        _one_of("kind", JobKind),
        Index("ix_jobs_tenant_id_kind_id", "tenant_id", "kind", "id"),
        Index("ix_jobs_state_lease_expires_at", "state", "lease_expires_at"),
        Index("ix_jobs_state_queue_finished_at", "state", "queue", "finished_at"),
        Index("ix_jobs_queue_kind_state", "queue", "kind", "state"),  # store.measures
        Index("ix_jobs_finished_at", "finished_at"),
    )


class Plan(Base):
    """A request for a dry run. The job has its state and result; plans of one `key` share it.

    `key` is the SHA-256 of everything the result depends on. A plan goes with its model or job.
    """

    __tablename__ = "plans"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    key: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    __table_args__ = (Index("ix_plans_tenant_id_key", "tenant_id", "key"),)


class JobAttempt(Base):
    """One claim of a job by one worker, with the tail of the runner's log (at most 64 KiB)."""

    __tablename__ = "job_attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(index=True)
    log: Mapped[str | None] = mapped_column(Text)


class JobEvent(Base):
    """What happened to a job, numbered from 1 without a gap."""

    __tablename__ = "job_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class JobMetric(Base):
    """A measured value; `step` counts epochs within its phase."""

    __tablename__ = "job_metrics"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    phase: Mapped[str]
    name: Mapped[str]
    step: Mapped[int]
    value: Mapped[float]
    created_at: Mapped[datetime]


class Checkpoint(Base):
    """Where a job resumes; only the newest of a job is kept."""

    __tablename__ = "checkpoints"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int]
    phase: Mapped[str]
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    created_at: Mapped[datetime]


class Artifact(Base):
    """A file a succeeded job leaves; rows appear in the finishing transaction only."""

    __tablename__ = "artifacts"
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[str]
    filename: Mapped[str]
    media_type: Mapped[str]
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("job_id", "filename"),)


class OutboxMessage(Base):
    """A wake-up call to be published, at once or from `due_at` on."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    queue: Mapped[str]
    priority: Mapped[int]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]


class QueueTurn(Base):
    """When a tenant was last served by a queue: the higher the number, the later."""

    __tablename__ = "queue_turns"
    queue: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)


class Worker(Base):
    """A worker process that has been heard of."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    hostname: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[Any]]
    facts: Mapped[dict[str, Any]]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
