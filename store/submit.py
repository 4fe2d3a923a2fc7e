"""Making a job: its row, its first event and its wake-up call, in the caller's transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from store.contracts import Device
from store.database import database_now
from store.identifiers import new_id
from store.lifecycle import add_event, dispatch
from store.origins import origin
from store.states import JobKind, JobState
from store.tables import Job
from store.webhooks.events import announce_job

logger = logging.getLogger(__name__)

IO_QUEUE = "io"  # short work that trains nothing
DEVICE_QUEUES: dict[Device, str] = {"cpu": "cpu.default", "gpu": "gpu.default"}


def queue_of(device: Device, *, default: str) -> str:
    """Return the queue that workers of a device class serve; `any` goes to the operator's."""
    return DEVICE_QUEUES.get(device, default)


def submit(
    session: Session,
    *,
    tenant_id: str,
    kind: JobKind,
    queue: str,
    request: Mapping[str, Any],
    model_id: str | None = None,
    dataset_id: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    max_runtime_s: int | None = None,
    retried_from: str | None = None,
    sweep_id: str | None = None,
) -> Job:
    """Queue a job; `request` is the document the runner reads."""
    job = Job(
        id=new_id("job"),
        tenant_id=tenant_id,
        kind=kind,
        queue=queue,
        model_id=model_id,
        dataset_id=dataset_id,
        request=dict(request),
        labels=dict(labels or {}),
        priority=priority,
        max_runtime_s=max_runtime_s,
        retried_from=retried_from,
        sweep_id=sweep_id,
        state=JobState.QUEUED,
        progress=0.0,
        attempt=0,
        lost_attempts=0,
        running_s=0.0,
        event_count=0,
        metric_count=0,
        version=1,
        created_at=database_now(session),
    )
    session.add(job)
    session.flush()
    add_event(session, job, f"job.{JobState.QUEUED}", origin())
    announce_job(session, job)
    dispatch(session, job)
    logger.info("queued a job: %s", kind, extra={"job_id": job.id})
    return job
