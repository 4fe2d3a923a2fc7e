"""How an attempt ended, and the one transaction that says so."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from store import leases, records
from store.blobs import BlobStore
from store.leases import Lease
from store.results import EvaluationResult, PlanResult
from store.states import ErrorCode, JobKind
from store.tables import Job
from worker.attempt import Attempt
from worker.heart import Heart
from worker.protocol import OUTPUT_FOLDER, Failure, OutputFile, Result
from worker.workspace import LOG_FILE, keep, tail

LOG_LINES_IN_MESSAGE = 3


@dataclass(frozen=True)
class Outcome:
    """`done` and `failed` are final; `lost` may be tried again; `released` counts for nothing."""

    how: Literal["done", "failed", "lost", "released"]
    code: ErrorCode = ErrorCode.INTERNAL
    message: str = ""
    retryable: bool = False
    best: Mapping[str, float] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[OutputFile, ...] = ()
    full: bool = False  # a disk had no room: no fault of the attempt

    @classmethod
    def of(cls, message: Result | Failure) -> Outcome:
        """Return the outcome a runner announces."""
        if isinstance(message, Result):
            return cls("done", result=message.result, files=tuple(message.files))
        known = message.code in set(ErrorCode)
        code = ErrorCode(message.code) if known else ErrorCode.INTERNAL
        if code is ErrorCode.STORAGE_ERROR and message.retryable:  # no room, which may pass
            return cls.no_room(message.message)
        return cls("failed", code, message.message, message.retryable, message.best)

    @classmethod
    def failed(cls, code: ErrorCode, message: str) -> Outcome:
        """Return the outcome of a job that must not go on."""
        return cls("failed", code, message)

    @classmethod
    def lost(cls, code: ErrorCode, message: str) -> Outcome:
        """Return the outcome of an attempt that may be tried again."""
        return cls("lost", code, message)

    @classmethod
    def no_room(cls, message: str) -> Outcome:
        """Return the outcome of an attempt for which a disk had no room."""
        return cls("lost", ErrorCode.STORAGE_ERROR, message, full=True)

    @classmethod
    def released(cls) -> Outcome:
        """Return the outcome of an attempt that was asked to stop."""
        return cls("released")

    @classmethod
    def died(cls, status: int) -> Outcome:
        """Return the outcome of a runner that hung up without a word."""
        number = -status if status < 0 else status - 128  # bubblewrap passes signals on as 128 + n
        if number in set(signal.Signals):
            return cls.lost(ErrorCode.WORKER_LOST, f"runner ended by {signal.Signals(number).name}")
        return cls.lost(ErrorCode.WORKER_LOST, f"runner ended with status {status}")


def conclude(attempt: Attempt, heart: Heart, outcome: Outcome, *, folder: Path | None) -> None:
    """Write the end of an attempt; raises LeaseLost when somebody else has the job.

    `folder` is None when there never was one: then there is neither output nor a log.
    """
    files = [] if folder is None else _store(attempt.blobs, outcome, folder / OUTPUT_FOLDER)
    log = "" if folder is None else tail(folder / LOG_FILE)
    heart.persist(lambda: _write(attempt, outcome, files, log))


def _write(attempt: Attempt, outcome: Outcome, files: list[records.ArtifactFile], log: str) -> None:
    lease = attempt.lease
    with attempt.database.writing() as session:
        records.record_log(session, lease, log)
        if outcome.how == "done":
            _finish(session, lease, outcome, files)
        elif outcome.how == "released":
            leases.give_back(session, lease)
        else:
            _fail_or_lose(session, attempt, outcome, log)


def _store(blobs: BlobStore, outcome: Outcome, output: Path) -> list[records.ArtifactFile]:
    return [
        records.ArtifactFile(
            kind=file.kind,
            filename=file.filename,
            media_type=file.media_type,
            blob=keep(blobs, output / file.filename),
        )
        for file in outcome.files
    ]


def _finish(
    session: Session, lease: Lease, outcome: Outcome, files: list[records.ArtifactFile]
) -> None:
    kind = session.get_one(Job, lease.job_id).kind
    blob = files[0].blob if files else None
    if kind == JobKind.VALIDATE_MODEL:
        records.finish_model_validation(session, lease, findings=outcome.result, weights=blob)
    elif kind == JobKind.VALIDATE_DATASET:
        records.finish_dataset_validation(session, lease, findings=outcome.result, blob=blob)
    elif kind == JobKind.PLAN:
        found = PlanResult.model_validate(outcome.result)
        records.finish(session, lease, result=found.model_dump(mode="json"), files=[])
    elif kind == JobKind.EVALUATE:
        judged = EvaluationResult.model_validate(outcome.result)
        records.finish(session, lease, result=judged.model_dump(mode="json"), files=files)
    else:
        records.finish(session, lease, result=outcome.result, files=files)


def _fail_or_lose(session: Session, attempt: Attempt, outcome: Outcome, log: str) -> None:
    lease = attempt.lease
    last_words = "\n".join(log.strip().splitlines()[-LOG_LINES_IN_MESSAGE:])
    if outcome.how == "failed":
        job = leases.fail(
            session,
            lease,
            code=outcome.code,
            message=outcome.message,
            retryable=outcome.retryable,
            details={"best": dict(outcome.best)} if outcome.best else None,
        )
    else:
        job = leases.lose(
            session,
            lease,
            code=outcome.code,
            message=f"{outcome.message}; its last words: {last_words or 'none'}",
            max_attempts=attempt.settings.max_attempts,
            full=outcome.full,
        )
    if job is not None:
        records.fail_subject(session, job)
