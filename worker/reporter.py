"""Turns a runner's messages into fenced writes, a few transactions a second at most."""

from __future__ import annotations

import time
from pathlib import Path

from store import records, tracing
from worker.attempt import Attempt
from worker.protocol import (
    CHECKPOINT_FILE,
    AnyMessage,
    CheckpointSaved,
    Event,
    Metric,
    Progress,
    Span,
)
from worker.workspace import keep

FLUSH_INTERVAL_S = 0.5
MAX_SPANS = 200


class Reporter:
    """Collects progress and metrics; writes events and checkpoints at once, in order."""

    def __init__(self, attempt: Attempt, folder: Path) -> None:
        self._database = attempt.database
        self._blobs = attempt.blobs
        self._lease = attempt.lease
        self._folder = folder
        self._progress: Progress | None = None
        self._metrics: list[records.MetricPoint] = []
        self._flushed_at = 0.0
        self._began_ns = time.time_ns()
        self._spans = 0

    def report(self, message: AnyMessage) -> None:
        """Take one message; raises LeaseLost when the attempt may no longer write."""
        match message:
            case Progress():
                self._take_progress(message)
            case Metric():
                point = records.MetricPoint(
                    message.phase, message.name, message.step, message.value
                )
                self._metrics.append(point)
            case Span():
                self._take_span(message)
            case Event():
                self.flush()
                with self._database.writing() as session:
                    records.record_event(session, self._lease, message.name, message.data)
            case CheckpointSaved():
                self.flush()
                self._save_checkpoint(message)

    def flush(self, *, due_only: bool = False) -> None:
        """Write what has been collected (`due_only`: unless that was done a moment ago)."""
        if due_only and time.monotonic() - self._flushed_at < FLUSH_INTERVAL_S:
            return
        self._flushed_at = time.monotonic()
        progress, metrics = self._progress, self._metrics
        if progress is None and not metrics:
            return
        with self._database.writing() as session:
            if progress is not None:
                records.record_progress(
                    session,
                    self._lease,
                    phase=progress.phase,
                    progress=progress.progress,
                    eta_s=progress.eta_s,
                )
            if metrics:
                records.record_metrics(session, self._lease, metrics)
        self._progress, self._metrics = None, []

    def _take_progress(self, message: Progress) -> None:
        if self._progress is not None and self._progress.phase != message.phase:
            self.flush()
        self._progress = message

    def _take_span(self, message: Span) -> None:
        """Add to the trace what the runner has measured, within the bounds of this attempt."""
        self._spans += 1
        if self._spans > MAX_SPANS:
            return
        now = time.time_ns()
        started = min(max(message.started_ns, self._began_ns), now)
        ended = min(max(message.ended_ns, started), now)
        tracing.record("cstar-runner", message.name, started_ns=started, ended_ns=ended)

    def _save_checkpoint(self, message: CheckpointSaved) -> None:
        blob = keep(self._blobs, self._folder / CHECKPOINT_FILE)
        with self._database.writing() as session:
            records.record_checkpoint(
                session,
                self._lease,
                phase=message.phase,
                blob=blob,
                finished=message.finished,
            )
