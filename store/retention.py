"""What may go because it is old: found in batches, removed in a transaction each.

A crash leaves the rest for the next pass. What somebody else has locked is left for it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, exists, select
from sqlalchemy.orm import Session

from store.database import Database, database_now
from store.removal import lock_job, remove_job, remove_plan
from store.states import FINAL, REQUESTED
from store.tables import Dataset, File, Job, Model, ModelLineage, Plan, Sweep

KEEP = "keep"
"""A job with this label, whatever its value, is not removed for its age."""
BATCH = 500


@dataclass(frozen=True)
class Retention:
    """After how many days what is no longer needed goes; None keeps it for ever."""

    jobs_days: float | None = None
    plans_days: float | None = None
    files_days: float | None = None


def remove_expired(database: Database, retention: Retention) -> dict[str, int]:
    """Remove what is too old, and rows of deleted things that nothing names any more.

    Returns how many of each kind went; at most `BATCH` in one pass.
    """
    removed = {
        "jobs": _each(database, retention.jobs_days, _old_jobs, _remove_job),
        "plans": _each(database, retention.plans_days, _old_plans, _remove_plan),
        "files": _each(database, retention.files_days, _old_files, _remove_file),
        "models": _each(database, 0.0, _nameless_models, _purge_model),
        "datasets": _each(database, 0.0, _nameless_datasets, _purge_dataset),
    }
    return {noun: count for noun, count in removed.items() if count}


def _each(
    database: Database,
    days: float | None,
    find: Callable[[Session, float], Sequence[str]],
    remove: Callable[[Session, str, float], bool],
) -> int:
    if days is None:
        return 0
    with database.reading() as session:
        found = find(session, days)
    removed = 0
    for identifier in found:
        with database.writing() as session:
            removed += remove(session, identifier, days)
    return removed


def _old_jobs(session: Session, days: float) -> Sequence[str]:
    old = select(Job.id).where(*_expired(session, days)).order_by(Job.id).limit(BATCH)
    return session.scalars(old).all()


def _remove_job(session: Session, job_id: str, days: float) -> bool:
    job = lock_job(session, job_id, skip_locked=True)
    may_go = select(Job.id).where(Job.id == job_id, *_expired(session, days))
    if job is None or session.scalar(may_go) is None:  # it was registered meanwhile
        return False
    remove_job(session, job)
    return True


def _expired(session: Session, days: float) -> list[ColumnElement[bool]]:
    return [
        Job.kind.in_(REQUESTED),
        Job.state.in_(FINAL),
        Job.finished_at < database_now(session) - timedelta(days=days),
        Job.labels[KEEP].as_string().is_(None),
        ~exists().where(ModelLineage.job_id == Job.id),
    ]


def _old_plans(session: Session, days: float) -> Sequence[str]:
    made = select(Plan.id).join(Job, Job.id == Plan.job_id).where(Job.state.in_(FINAL))
    old = Plan.created_at < database_now(session) - timedelta(days=days)
    return session.scalars(made.where(old).limit(BATCH)).all()


def _remove_plan(session: Session, plan_id: str, _days: float) -> bool:
    plan = session.get(Plan, plan_id)
    job = lock_job(session, plan.job_id, skip_locked=True) if plan is not None else None
    if job is None:
        return False
    remove_plan(session, plan_id, job)
    return True


def _old_files(session: Session, days: float) -> Sequence[str]:
    old = File.created_at < database_now(session) - timedelta(days=days)
    return session.scalars(select(File.id).where(old, *_unused_file()).limit(BATCH)).all()


def _remove_file(session: Session, file_id: str, _days: float) -> bool:
    locked = select(File.id).where(File.id == file_id).with_for_update(skip_locked=True)
    if session.scalar(locked) is None:
        return False
    gone = delete(File).where(File.id == file_id, *_unused_file()).returning(File.id)
    return session.scalar(gone) is not None


def _unused_file() -> list[ColumnElement[bool]]:
    return [~exists().where(subject.file_id == File.id) for subject in (Model, Dataset)]


def _nameless_models(session: Session, _days: float) -> Sequence[str]:
    return session.scalars(select(Model.id).where(*_nameless_model()).limit(BATCH)).all()


def _purge_model(session: Session, model_id: str, _days: float) -> bool:
    gone = delete(Model).where(Model.id == model_id, *_nameless_model()).returning(Model.id)
    return session.scalar(gone) is not None


def _nameless_model() -> list[ColumnElement[bool]]:
    return [
        Model.deleted_at.is_not(None),
        ~exists().where(Job.model_id == Model.id),
        ~exists().where(Sweep.model_id == Model.id),
        ~exists().where(ModelLineage.parent_model_id == Model.id),
    ]


def _nameless_datasets(session: Session, _days: float) -> Sequence[str]:
    return session.scalars(select(Dataset.id).where(*_nameless_dataset()).limit(BATCH)).all()


def _purge_dataset(session: Session, dataset_id: str, _days: float) -> bool:
    gone = delete(Dataset).where(Dataset.id == dataset_id, *_nameless_dataset())
    return session.scalar(gone.returning(Dataset.id)) is not None


def _nameless_dataset() -> list[ColumnElement[bool]]:
    return [
        Dataset.deleted_at.is_not(None),
        ~exists().where(Job.dataset_id == Dataset.id),
        ~exists().where(Sweep.dataset_id == Dataset.id),
    ]
