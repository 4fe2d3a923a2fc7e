"""One attempt at one job: start the runner, pass on what it says, end it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from obstore.exceptions import BaseError as ObjectStoreError

from store.blobs import DigestMismatch
from store.database import AWAY
from store.lifecycle import LeaseLost
from store.room import is_full
from store.states import ErrorCode
from store.tables import Job
from worker.attempt import Attempt
from worker.channel import Channel, ProtocolError
from worker.deadman import Deadman
from worker.executors import ask_to_stop, await_exit, end, has_ended, kill_group, start_runner
from worker.heart import Heart
from worker.outcome import Outcome, conclude
from worker.protocol import AnyMessage, Failure, Result, Stopped
from worker.reporter import Reporter
from worker.usage import Limits, excess
from worker.workspace import LOG_FILE, workspace

logger = logging.getLogger(__name__)

TICK_S = 0.2
USAGE_INTERVAL_S = 0.5
LAST_BREATH_S = 5.0  # between hanging up and ending
NO_ROOM = "there is no room left on a disk of the service; the job goes on when there is"
STORAGE_ERRORS = (OSError, ObjectStoreError, DigestMismatch)


class _AskedToStop(Exception):
    """The attempt is to end before its runner was started."""


def run_attempt(attempt: Attempt, *, draining: Callable[[], bool]) -> None:
    """Work on a claimed job until it ends, is given back, or is lost to somebody else."""
    with Heart(attempt) as heart:
        try:
            _work(attempt, heart, draining)
        except LeaseLost:
            logger.warning("%s: the lease was lost; nothing more is written", attempt.lease.job_id)
        except Exception as error:
            logger.exception("%s: attempt %d broke", attempt.lease.job_id, attempt.lease.attempt)
            with suppress(LeaseLost):
                conclude(attempt, heart, _broken(error), folder=None)


def _work(attempt: Attempt, heart: Heart, draining: Callable[[], bool]) -> None:
    def go_on() -> None:
        heart.check()
        if draining() or heart.stop_wanted:
            raise _AskedToStop

    try:
        with workspace(attempt, on_chunk=go_on) as folder:
            outcome = _supervise(attempt, heart, folder, draining)
            conclude(attempt, heart, outcome, folder=folder)
    except _AskedToStop:
        conclude(attempt, heart, Outcome.released(), folder=None)


def _broken(error: Exception) -> Outcome:
    """Return the outcome of an attempt that failed on our side of the pipe."""
    if is_full(error):
        return Outcome.no_room(NO_ROOM)
    stored = isinstance(error, STORAGE_ERRORS)
    code, what = (ErrorCode.STORAGE_ERROR, "storage") if stored else (ErrorCode.INTERNAL, "worker")
    return Outcome.lost(code, f"{what} failed ({type(error).__name__}); see the worker's log")


def _supervise(
    attempt: Attempt, heart: Heart, folder: Path, draining: Callable[[], bool]
) -> Outcome:
    supervision = Supervision(attempt, heart, folder)
    try:
        return supervision.watch(draining)
    finally:
        supervision.kill()


class Supervision:
    """Watches one runner process; `watch` returns how it ended."""

    def __init__(self, attempt: Attempt, heart: Heart, folder: Path) -> None:
        self._database = attempt.database
        self._lease = attempt.lease
        self._heart = heart
        self._folder = folder
        self._settings = attempt.settings
        self._limits = Limits.of(attempt.settings)
        self._reporter = Reporter(attempt, folder)
        now = time.monotonic()
        # before there is a process to lose
        self._deadline = heart.persist(lambda: self._runtime_deadline(now))
        self._hung_up = False
        self._unreported: deque[AnyMessage] = deque()
        self._verdict: Outcome | None = None
        self._heard_at = now
        self._next_look_at = now + USAGE_INTERVAL_S
        self._kill_at: float | None = None
        with ExitStack() as stack:  # no runner is left behind when what watches it cannot start
            self._start(stack)
            self._started = stack.pop_all()

    def _start(self, stack: ExitStack) -> None:
        self._process = start_runner(self._folder, self._folder / LOG_FILE)
        assert self._process.stdout is not None
        stack.callback(self._process.stdout.close)
        stack.callback(end, self._process)
        self._channel = Channel(self._process.stdout.fileno())
        stack.callback(self._channel.close)
        self._deadman = Deadman(lambda: kill_group(self._process), at=self._heart.lease_ends_at)
        stack.callback(self._deadman.call_off)  # first: it must not meet a process that was reaped
        self._heart.on_renewal(self._deadman.put_off)

    def watch(self, draining: Callable[[], bool]) -> Outcome:
        """Serve the runner until it ends or must be ended; raises LeaseLost."""
        while self._verdict is None and (self._unreported or not self._hung_up):
            self._serve()
            self._heart.check()
            if draining() or self._heart.stop_wanted:
                self._stop()
            self._verdict = self._verdict or self._overrun()
        if self._deadman.has_acted:
            raise LeaseLost(self._lease.job_id)
        self._heart.persist(self._reporter.flush)
        return self._verdict or self._without_a_word()

    def kill(self) -> None:
        """End the runner and everything it started, and let go of its pipe."""
        self._started.close()

    def _serve(self) -> None:
        """Listen for a moment and pass on what is heard; what cannot be written yet waits."""
        if self._unreported:
            time.sleep(TICK_S)
        else:
            self._listen()
        try:
            while self._unreported and self._verdict is None:
                self._take(self._unreported[0])
                self._unreported.popleft()
            self._reporter.flush(due_only=True)
        except AWAY:
            logger.exception("%s: the database is away", self._lease.job_id)

    def _listen(self) -> None:
        ended = has_ended(self._process)  # before the pipe is found empty, not after
        try:
            self._unreported.extend(self._channel.read(TICK_S))
        except ProtocolError as error:
            self._verdict = Outcome.failed(ErrorCode.INTERNAL, f"runner protocol: {error}")
        # a child that it left behind may keep the pipe open
        self._hung_up = self._channel.closed or (ended and self._channel.quiet)
        if self._unreported:
            self._heard_at = time.monotonic()

    def _take(self, message: AnyMessage) -> None:
        match message:
            case Result():
                self._verdict = Outcome.of(message)
            case Failure():  # one that is being stopped may fail of just that
                stopping = self._kill_at is not None
                self._verdict = Outcome.released() if stopping else Outcome.of(message)
            case Stopped() if self._kill_at is not None:
                self._verdict = Outcome.released()
            case Stopped():  # it counts: one that always says so must not go on for ever
                self._verdict = Outcome.lost(ErrorCode.WORKER_LOST, "runner stopped unasked")
            case _:
                self._reporter.report(message)

    def _stop(self) -> None:
        """Ask the runner to save and end, again at every call: one that starts up is deaf."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._settings.cancel_grace_s
        ask_to_stop(self._process)

    def _overrun(self) -> Outcome | None:
        """Return the outcome when the runner has had all the time it gets."""
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            return Outcome.released()
        if self._deadline is not None and now >= self._deadline:
            return Outcome.failed(ErrorCode.TIMEOUT, "max_runtime_s is used up")
        if now - self._heard_at > self._settings.stall_timeout_s:
            text = f"no sign of progress for {self._settings.stall_timeout_s:.0f} s"
            return Outcome.lost(ErrorCode.STALLED, text)
        return self._excess(now)

    def _excess(self, now: float) -> Outcome | None:
        """Return the outcome when the runner has taken more of the machine than it may."""
        if now < self._next_look_at:
            return None
        self._next_look_at = now + USAGE_INTERVAL_S
        found = excess(self._process.pid, self._folder, self._limits)
        return None if found is None else Outcome.failed(found.code, found.message)

    def _without_a_word(self) -> Outcome:
        if self._kill_at is not None:
            return Outcome.released()
        await_exit(self._process.pid, LAST_BREATH_S)
        self._deadman.call_off()
        return Outcome.died(end(self._process))

    def _runtime_deadline(self, now: float) -> float | None:
        with self._database.reading() as session:
            job = session.get_one(Job, self._lease.job_id)
            if job.max_runtime_s is None:
                return None
            return now + job.max_runtime_s - job.running_s
