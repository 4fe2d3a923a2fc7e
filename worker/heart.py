"""Keeps the lease of an attempt from its claim to its end, beside whatever else is going on.

Inputs that come slowly, artifacts that go slowly, a runner that sits in C code: nothing of that
may let a lease lapse, so the beats have a thread of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import TypeVar

from store import leases
from store.database import AWAY
from store.lifecycle import LeaseLost
from store.states import JobState
from worker.attempt import Attempt

logger = logging.getLogger(__name__)

RETRY_S = 1.0  # after a database that did not answer
JOIN_S = 5.0  # for a beat that hangs in a dead connection when the attempt is over

T = TypeVar("T")


class Heart:
    """Beats every `heartbeat_s` while its context is open."""

    def __init__(self, attempt: Attempt) -> None:
        self._database = attempt.database
        self._lease = attempt.lease
        self._settings = attempt.settings
        self._lease_ends_at = attempt.claimed_at + attempt.settings.lease_s
        self._lost = False
        self._renewed: Callable[[float], None] = lambda _: None
        self._wanted = JobState.RUNNING
        self._stop = threading.Event()
        context = copy_context()  # what it logs carries the ids of its attempt
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="heart", daemon=True
        )

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(JOIN_S)

    @property
    def lease_ends_at(self) -> float:
        """When the lease ends unless it is renewed, on the monotonic clock."""
        return self._lease_ends_at

    def on_renewal(self, listener: Callable[[float], None]) -> None:
        """Tell `listener` when the lease ends: now, and whenever it has been renewed."""
        self._renewed = listener
        listener(self._lease_ends_at)

    @property
    def stop_wanted(self) -> bool:
        """Whether the client wants the job paused or cancelled."""
        return self._wanted in (JobState.PAUSING, JobState.CANCELLING)

    def check(self) -> None:
        """Raise LeaseLost when somebody else has the job, or the lease ran out unrenewed."""
        if self._lost or time.monotonic() >= self._lease_ends_at:
            raise LeaseLost(self._lease.job_id)

    def persist(self, write: Callable[[], T]) -> T:
        """Repeat a write that the database does not answer for as long as the lease holds.

        One that was committed unheard raises LeaseLost when it is repeated: nothing ends twice.
        """
        while True:
            try:
                return write()
            except AWAY:
                logger.exception("%s: the database is away", self._lease.job_id)
                self.check()
                self._stop.wait(RETRY_S)

    def _run(self) -> None:
        while not self._stop.is_set() and not self._lost:
            pause = self._settings.heartbeat_s if self._beat() else RETRY_S
            self._stop.wait(min(pause, self._settings.heartbeat_s))

    def _beat(self) -> bool:
        """Renew the lease, counted from before the beat: the database may be slow to answer."""
        now = time.monotonic()
        try:
            with self._database.writing() as session:
                lease_s = self._settings.lease_s
                self._wanted = leases.heartbeat(session, self._lease, lease_s=lease_s)
        except LeaseLost:
            self._lost = True
            return True
        except Exception:  # a thread that dies of the unexpected would let the lease lapse
            logger.exception("%s: heartbeat failed", self._lease.job_id)
            return False
        self._lease_ends_at = now + self._settings.lease_s
        self._renewed(self._lease_ends_at)
        return True
