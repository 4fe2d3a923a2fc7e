"""A scheduler and Celery workers as processes over a broker of their own, without an API."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from stack.children import Child
from store.blobs import BlobStore
from store.database import Database
from store.identifiers import new_id
from store.settings import Settings
from store.states import FINAL, JobKind, JobState
from store.submit import submit
from store.tables import Job, Worker
from tests.e2e.watching import kill, until
from tests.support import rows, small
from tests.support.brokers import Broker

QUEUE = "cpu.default"
CHECKOUT = Path(__file__).resolve().parents[2]
BEATS = {
    "lease_s": 15.0,  # no stall of the machine takes an attempt from a worker that lives
    "heartbeat_s": 0.3,
    "redispatch_s": 1.5,
    "scheduler_interval_s": 0.1,
    "cancel_grace_s": 10.0,
    "max_attempts": 100,
}


class Site:
    """Starts processes of the service; `close` ends them all."""

    def __init__(self, database: Database, broker: Broker, data_dir: Path, **settings: Any) -> None:
        self.database, self.broker = database, broker
        url = database.engine.url.render_as_string(hide_password=False)
        values = {**BEATS, "data_dir": data_dir, "database_url": url, "broker_url": broker.url}
        self.settings = Settings(**{**values, **settings})
        self.blobs = BlobStore(self.settings.resolved_blob_url)
        self.stamps_file = data_dir / "stamps"
        self.stamps_file.touch()
        self.children: list[Child] = []
        self._subject = small.add_subject(database, self.blobs, rows.add_tenant(database))

    def close(self) -> None:
        """Kill everything that was started."""
        for child in self.children:
            self.kill(child)

    def start_scheduler(self) -> Child:
        return self._start("scheduler", [sys.executable, "-m", "worker.scheduler"])

    def start_worker(self, *, prefix: tuple[str, ...] = (), **environment: str) -> Child:
        """Start a worker; `prefix` is what it is run under (a network namespace)."""
        command = [*prefix, sys.executable, "-m", "celery", "-A", "tests.support.small_app"]
        command += ["worker", "-Q", QUEUE, "-P", "prefork", "-c", "1", "-n", f"{new_id('w')}@%h"]
        command += ["--without-gossip", "--without-mingle", "--loglevel", "info"]
        return self._start(f"worker-{len(self.children)}", command, environment)

    def await_worker(self, worker: Child) -> None:
        """Return once a worker takes jobs."""
        until(lambda: self._announced(worker), f"{worker.name} to be ready")

    def kill(self, child: Child) -> None:
        """SIGKILL a process and everything below it."""
        if child.process is None:
            return
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(child.process.pid)
            kill([process, *process.children(recursive=True)])
        child.process.wait()

    def terminate(self, child: Child, *, within_s: float) -> int:
        """Send SIGTERM and return the exit status; raises TimeoutExpired."""
        assert child.process is not None
        child.process.send_signal(signal.SIGTERM)
        return child.process.wait(timeout=within_s)

    def add_job(self, *, seed: int = 0, priority: int = 0, **pace: Any) -> str:
        """Queue a small job as a request does; `pace`: of `small.request`."""
        with self.database.writing() as session:
            tenant_id = session.get_one(rows.Model, self._subject.model_id).tenant_id
            job = submit(
                session,
                tenant_id=tenant_id,
                kind=JobKind.COMPRESS,
                queue=QUEUE,
                request=small.request(seed=seed, **{"step_s": 0.01, **pace}),
                model_id=self._subject.model_id,
                dataset_id=self._subject.dataset_id,
                priority=priority,
            )
            return job.id

    def job(self, job_id: str) -> Job:
        return rows.read_job(self.database, job_id)

    def finished(self, job_id: str) -> Job:
        """Return a job once it is final; it must have succeeded."""
        until(lambda: self.job(job_id).state in FINAL, f"the end of {job_id}")
        job = self.job(job_id)
        assert job.state == JobState.SUCCEEDED, job.error
        return job

    def await_step(self, job_id: str, step: int) -> None:
        """Return once a runner has begun this step of a job."""
        until(
            lambda: any(s.job_id == job_id and s.step >= step for s in self.stamps()),
            f"step {step} of {job_id}",
        )

    def await_dispatch(self, job_id: str) -> None:
        """Return once the broker has taken the wake-up call for a job."""
        until(lambda: self.job(job_id).dispatched_at, f"{job_id} to be dispatched")

    def cancel(self, job_id: str) -> None:
        """Have a running job cancelled, as a client's request does."""
        assert rows.move(self.database, job_id, JobState.CANCELLING) is not None

    def stamps(self, job_id: str | None = None) -> list[small.Stamp]:
        found = small.read_stamps(self.stamps_file)
        return [stamp for stamp in found if job_id is None or stamp.job_id == job_id]

    def works_on(self, worker: Child, job_id: str) -> bool:
        """Say whether a job is at this worker."""
        assert worker.process is not None
        with self.database.reading() as session:
            row = session.get(Worker, self.job(job_id).worker_id)
        return row is not None and row.pid == worker.process.pid

    def _announced(self, worker: Child) -> bool:
        assert worker.process is not None
        assert worker.process.poll() is None, worker.last_words()
        with self.database.reading() as session:
            known = select(Worker.id).where(Worker.pid == worker.process.pid)
            return session.scalar(known) is not None

    def _start(
        self, name: str, command: list[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        plain = self.settings.model_dump(exclude_none=True, exclude={"secret_key"})
        settings = {f"CSTAR_{key.upper()}": str(value) for key, value in plain.items()}
        extra = {small.STAMPS: str(self.stamps_file), "PYTHONPATH": str(CHECKOUT)}
        log = self.settings.data_dir / f"{name}.log"
        child = Child(name, command, log, {**settings, **extra, **(environment or {})})
        child.start()
        self.children.append(child)
        return child


def log_has(child: Child, text: str, times: int = 1) -> bool:
    """Say whether a process has logged a text at least so often."""
    return child.log.exists() and child.log.read_text(errors="replace").count(text) >= times
