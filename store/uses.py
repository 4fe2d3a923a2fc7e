"""What needs a thing that is to be deleted. Nothing that is needed may go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from store.states import FINAL, JobKind
from store.tables import Dataset, File, Job, Model, ModelAlias, ModelLineage

LISTED = 20  # of each kind: more help nobody


@dataclass(frozen=True)
class Use:
    """One thing that needs another, by the name that its document has for it and its id."""

    object: str
    id: str


def of_file(session: Session, file: File) -> list[Use]:
    """Return the models and data sets that are made of a file."""
    models = _ids(session, "model", select(Model.id).where(Model.file_id == file.id))
    return models + _ids(session, "dataset", select(Dataset.id).where(Dataset.file_id == file.id))


def of_model(session: Session, model: Model) -> list[Use]:
    """Return the aliases of a model, and the jobs on it that have not ended."""
    aliases = select(ModelAlias.alias).where(ModelAlias.model_id == model.id)
    named = (f"{model.name}@{alias}" for alias in session.scalars(aliases.limit(LISTED)))
    baseline = Job.request["baseline_model_id"].as_string() == model.id
    compared = (Job.kind == JobKind.EVALUATE) & baseline
    jobs = _unfinished(model.tenant_id).where(or_(Job.model_id == model.id, compared))
    return [Use("model_alias", name) for name in named] + _ids(session, "job", jobs)


def of_dataset(session: Session, dataset: Dataset) -> list[Use]:
    """Return the jobs on a data set that have not ended."""
    jobs = _unfinished(dataset.tenant_id).where(Job.dataset_id == dataset.id)
    return _ids(session, "job", jobs)


def of_job(session: Session, job: Job) -> list[Use]:
    """Return the models that were registered from a job."""
    made = select(ModelLineage.model_id).where(ModelLineage.job_id == job.id)
    return _ids(session, "model", made)


def words(uses: Iterable[Use]) -> str:
    """Return uses as a text for people."""
    return ", ".join(f"{use.object.replace('_', ' ')} {use.id}" for use in uses)


def _unfinished(tenant_id: str) -> Select[str]:
    return select(Job.id).where(Job.tenant_id == tenant_id, Job.state.not_in(FINAL))


def _ids(session: Session, noun: str, statement: Select[Any]) -> list[Use]:
    found: Iterator[str] = iter(session.scalars(statement.limit(LISTED)))
    return [Use(noun, identifier) for identifier in found]
