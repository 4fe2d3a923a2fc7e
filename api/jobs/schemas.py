"""What a client sees of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from store.contracts import Device, Evaluation, Options, RequestedKind, Targets
from store.states import JobState
from store.tables import Job


class JobError(BaseModel):
    """Why a job failed; `code` is one of those of docs/errors.md."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    retryable: bool
    phase: str | None
    attempt: int


class JobUrls(BaseModel):
    """Where to go on from a job."""

    self: str
    events: str
    metrics: str
    logs: str
    artifacts: str
    cancel: str


class JobDocument(BaseModel):
    """A job. `state` and `status` are the same; `progress` is in 0..1.

    `eta_s` is in how many seconds it will have ended: for a queued job a guess from those that
    have succeeded, null without any. `queue_position` counts the queued jobs that come first; it
    is null when the job is not queued. `notice` says what a queued job waits for beside its turn.
    `method`, `profile` and `options` are those of a compression and null for an evaluation,
    `baseline_model_id` is what an evaluation compares with, if anything.
    """

    id: str
    object: Literal["job"] = "job"
    kind: RequestedKind
    state: JobState
    status: JobState
    phase: str | None
    progress: float
    eta_s: float | None
    queue_position: int | None
    notice: str | None
    attempt: int
    model_id: str
    dataset_id: str
    baseline_model_id: str | None
    method: str | None
    profile: str | None
    seed: int
    targets: Targets
    evaluation: Evaluation
    options: Options | None
    labels: dict[str, str]
    priority: int
    device: Device
    max_runtime_s: int | None
    retried_from: str | None
    sweep_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: JobError | None
    result: dict[str, Any] | None
    urls: JobUrls


_REQUESTED = (
    "baseline_model_id",
    "method",
    "profile",
    "seed",
    "targets",
    "evaluation",
    "options",
)
_COLUMNS = (
    "id",
    "kind",
    "state",
    "phase",
    "progress",
    "attempt",
    "model_id",
    "dataset_id",
    "labels",
    "priority",
    "max_runtime_s",
    "retried_from",
    "sweep_id",
    "created_at",
    "started_at",
    "finished_at",
    "error",
    "result",
)


def job_document(
    job: Job, *, queue_position: int | None, eta_s: float | None, without_worker: bool
) -> JobDocument:
    """Return the document of a job; `without_worker`: none ever served its queue."""
    return JobDocument.model_validate(
        {name: getattr(job, name) for name in _COLUMNS}
        | {name: job.request.get(name) for name in _REQUESTED}
        | {"device": job.request.get("device", "any")}  # older jobs were not asked
        | {"status": job.state, "queue_position": queue_position, "eta_s": eta_s}
        | {"notice": _notice(job, without_worker), "urls": _urls(job.id)}
    )


def _notice(job: Job, without_worker: bool) -> str | None:
    if job.state != JobState.QUEUED:
        return None
    if job.available_at is not None:
        return f"Storage failed; the job is tried again at {job.available_at:%Y-%m-%dT%H:%M:%SZ}."
    if without_worker:
        return f"No worker of queue {job.queue} has been heard of; the job waits for one."
    return None


def _urls(job_id: str) -> dict[str, str]:
    path = f"/v1/jobs/{job_id}"
    below = {name: f"{path}/{name}" for name in JobUrls.model_fields if name != "self"}
    return {"self": path} | below
