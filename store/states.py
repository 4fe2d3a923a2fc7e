"""The states of a job and the transitions between them that are allowed."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; the last three are final and never left (a retry is a new job)."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LEASED = frozenset({JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING})

ALLOWED: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSING,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
        }
    ),
    JobState.PAUSING: frozenset(
        {JobState.PAUSED, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def sources(target: JobState) -> frozenset[JobState]:
    """Return the states from which `target` may be entered."""
    return frozenset(state for state, targets in ALLOWED.items() if target in targets)


class JobKind(StrEnum):
    """What a job does; short work runs through the same leases and runners as the rest."""

    COMPRESS = "compress"
    EVALUATE = "evaluate"
    PLAN = "plan"
    VALIDATE_MODEL = "validate_model"
    VALIDATE_DATASET = "validate_dataset"


REQUESTED = frozenset({JobKind.COMPRESS, JobKind.EVALUATE})
"""What a client asks for as a job; the other kinds are part of models, data sets and plans."""


class Status(StrEnum):
    """Where an uploaded model or data set is."""

    VALIDATING = "validating"
    READY = "ready"
    REJECTED = "rejected"


class PlanStatus(StrEnum):
    """Where a dry run is; told from the state of the job that makes it."""

    PLANNING = "planning"
    READY = "ready"
    FAILED = "failed"


class UploadStatus(StrEnum):
    """Where an upload in parts is; the last three are final."""

    OPEN = "open"
    COMPLETING = "completing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Damage(StrEnum):
    """What a scrub found of bytes that are no longer what was stored."""

    MISSING = "missing"
    DAMAGED = "damaged"


class WebhookEvent(StrEnum):
    """What an endpoint can be told of; a job here is one that a client asked for."""

    JOB_QUEUED = "job.queued"
    JOB_RUNNING = "job.running"
    JOB_PAUSED = "job.paused"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    MODEL_READY = "model.ready"
    MODEL_REJECTED = "model.rejected"
    DATASET_READY = "dataset.ready"
    DATASET_REJECTED = "dataset.rejected"


class DeliveryStatus(StrEnum):
    """Where a webhook delivery is; one that waits for its next attempt is pending."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DisabledReason(StrEnum):
    """Why the service itself has disabled a webhook endpoint."""

    GONE = "gone"
    FAILING = "failing"


class ErrorCode(StrEnum):
    """The codes of a failed job's `error`; docs/errors.md says what each asks of the client."""

    INVALID_MODEL = "invalid_model"
    INVALID_DATASET = "invalid_dataset"
    UNSUPPORTED_LAYER = "unsupported_layer"
    TARGET_INFEASIBLE = "target_infeasible"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    WORKER_LOST = "worker_lost"
    STORAGE_ERROR = "storage_error"
    INTERNAL = "internal"
