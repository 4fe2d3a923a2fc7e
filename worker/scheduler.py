"""The process that publishes the outbox and takes jobs back from the dead.

`python -m worker.scheduler`. Any number may run: a second wake-up call claims nothing.
"""

from __future__ import annotations

import logging
import signal
import threading
import time

from kombu.exceptions import OperationalError as BrokerError

from store import garbage, leases, outbox
from store.blobs import BlobStore
from store.context import working_for
from store.database import Database
from store.logs import configure_logging
from store.origins import origins
from store.records import fail_subject
from store.settings import Settings, settings
from store.states import JobState
from store.tables import Job
from store.tracing import HEADER, TracingUnavailable, configure_tracing, span
from worker.app import TASK_NAME, app

logger = logging.getLogger(__name__)

GARBAGE_INTERVAL_S = 600.0
GARBAGE_GRACE_S = 3600.0
PAUSE_S = 1.0  # after a pass that failed


class Scheduler:
    """One pass is `tick()`; `run()` repeats it until `stop` is set."""

    def __init__(self, database: Database, blobs: BlobStore, configuration: Settings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = configuration
        self._next_reap_at = 0.0
        self._next_collection_at = time.monotonic() + GARBAGE_INTERVAL_S

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop; a broker or database that is away is tried again."""
        while not stop.wait(self._settings.scheduler_interval_s):
            try:
                self.tick()
            except Exception:
                logger.exception("scheduler pass failed; trying again")
                stop.wait(PAUSE_S)

    def tick(self) -> None:
        """Publish what is due; now and then reap, redispatch and collect garbage."""
        now = time.monotonic()
        if now >= self._next_reap_at:
            self._next_reap_at = now + self._settings.lease_s / 6
            self.recover()
        if now >= self._next_collection_at:
            self._next_collection_at = now + GARBAGE_INTERVAL_S
            self.collect()
        self.publish()

    def publish(self) -> int:
        """Send the outbox to the broker; returns how many calls it accepted."""
        with self._database.reading() as session:
            calls = outbox.pending(session)
            origin = origins(session, {call.job_id for call in calls})
        accepted = []
        for call in calls:
            try:
                self._send(call, origin.get(call.job_id, {}).get(HEADER))
            except (BrokerError, OSError) as error:
                logger.warning("broker is away (%s); %d calls wait", error, len(calls))
                break
            accepted.append(call)
        if accepted:
            with self._database.writing() as session:
                outbox.published(session, accepted)
        return len(accepted)

    def _send(self, call: outbox.WakeUp, parent: str | None) -> None:
        with span("publish", role="producer", parent=parent, job_id=call.job_id):
            app.send_task(TASK_NAME, args=[call.job_id], queue=call.queue, retry=False)

    def recover(self) -> None:
        """Take back jobs whose lease ran out and wake workers again for those unclaimed."""
        with self._database.writing() as session:
            for job_id in leases.reap(session, max_attempts=self._settings.max_attempts):
                job = session.get_one(Job, job_id)
                with working_for(job_id=job_id, attempt=job.attempt):
                    logger.warning("the lease ran out; the job is %s now", job.state)
                if job.state == JobState.FAILED:
                    fail_subject(session, job)
            leases.redispatch(session, after_s=self._settings.redispatch_s)

    def collect(self) -> None:
        """Remove blobs nothing refers to."""
        with self._database.writing() as session:
            names = garbage.forget_unreferenced(session, grace_s=GARBAGE_GRACE_S)
        for name in names:
            self._blobs.delete(name)


def main() -> None:
    """Run the scheduler until SIGTERM or SIGINT."""
    configure_logging("scheduler", settings().log_format)
    try:
        configure_tracing("cstar-scheduler", settings().traces)
    except TracingUnavailable as error:
        raise SystemExit(str(error)) from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(settings().resolved_database_url)
    Scheduler(database, BlobStore(settings().resolved_blob_url), settings()).run(stop)


if __name__ == "__main__":
    main()
