"""Deleting things with all that belongs to them. Who calls has seen that nothing needs them.

A job is locked after its sweep, everywhere, so that no two transactions wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.orm import Session

from store.database import database_now
from store.states import JobKind
from store.tables import (
    Artifact,
    Checkpoint,
    Dataset,
    Job,
    JobAttempt,
    JobEvent,
    JobMetric,
    Model,
    ModelLineage,
    OutboxMessage,
    Plan,
    Sweep,
)

_OF_A_JOB = (Artifact, Checkpoint, JobAttempt, JobEvent, JobMetric, OutboxMessage, Plan)


def lock_job(
    session: Session, job_id: str, *, share: bool = False, skip_locked: bool = False
) -> Job | None:
    """Lock a job that is to be deleted, or referred to (`share`), and return it as it now is.

    None when it is gone, or (`skip_locked`) when somebody else has it.
    """
    sweep_id = session.scalar(select(Job.sweep_id).where(Job.id == job_id))
    if sweep_id is not None:
        sweep = select(Sweep.id).where(Sweep.id == sweep_id)
        if session.scalar(sweep.with_for_update(read=share, skip_locked=skip_locked)) is None:
            return None
    job = select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    return session.scalar(job.with_for_update(read=share, skip_locked=skip_locked))


def remove_job(session: Session, job: Job) -> None:
    """Delete a locked job that has ended, and its sweep when it was the last of it."""
    for table in _OF_A_JOB:
        columns: Any = table
        session.execute(delete(table).where(columns.job_id == job.id))
    retries = update(Job).where(Job.retried_from == job.id)
    session.execute(retries.values(retried_from=None, version=Job.version + 1))
    session.execute(delete(Job).where(Job.id == job.id))
    if job.sweep_id is not None:
        is_empty = ~exists().where(Job.sweep_id == Sweep.id)
        session.execute(delete(Sweep).where(Sweep.id == job.sweep_id, is_empty))


def remove_plan(session: Session, plan_id: str, job: Job) -> None:
    """Delete a plan, and its locked job unless another plan shares it."""
    session.execute(delete(Plan).where(Plan.id == plan_id))
    if session.scalar(select(Plan.id).where(Plan.job_id == job.id).limit(1)) is None:
        remove_job(session, job)


def retire_model(session: Session, model: Model) -> None:
    """Leave of a locked model the row that finished jobs name, and nothing else.

    Its plans go, and so does the word of where it came from: its job may be deleted then.
    """
    plans = select(Plan.id, Plan.job_id).where(Plan.model_id == model.id).order_by(Plan.job_id)
    for plan_id, job_id in session.execute(plans).all():
        job = lock_job(session, job_id)
        if job is not None:
            remove_plan(session, plan_id, job)
    session.execute(delete(ModelLineage).where(ModelLineage.model_id == model.id))
    _remove_validations(session, Job.kind == JobKind.VALIDATE_MODEL, Job.model_id == model.id)
    model.weights_sha256 = model.network_sha256 = model.file_id = None
    model.deleted_at = database_now(session)


def retire_dataset(session: Session, dataset: Dataset) -> None:
    """Leave of a locked data set the row that finished jobs name, and nothing else."""
    _remove_validations(session, Job.kind == JobKind.VALIDATE_DATASET, Job.dataset_id == dataset.id)
    dataset.blob_sha256 = dataset.file_id = None
    dataset.deleted_at = database_now(session)


def _remove_validations(session: Session, *conditions: ColumnElement[bool]) -> None:
    jobs: Iterable[Job] = session.scalars(select(Job).where(*conditions)).all()
    for job in jobs:
        remove_job(session, job)
