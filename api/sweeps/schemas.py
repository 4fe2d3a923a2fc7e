"""What a client sees of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from store.states import FINAL, JobState
from store.tables import Job, Sweep

SweepStatus = Literal["running", "succeeded", "partly_failed", "failed", "cancelled"]


class SweepJob(BaseModel):
    """One job of a sweep and what it tries; the job's own document has the rest."""

    id: str
    state: JobState
    progress: float
    ratio: float | None
    profile: str
    seed: int
    retried_from: str | None
    url: str


class SweepUrls(BaseModel):
    """Where to go on from a sweep."""

    self: str
    jobs: str
    pareto: str
    cancel: str


class SweepDocument(BaseModel):
    """A sweep. Its `status` is told by its jobs, of which one that was retried no longer counts.

    It is `running` until all have ended; then `succeeded` if all did, `partly_failed` if some did
    and some failed, `failed` if none did and some failed, else `cancelled`. `progress` is in 0..1.
    """

    id: str
    object: Literal["sweep"] = "sweep"
    status: SweepStatus
    progress: float
    counts: dict[JobState, int]
    model_id: str
    dataset_id: str
    ratios: list[float]
    profiles: list[str]
    seeds: list[int]
    labels: dict[str, str]
    jobs: list[SweepJob]
    created_at: datetime
    finished_at: datetime | None
    urls: SweepUrls


def sweep_document(sweep: Sweep, jobs: Sequence[Job]) -> SweepDocument:
    """Return the document of a sweep; `jobs` are all of its jobs."""
    retried = {job.retried_from for job in jobs}
    counting = [job for job in jobs if job.id not in retried]
    status = status_of([JobState(job.state) for job in counting])
    ends = [job.finished_at for job in counting if job.finished_at is not None]
    return SweepDocument(
        id=sweep.id,
        status=status,
        progress=sum(map(_progress, counting)) / max(len(counting), 1),
        counts=Counter(JobState(job.state) for job in counting),
        model_id=sweep.model_id,
        dataset_id=sweep.dataset_id,
        jobs=[_job(job) for job in counting],
        created_at=sweep.created_at,
        finished_at=None if status == "running" else max(ends, default=None),
        urls=_urls(sweep.id),
        **{name: sweep.request[name] for name in ("ratios", "profiles", "seeds", "labels")},
    )


def status_of(states: Sequence[JobState]) -> SweepStatus:
    """Return what the states of a sweep's jobs make of it."""
    if not FINAL.issuperset(states):
        return "running"
    if JobState.FAILED in states:
        return "partly_failed" if JobState.SUCCEEDED in states else "failed"
    return "cancelled" if JobState.CANCELLED in states else "succeeded"


def _progress(job: Job) -> float:
    return 1.0 if job.state in FINAL else job.progress


def _job(job: Job) -> SweepJob:
    compression = job.request["targets"]["compression"] or {}
    asked = {"ratio": compression.get("ratio"), "url": f"/v1/jobs/{job.id}"}
    asked |= {name: job.request[name] for name in ("profile", "seed")}
    columns = ("id", "state", "progress", "retried_from")
    return SweepJob.model_validate(asked | {name: getattr(job, name) for name in columns})


def _urls(sweep_id: str) -> SweepUrls:
    path = f"/v1/sweeps/{sweep_id}"
    jobs = f"/v1/jobs?sweep_id={sweep_id}"
    return SweepUrls(self=path, jobs=jobs, pareto=f"{path}/pareto", cancel=f"{path}/cancel")
