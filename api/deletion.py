"""Deleting what a tenant has: refused while something needs it, and then with all that is its own.

A row that is deleted is locked first, and whoever is about to refer to it locks it too
(`tenancy.find`), so that of a deletion and a job that is being created one fails cleanly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy.orm import Session

from api.errors import InUse, InvalidTransition
from api.jobs import service as jobs
from api.jobs.actions import possible
from api.tenancy import find, missing
from store import uses
from store.removal import lock_job, remove_job, remove_plan, retire_dataset, retire_model
from store.states import FINAL, JobState
from store.tables import Dataset, File, Job, Model, Plan
from store.uses import Use


def delete_file(session: Session, file_id: str, *, tenant_id: str) -> None:
    """Delete a file; raises NotFound or InUse. Its bytes go when nothing else refers to them."""
    file = find(session, File, file_id, tenant_id=tenant_id, lock="update")
    _refuse_if(uses.of_file(session, file), file.id, "Delete those first.")
    session.delete(file)


def delete_model(session: Session, model_id: str, *, tenant_id: str) -> None:
    """Delete a model with its plans; raises NotFound or InUse."""
    model = find(session, Model, model_id, tenant_id=tenant_id, lock="update")
    step = "Remove the aliases, and cancel the jobs or wait for their end."
    _refuse_if(uses.of_model(session, model), model.id, step)
    retire_model(session, model)


def delete_dataset(session: Session, dataset_id: str, *, tenant_id: str) -> None:
    """Delete a data set; raises NotFound or InUse."""
    dataset = find(session, Dataset, dataset_id, tenant_id=tenant_id, lock="update")
    step = "Cancel the jobs or wait for their end."
    _refuse_if(uses.of_dataset(session, dataset), dataset.id, step)
    retire_dataset(session, dataset)


def delete_plan(session: Session, plan_id: str, *, tenant_id: str) -> None:
    """Delete a plan; raises NotFound, or InUse while it is being made."""
    plan = find(session, Plan, plan_id, tenant_id=tenant_id)
    job = lock_job(session, plan.job_id)
    if job is None:
        raise missing("plan", plan_id)
    if job.state not in FINAL:
        _refuse_if([Use("job", job.id)], plan.id, "Wait until it is ready or has failed.")
    remove_plan(session, plan.id, job)


def delete_job(session: Session, job_id: str, *, tenant_id: str) -> None:
    """Delete a job that has ended; raises NotFound, InvalidTransition or InUse."""
    asked = jobs.get(session, job_id, tenant_id=tenant_id)
    job = lock_job(session, asked.id)
    if job is None:
        raise missing("job", job_id)
    check_removable(session, job)
    remove_job(session, job)


def check_removable(session: Session, job: Job) -> None:
    """Raise InvalidTransition unless a job has ended, InUse when a model was registered from it."""
    if job.state not in FINAL:
        raise InvalidTransition(
            f"A job that is {job.state} cannot be deleted; cancel it first.",
            members={"state": JobState(job.state), "possible": possible(JobState(job.state))},
        )
    _refuse_if(uses.of_job(session, job), job.id, "Delete the models that were made of it first.")


def _refuse_if(used_by: Sequence[Use], identifier: str, next_step: str) -> None:
    if used_by:
        raise InUse(
            f"{identifier} is used by {uses.words(used_by)}. {next_step}",
            members={"used_by": [asdict(use) for use in used_by]},
        )
