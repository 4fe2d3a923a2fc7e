"""What a client sees of a plan."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from api.jobs.schemas import JobError
from store.contracts import CompressionTarget, PlanOptions
from store.results import PlannedNetwork, PlanResult
from store.states import JobState, PlanStatus
from store.tables import Job, Plan

_STATUS = {
    JobState.SUCCEEDED: PlanStatus.READY,
    JobState.FAILED: PlanStatus.FAILED,
    JobState.CANCELLED: PlanStatus.FAILED,
}


class PlannedFor(BaseModel):
    """The targets that decided the ranks."""

    compression: CompressionTarget


class PlanSummary(BaseModel):
    """A dry run, as lists have it; `error` is that of a job."""

    id: str
    object: Literal["plan"] = "plan"
    status: PlanStatus
    model_id: str
    profile: str
    targets: PlannedFor
    options: PlanOptions
    error: JobError | None
    created_at: datetime
    finished_at: datetime | None


class PlanDocument(PlanSummary):
    """A dry run; once it is ready `plan` is the recommended one of `candidates`.

    Nothing was trained and no candidate was scored on images: a job does that, and may prefer
    another candidate. `cached` says that the answer was there before it was asked for.
    """

    cached: bool = False
    device: str | None = None
    plan: PlannedNetwork | None = None
    candidates: list[PlannedNetwork] = []


def plan_summary(plan: Plan, job: Job) -> PlanSummary:
    """Return a plan as lists have it."""
    return PlanSummary(
        id=plan.id,
        status=_STATUS.get(JobState(job.state), PlanStatus.PLANNING),
        model_id=plan.model_id,
        profile=job.request["profile"],
        targets=PlannedFor.model_validate(job.request["targets"]),
        options=PlanOptions.model_validate(job.request["options"]),
        error=JobError.model_validate(job.error) if job.error else None,
        created_at=plan.created_at,
        finished_at=job.finished_at,
    )


def plan_document(plan: Plan, job: Job) -> PlanDocument:
    """Return the whole document of a plan."""
    summary = dict(plan_summary(plan, job))
    if job.result is None:
        return PlanDocument(**summary)
    found = PlanResult.model_validate(job.result)
    return PlanDocument(
        **summary, device=found.device, plan=found.plan, candidates=found.candidates
    )
