"""The process that publishes the outbox and takes jobs back from the dead.

`python -m worker.scheduler`. Any number may run: a second wake-up call claims nothing. Taking jobs
back has a thread of its own, so that a broker that hangs keeps no job waiting; garbage and
scrubbing have another (`worker.housekeeping`), so that they keep no call waiting; webhooks have
their own (`worker.webhooks`).
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from kombu.exceptions import ChannelError
from kombu.exceptions import OperationalError as BrokerError

from store import leases, outbox
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
from worker.broker import broker_url, publisher_options
from worker.housekeeping import Housekeeper
from worker.webhooks.deliverer import FINISH_S, POLL_S, Deliverer

logger = logging.getLogger(__name__)

BROKER_TIMEOUT_S = 2.0
PAUSE_S = 1.0  # after a pass that failed


class Scheduler:
    """`run()` repeats `tick()`, which needs the broker, and `recover()`, which does not."""

    def __init__(self, database: Database, configuration: Settings) -> None:
        self._database = database
        self._settings = configuration
        self._pause_s = configuration.lease_s / 6  # between two looks at all jobs
        self._next_look_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Tick and recover until told to stop; a broker or database that is away is tried again."""
        recovering = (stop, self.recover, self._pause_s)
        threading.Thread(target=_repeat, args=recovering, daemon=True).start()
        _repeat(stop, self.tick, self._settings.scheduler_interval_s)

    def tick(self) -> None:
        """Publish what is due; now and then redispatch."""
        now = time.monotonic()
        if now >= self._next_look_at:
            self._next_look_at = now + self._pause_s
            self.redispatch()
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
        """Take back jobs whose lease ran out."""
        with self._database.writing() as session:
            leases.shorten_leases(session, lease_s=self._settings.lease_s)
            for job_id in leases.reap(session, max_attempts=self._settings.max_attempts):
                job = session.get_one(Job, job_id)
                with working_for(job_id=job_id, attempt=job.attempt):
                    logger.warning("the lease ran out; the job is %s now", job.state)
                if job.state == JobState.FAILED:
                    fail_subject(session, job)

    def redispatch(self) -> None:
        """Make the calls again that the broker has lost; a call it still has wakes as well."""
        after_s = self._settings.redispatch_s
        with self._database.reading() as session:
            queues = leases.unanswered(session, after_s=after_s)
        published = {queue: calls_in_broker(queue) for queue in queues}
        if published:
            with self._database.writing() as session:
                leases.redispatch(session, after_s=after_s, published=published)


def _repeat(stop: threading.Event, act: Callable[[], None], interval_s: float) -> None:
    while not stop.is_set():
        try:
            act()
        except Exception:
            logger.exception("scheduler pass failed; trying again")
            stop.wait(PAUSE_S)
        stop.wait(interval_s)


def calls_in_broker(queue: str) -> int:
    """Return how many calls of a queue wait in the broker; 0 when it has none or is away."""
    connection = app.connection_for_write()
    try:
        with connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0.1, timeout=BROKER_TIMEOUT_S
            )
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except (BrokerError, ChannelError, OSError, *connection.connection_errors):
        return 0


def main() -> None:
    """Run the scheduler until SIGTERM or SIGINT."""
    configure_logging("scheduler", settings().log_format)
    try:
        configure_tracing("cstar-scheduler", settings().traces)
    except TracingUnavailable as error:
        raise SystemExit(str(error)) from None
    options = publisher_options(broker_url(settings()), app.conf.broker_transport_options)
    app.conf.broker_transport_options = options
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(settings().resolved_database_url)
    housekeeper = Housekeeper(database, BlobStore(settings().resolved_blob_url), settings())
    keeping = threading.Thread(target=housekeeper.run, args=[stop], daemon=True)
    keeping.start()
    delivering = threading.Thread(
        target=Deliverer(database, settings()).run, args=[stop], daemon=True
    )
    delivering.start()
    Scheduler(database, settings()).run(stop)
    delivering.join(FINISH_S + POLL_S)


if __name__ == "__main__":
    main()
