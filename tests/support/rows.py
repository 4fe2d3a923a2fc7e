"""Rows to begin a test with, and short ways to read what it left."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import leases, records, uploads
from store.blobs import StoredBlob, remember
from store.database import Database, database_now
from store.identifiers import new_id
from store.keys import create_tenant
from store.leases import Lease
from store.lifecycle import transition
from store.states import ErrorCode, JobKind, JobState, Status
from store.tables import Base, Checkpoint, Dataset, File, Job, JobAttempt, JobEvent, Model, Plan
from store.versions import next_version

LEASE_S = 60.0
WORKER = "worker-1"
PLAN_RESULT: dict[str, Any] = {
    "device": "a processor, 1 threads",
    "recommended": "energy-relative",
    "candidates": [
        {
            "name": name,
            "strategy": name.partition("-")[0],
            "ratio": 4.0,
            "parameters": 250,
            "macs": 20_000,
            "bytes": 1080,
            "latency_ms": 0.5,
            "dense_parameters": 1000,
            "dense_macs": 50_000,
            "dense_bytes": 4080,
            "dense_latency_ns": 750_000,
            "scope": "conv",
            "layers": [
                {
                    "name": "conv1",
                    "kind": "conv",
                    "method": "tucker2",
                    "ranks": [4, 3],
                    "energy_kept": 0.75,
                    "parameters": 250,
                    "macs": 20_000,
                    "bytes": 1000,
                    "latency_ns": 400_000,
                    "dense_parameters": 1000,
                    "dense_macs": 50_000,
                    "dense_bytes": 4000,
                    "dense_latency_ns": 650_000,
                    "reason": "",
                    "shape": [10, 10, 1, 10],
                }
            ],
        }
        for name in ("uniform", "energy-relative")
    ],
}

_ACCURACY = {"value": 0.5, "n": 64, "interval": [0.38, 0.62], "label": "screening"}
EVALUATION_RESULT: dict[str, Any] = {
    "targets": [
        {
            "metric": "robust_accuracy",
            "requested": 0.3,
            "achieved": 0.5,
            "interval": [0.38, 0.62],
            "outcome": "met",
            "examples_needed": None,
            "note": "",
        }
    ],
    "verdict": {
        "targets": "met",
        "reliability": "reliable",
        "label": "screening",
        "headline": "All targets are met.",
    },
    "before": None,
    "after": {
        "clean_accuracy": _ACCURACY,
        "robust_accuracy": {"pgd-20": _ACCURACY, "autoattack": _ACCURACY},
        "parameters": 1000,
        "macs": 50_000,
        "bytes": 4080,
        "latency_ms": {"batch 1": {"median_ms": 0.5}},
    },
}


def measured(**figures: Any) -> dict[str, Any]:
    """Return what a result says of one network: `clean` and `robust` are accuracies, ..."""
    return {
        "clean_accuracy": _figure(figures.get("clean", 0.5), 1000),
        "robust_accuracy": {
            "pgd-20": _figure(figures.get("robust", 0.5), 1000),
            "autoattack": _figure(figures.get("robust", 0.5), 64),
        },
        "parameters": figures.get("parameters", 250),
        "macs": figures.get("macs", 20_000),
        "bytes": figures.get("bytes", 1080),
        "latency_ms": {"batch 1": {"median_ms": figures.get("latency_ms", 0.25)}},
    }


def _figure(value: float, n: int) -> dict[str, Any]:
    interval = [round(max(value - 0.1, 0.0), 6), round(min(value + 0.1, 1.0), 6)]
    return {"value": value, "n": n, "interval": interval, "label": "result"}


DENSE: dict[str, Any] = measured(
    clean=0.9, robust=0.4, parameters=1000, macs=50_000, bytes=4080, latency_ms=0.5
)


def compression_result(**figures: Any) -> dict[str, Any]:
    """Return the result of a compression that has succeeded."""
    return {
        "targets": [],
        "verdict": EVALUATION_RESULT["verdict"],
        "before": DENSE,
        "after": measured(**figures),
        "ratio": DENSE["parameters"] / figures.get("parameters", 250),
    }


def blob_of(content: bytes) -> StoredBlob:
    """Describe bytes as a blob that is in the store (the tables never look at the bytes)."""
    return StoredBlob(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def add_tenant(database: Database) -> str:
    with database.writing() as session:
        return create_tenant(session, "a tenant").id


def add_job(database: Database, *, tenant_id: str | None = None, **columns: Any) -> str:
    """Add a queued job with no event and no outbox row; `columns` departs from that."""
    owner = tenant_id or add_tenant(database)
    with database.writing() as session:
        job = job_row(session, tenant_id=owner, **columns)
        session.add(job)
    return job.id


def job_row(session: Session, **columns: Any) -> Job:
    """Return a queued job that is not yet added."""
    values: dict[str, Any] = {
        "id": new_id("job"),
        "kind": JobKind.COMPRESS,
        "queue": "gpu.default",
        "request": {},
        "labels": {},
        "priority": 0,
        "state": JobState.QUEUED,
        "progress": 0.0,
        "attempt": 0,
        "lost_attempts": 0,
        "running_s": 0.0,
        "event_count": 0,
        "metric_count": 0,
        "version": 1,
        "created_at": database_now(session),
    }
    return Job(**(values | columns))


def add_file(session: Session, tenant_id: str, content: bytes) -> str:
    """Add a file with its blob."""
    blob = blob_of(content)
    remember(session, blob)
    file = File(
        id=new_id("file"),
        tenant_id=tenant_id,
        filename="weights.pt",
        purpose="checkpoint",
        sha256=blob.sha256,
        bytes=blob.bytes,
        created_at=database_now(session),
    )
    session.add(file)
    session.flush()
    return file.id


def add_validation(database: Database, kind: JobKind) -> str:
    """Add a model or data set being validated; returns the id of the job that does it."""
    tenant_id = add_tenant(database)
    subject = add_model if kind is JobKind.VALIDATE_MODEL else add_dataset
    with database.writing() as session:
        subject_id = subject(session, tenant_id)
    column = "model_id" if kind is JobKind.VALIDATE_MODEL else "dataset_id"
    return add_job(database, tenant_id=tenant_id, kind=kind, queue="io", **{column: subject_id})


def add_model(session: Session, tenant_id: str) -> str:
    model = Model(
        id=new_id("mdl"),
        tenant_id=tenant_id,
        name="resnet20",
        version=next_version(session, tenant_id=tenant_id, name="resnet20"),
        file_id=add_file(session, tenant_id, b"a checkpoint"),
        requested={"architecture": "auto"},
        status=Status.VALIDATING,
        reasons=[],
        input={"shape": [3, 32, 32]},
        num_classes=10,
        created_at=database_now(session),
    )
    session.add(model)
    session.flush()
    return model.id


def add_dataset(session: Session, tenant_id: str) -> str:
    dataset = Dataset(
        id=new_id("dts"),
        tenant_id=tenant_id,
        name="digits",
        file_id=add_file(session, tenant_id, b"images"),
        requested={"format": "npz"},
        status=Status.VALIDATING,
        reasons=[],
        created_at=database_now(session),
    )
    session.add(dataset)
    session.flush()
    return dataset.id


def add_plan(database: Database, *, key: str = "ab" * 32) -> str:
    """Add a plan of a model and the job that makes it; returns the id of the job."""
    tenant_id = add_tenant(database)
    with database.writing() as session:
        model_id = add_model(session, tenant_id)
    kind = {"kind": JobKind.PLAN, "queue": "io", "model_id": model_id}
    job_id = add_job(database, tenant_id=tenant_id, **kind)
    with database.writing() as session:
        values = {"tenant_id": tenant_id, "model_id": model_id, "job_id": job_id, "key": key}
        session.add(Plan(id=new_id("plan"), created_at=database_now(session), **values))
    return job_id


def add_upload(session: Session, tenant_id: str, *, expiry_s: float = 3600.0) -> str:
    """Open an upload of two parts, the first of which has arrived."""
    named = {"filename": "weights.pt", "purpose": "checkpoint", "sha256": "ab" * 32}
    sizes = {"bytes": (1 << 16) + 1, "part_bytes": 1 << 16, "expiry_s": expiry_s}
    upload = uploads.create(session, tenant_id=tenant_id, **named, **sizes)
    uploads.arrive(session, upload.id, 1, sha256="cd" * 32, e_tag=None, expiry_s=expiry_s)
    return upload.id


def claim(database: Database, job_id: str, *, worker_id: str = WORKER) -> Lease:
    """Claim a job that is there to be claimed."""
    with database.writing() as session:
        lease = leases.claim(session, job_id, worker_id=worker_id, lease_s=LEASE_S)
    assert lease is not None
    return lease


def running_job(database: Database) -> Lease:
    """Add a job and claim it."""
    return claim(database, add_job(database))


def move(
    database: Database,
    job_id: str,
    target: JobState,
    *,
    origin: Collection[JobState] | None = None,
) -> Job | None:
    """Ask for a transition, as a request of a client does."""
    with database.writing() as session:
        return transition(session, job_id, target, origin=origin)


def expire(database: Database, job_id: str) -> None:
    """Let the lease of a job have run out a second ago."""
    with database.writing() as session:
        past = database_now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=past))


def reap(database: Database, *, max_attempts: int = 3) -> list[str]:
    with database.writing() as session:
        return leases.reap(session, max_attempts=max_attempts)


@dataclass(frozen=True)
class Reached:
    """A job that was brought to a state, with the lease of its attempt if it had one."""

    job_id: str
    lease: Lease | None


def job_in(database: Database, state: JobState) -> Reached:
    """Bring a job to `state` the way the service does."""
    job_id = add_job(database)
    if state in (JobState.QUEUED, JobState.CANCELLED):
        if state is JobState.CANCELLED:
            assert move(database, job_id, state)
        return Reached(job_id, None)
    lease = claim(database, job_id)
    _onward(database, lease, state)
    return Reached(job_id, lease)


def _onward(database: Database, lease: Lease, state: JobState) -> None:
    if state in (JobState.PAUSING, JobState.CANCELLING):
        assert move(database, lease.job_id, state)
    if state is JobState.PAUSED:
        assert move(database, lease.job_id, JobState.PAUSING)
    with database.writing() as session:
        if state is JobState.PAUSED:
            assert leases.settle(session, lease)
        if state is JobState.SUCCEEDED:
            records.finish(session, lease, result={}, files=[])
        if state is JobState.FAILED:
            code = ErrorCode.DIVERGED
            assert leases.fail(session, lease, code=code, message="no", retryable=False)


def read_job(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def read_attempt(database: Database, job_id: str, number: int) -> JobAttempt:
    with database.reading() as session:
        return session.get_one(JobAttempt, (job_id, number))


def read_checkpoint(database: Database, job_id: str) -> Checkpoint | None:
    with database.reading() as session:
        return session.get(Checkpoint, job_id)


def events(database: Database, job_id: str) -> list[JobEvent]:
    """Return the events of a job in their order."""
    with database.reading() as session:
        query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
        return list(session.scalars(query))


def event_types(database: Database, job_id: str) -> list[str]:
    return [event.type for event in events(database, job_id)]


def now(database: Database) -> datetime:
    """Return what the database's own clock says."""
    with database.reading() as session:
        return database_now(session)


def count(database: Database, table: type[Base]) -> int:
    """Return how many rows a table has."""
    with database.reading() as session:
        return session.scalars(select(func.count()).select_from(table)).one()
