"""The one Celery task: the message carries a job id, the database says whether to work on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import lru_cache

from store import leases
from store.blobs import BlobStore
from store.context import working_for
from store.database import Database
from store.origins import origins
from store.settings import settings
from store.tracing import HEADER, flush, span
from worker.app import TASK_NAME, app, draining
from worker.attempt import Attempt
from worker.identity import WORKER_ID
from worker.supervisor import run_attempt

logger = logging.getLogger(__name__)


@lru_cache
def _database() -> Database:
    return Database(settings().resolved_database_url)


@lru_cache
def _blobs() -> BlobStore:
    return BlobStore(settings().resolved_blob_url)


@app.task(name=TASK_NAME)
def run_job(job_id: str) -> None:
    """Work on the first job in line of the queue that `job_id` was sent to, if any waits."""
    if draining():
        return  # redispatch wakes another worker
    claimed = _claim(job_id)
    if claimed is None:
        logger.info("%s: nothing waits in its queue", job_id)
    else:
        _work(*claimed)


def _claim(job_id: str) -> tuple[Attempt, Mapping[str, str]] | None:
    """Claim a job and return the attempt with its origin, in one transaction: all or nothing."""
    with _database().writing() as session:
        now = time.monotonic()
        lease = leases.claim_next(session, job_id, worker_id=WORKER_ID, lease_s=settings().lease_s)
        if lease is None:
            return None
        origin = origins(session, [lease.job_id]).get(lease.job_id, {})
    return Attempt(_database(), _blobs(), lease, settings(), claimed_at=now), origin


def _work(attempt: Attempt, origin: Mapping[str, str]) -> None:
    """Make the attempt, under the ids and in the trace of its job."""
    lease = attempt.lease
    named: dict[str, str | int] = {
        "job_id": lease.job_id,
        "attempt": lease.attempt,
        "worker_id": WORKER_ID,
    }
    with (
        working_for(request_id=origin.get("request_id"), **named),
        span("attempt", role="consumer", parent=origin.get(HEADER), **named),
    ):
        logger.info("attempt begins")
        run_attempt(attempt, draining=draining)
        logger.info("attempt is over")
    flush()
