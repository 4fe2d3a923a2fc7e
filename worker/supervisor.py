"""One attempt at one job: start the runner, pass on what it says, keep the lease, end it."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from obstore.exceptions import BaseError as ObjectStoreError
from sqlalchemy.exc import OperationalError

from store import leases
from store.blobs import DigestMismatch
from store.lifecycle import LeaseLost
from store.states import ErrorCode, JobState
from store.tables import Job
from worker.attempt import Attempt
from worker.channel import Channel, ProtocolError
from worker.executors import signal_group, start_runner
from worker.outcome import Outcome, conclude
from worker.protocol import Failure, Result, Stopped
from worker.reporter import Reporter
from worker.workspace import LOG_FILE, workspace

logger = logging.getLogger(__name__)

TICK_S = 0.2


def run_attempt(attempt: Attempt, *, draining: Callable[[], bool]) -> None:
    """Work on a claimed job until it ends, is given back, or is lost to somebody else."""
    job_id = attempt.lease.job_id
    try:
        with workspace(attempt) as folder:
            outcome = _supervise(attempt, folder, draining)
            conclude(attempt, outcome, folder=folder)
    except LeaseLost:
        logger.warning("%s: the lease was lost; nothing more is written", job_id)
    except (OSError, ObjectStoreError, DigestMismatch) as error:
        logger.exception("%s: storage failed", job_id)
        outcome = Outcome.lost(ErrorCode.STORAGE_ERROR, f"storage failed: {error}")
        conclude(attempt, outcome, folder=None)


def _supervise(attempt: Attempt, folder: Path, draining: Callable[[], bool]) -> Outcome:
    supervision = Supervision(attempt, folder)
    try:
        return supervision.watch(draining)
    finally:
        supervision.kill()


class Supervision:
    """Watches one runner process; `watch` returns how it ended."""

    def __init__(self, attempt: Attempt, folder: Path) -> None:
        self._database = attempt.database
        self._lease = attempt.lease
        self._settings = settings = attempt.settings
        self._reporter = Reporter(attempt, folder)
        self._process = start_runner(folder, folder / LOG_FILE)
        assert self._process.stdout is not None
        self._channel = Channel(self._process.stdout.fileno())
        self._outcome: Outcome | None = None
        now = time.monotonic()
        self._heard_at = now
        self._lease_ends_at = now + settings.lease_s
        self._next_beat_at = now
        self._kill_at: float | None = None
        self._deadline = self._runtime_deadline(now)

    def watch(self, draining: Callable[[], bool]) -> Outcome:
        """Serve the runner until it hangs up; raises LeaseLost."""
        while not self._channel.closed:
            self._serve()
            self._beat_when_due()
            self._enforce_limits()
            if draining() and self._outcome is None:
                self._stop(Outcome.released())
        self._reporter.flush()
        return self._outcome or Outcome.died(self._wait())

    def kill(self) -> None:
        """End the runner and everything it started, and let go of its pipe."""
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()
        self._channel.close()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _serve(self) -> None:
        try:
            messages = self._channel.read(TICK_S)
        except ProtocolError as error:
            self._outcome = Outcome.failed(ErrorCode.INTERNAL, f"runner protocol: {error}")
            self.kill_group()
            return
        for message in messages:
            self._heard_at = time.monotonic()
            match message:
                case Result() | Failure():
                    self._outcome = Outcome.of(message)
                case Stopped():
                    self._outcome = self._outcome or Outcome.released()
                case _:
                    self._reporter.report(message)
        self._reporter.flush(due_only=True)

    def _beat_when_due(self) -> None:
        now = time.monotonic()
        if now < self._next_beat_at:
            return
        self._next_beat_at = now + self._settings.heartbeat_s
        try:
            with self._database.writing() as session:
                state = leases.heartbeat(session, self._lease, lease_s=self._settings.lease_s)
        except OperationalError:
            logger.exception("%s: heartbeat failed", self._lease.job_id)
            if now >= self._lease_ends_at:  # nobody may work on without a lease
                raise LeaseLost(self._lease.job_id) from None
            self._next_beat_at = now + 1.0
            return
        self._lease_ends_at = now + self._settings.lease_s
        if state in (JobState.PAUSING, JobState.CANCELLING):
            self._stop(Outcome.released())

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self.kill_group()
        elif self._deadline is not None and now >= self._deadline:
            self._outcome = Outcome.failed(ErrorCode.TIMEOUT, "max_runtime_s is used up")
            self.kill_group()
        elif now - self._heard_at > self._settings.stall_timeout_s:
            text = f"no sign of progress for {self._settings.stall_timeout_s:.0f} s"
            self._outcome = Outcome.lost(ErrorCode.STALLED, text)
            self.kill_group()

    def _stop(self, outcome: Outcome) -> None:
        """Ask the runner to save what it has and end; it is killed if it does not."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._settings.cancel_grace_s
            self._outcome = self._outcome or outcome
            signal_group(self._process, signal.SIGTERM)

    def kill_group(self) -> None:
        """Kill the runner; the channel then closes by itself."""
        signal_group(self._process, signal.SIGKILL)

    def _wait(self) -> int:
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its pipe but lives on
            self.kill_group()
            return self._process.wait()

    def _runtime_deadline(self, now: float) -> float | None:
        with self._database.reading() as session:
            job = session.get_one(Job, self._lease.job_id)
            if job.max_runtime_s is None:
                return None
            return now + job.max_runtime_s - job.running_s
