"""Jobs, and all that they leave."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.states import JobKind, JobState
from store.tables.base import Base, one_of


class Sweep(Base):
    """Several compressions of one model, asked for together; each is a job of its own."""

    __tablename__ = "sweeps"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    request: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


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
    retried_from: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id"), index=True)

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
        one_of("state", JobState),
        one_of("kind", JobKind),
        Index("ix_jobs_tenant_id_kind_id", "tenant_id", "kind", "id"),
        Index("ix_jobs_tenant_id_state", "tenant_id", "state"),  # store.quotas
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
