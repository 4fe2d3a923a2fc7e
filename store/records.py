"""What an attempt writes while it works, each write fenced by its lease, and how it finishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from store.blobs import StoredBlob, remember
from store.database import database_now
from store.identifiers import new_id
from store.leases import Lease
from store.lifecycle import LeaseLost, add_event, hold, transition
from store.states import LEASED, JobKind, JobState, Status
from store.tables import Artifact, Checkpoint, Dataset, Job, JobAttempt, JobMetric, Model
from store.webhooks.events import announce_subject


@dataclass(frozen=True)
class MetricPoint:
    """One measured value: `step` counts epochs of `phase`."""

    phase: str
    name: str
    step: int
    value: float


@dataclass(frozen=True)
class ArtifactFile:
    """A file that has already been stored as a blob and becomes an artifact when the job ends."""

    kind: str
    filename: str
    media_type: str
    blob: StoredBlob


def record_progress(
    session: Session, lease: Lease, *, phase: str, progress: float, eta_s: float | None
) -> None:
    """Show where the attempt is (`progress` in 0..1); a new phase leaves an event."""
    job = hold(session, lease.job_id, lease.token, progress=progress, eta_s=eta_s)
    if job.phase != phase:
        job.phase = phase
        add_event(session, job, "phase.started", {"phase": phase})


def record_event(session: Session, lease: Lease, kind: str, data: Mapping[str, Any]) -> None:
    """Append an event of the attempt."""
    add_event(session, hold(session, lease.job_id, lease.token), kind, data)


def record_metrics(session: Session, lease: Lease, points: Sequence[MetricPoint]) -> None:
    """Append measured values."""
    job = hold(session, lease.job_id, lease.token)
    now = database_now(session)
    for point in points:
        job.metric_count += 1
        session.add(
            JobMetric(
                job_id=job.id,
                seq=job.metric_count,
                phase=point.phase,
                name=point.name,
                step=point.step,
                value=point.value,
                created_at=now,
            )
        )


def record_log(session: Session, lease: Lease, text: str) -> None:
    """Replace the tail of the attempt's log."""
    hold(session, lease.job_id, lease.token)
    kept = text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL's text holds no NUL
    session.get_one(JobAttempt, (lease.job_id, lease.attempt)).log = kept


def record_checkpoint(
    session: Session, lease: Lease, *, phase: str, blob: StoredBlob, finished: bool = False
) -> None:
    """Make a stored blob the place where the job resumes; `finished`: after `phase`, not in it.

    A finished phase is told in this transaction, so that it is told once: no attempt repeats it.
    """
    job = hold(session, lease.job_id, lease.token)
    remember(session, blob)
    session.merge(
        Checkpoint(
            job_id=job.id,
            attempt=lease.attempt,
            phase=phase,
            sha256=blob.sha256,
            created_at=database_now(session),
        )
    )
    add_event(session, job, "checkpoint.saved", {"phase": phase, "bytes": blob.bytes})
    if finished:
        add_event(session, job, "phase.finished", {"phase": phase})


def finish(
    session: Session, lease: Lease, *, result: Mapping[str, Any], files: Sequence[ArtifactFile]
) -> Job:
    """End a job with its result and artifacts, in one transaction; raises LeaseLost."""
    working = hold(session, lease.job_id, lease.token)
    if working.phase is not None:
        add_event(session, working, "phase.finished", {"phase": working.phase})
    job = transition(
        session,
        lease.job_id,
        JobState.SUCCEEDED,
        origin=LEASED,
        token=lease.token,
        changes={"result": dict(result), "progress": 1.0},
        event={"artifacts": [file.filename for file in files]},
        outcome=JobState.SUCCEEDED,
    )
    if job is None:
        raise LeaseLost(lease.job_id)
    # in one order for all: two jobs that leave the same files must not wait for each other
    for file in sorted(files, key=lambda file: file.blob.sha256):
        remember(session, file.blob)
    for file in files:
        session.add(_artifact(session, job, file))
    return job


def finish_model_validation(
    session: Session, lease: Lease, *, findings: Mapping[str, Any], weights: StoredBlob | None
) -> None:
    """End a validation and write its findings into the model, in one transaction."""
    job = _finish_validation(session, lease, findings)
    model = session.get_one(Model, job.model_id)
    model.status = Status.REJECTED if findings["reasons"] else Status.READY
    model.reasons = findings["reasons"]
    announce_subject(session, model)
    if weights is not None:
        remember(session, weights)
        model.weights_sha256 = weights.sha256
        for name in ("architecture", "parameters", "macs", "limits"):
            setattr(model, name, findings[name])


def finish_dataset_validation(
    session: Session, lease: Lease, *, findings: Mapping[str, Any], blob: StoredBlob | None
) -> None:
    """End a validation and write its findings into the data set, in one transaction."""
    job = _finish_validation(session, lease, findings)
    dataset = session.get_one(Dataset, job.dataset_id)
    dataset.status = Status.REJECTED if findings["reasons"] else Status.READY
    dataset.reasons = findings["reasons"]
    announce_subject(session, dataset)
    if blob is not None:
        remember(session, blob)
        dataset.blob_sha256 = blob.sha256
        for name in ("num_examples", "shape", "num_classes", "class_names", "content_sha256"):
            setattr(dataset, name, findings[name])


def fail_subject(session: Session, job: Job) -> None:
    """Reject the model or data set of a validation that could not be carried out."""
    subject: Model | Dataset
    if job.error is None:
        return
    if job.kind == JobKind.VALIDATE_MODEL:
        subject = session.get_one(Model, job.model_id)
    elif job.kind == JobKind.VALIDATE_DATASET:
        subject = session.get_one(Dataset, job.dataset_id)
    else:
        return
    subject.status = Status.REJECTED
    subject.reasons = [{"code": job.error["code"], "detail": job.error["message"]}]
    announce_subject(session, subject)


def _finish_validation(session: Session, lease: Lease, findings: Mapping[str, Any]) -> Job:
    return finish(session, lease, result={"reasons": findings["reasons"]}, files=[])


def _artifact(session: Session, job: Job, file: ArtifactFile) -> Artifact:
    return Artifact(
        id=new_id("art"),
        job_id=job.id,
        kind=file.kind,
        filename=file.filename,
        media_type=file.media_type,
        sha256=file.blob.sha256,
        bytes=file.blob.bytes,
        created_at=database_now(session),
    )
