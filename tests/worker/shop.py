"""A database, a blob store and a data folder: what an attempt at a job works with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import update

from store.blobs import BlobStore, remember
from store.database import Database
from store.settings import Settings
from store.states import JobKind, JobState
from store.tables import Dataset, File, Job, Model
from tests.support import rows
from worker.attempt import Attempt
from worker.protocol import Event
from worker.supervisor import run_attempt

UNDER_WAY = Event(name="under.way", data={})
WEIGHTS, IMAGES, UPLOAD = b"weights", b"images", b"an upload"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Shop:
    """Adds jobs and works on them."""

    database: Database
    blobs: BlobStore
    settings: Settings

    def with_settings(self, **values: Any) -> Shop:
        """Return the same shop with other settings."""
        return replace(self, settings=self.settings.model_copy(update=values))

    @property
    def work(self) -> Path:
        """The folder of the attempts' folders."""
        return self.settings.data_dir.resolve() / "work"

    def put(self, content: bytes) -> str:
        """Put bytes into the blob store and give them a row; returns their name."""
        with self.blobs.stage() as staging:
            staging.write(content)
            blob = staging.commit()
        with self.database.writing() as session:
            remember(session, blob)
        return blob.sha256

    def add_job(self, **columns: Any) -> str:
        """Add a compression with its inputs in the blob store."""
        tenant_id = rows.add_tenant(self.database)
        weights, images = self.put(WEIGHTS), self.put(IMAGES)
        with self.database.writing() as session:
            model_id = rows.add_model(session, tenant_id)
            dataset_id = rows.add_dataset(session, tenant_id)
            session.execute(update(Model).values(weights_sha256=weights))
            session.execute(update(Dataset).values(blob_sha256=images))
        subject = {"model_id": model_id, "dataset_id": dataset_id}
        return rows.add_job(self.database, tenant_id=tenant_id, **subject, **columns)

    def add_evaluation(self, **request: Any) -> str:
        """Add an evaluation with its inputs in the blob store."""
        return self.add_job(kind=JobKind.EVALUATE, request={"kind": "evaluate", **request})

    def add_validation(self, kind: JobKind) -> str:
        """Add a validation with its upload in the blob store."""
        job_id = rows.add_validation(self.database, kind)
        upload = self.put(UPLOAD)
        with self.database.writing() as session:
            session.execute(update(File).values(sha256=upload))
        return job_id

    def add_plan(self) -> str:
        """Add a plan with its weights in the blob store; returns the id of its job."""
        job_id = rows.add_plan(self.database)
        weights = self.put(WEIGHTS)
        with self.database.writing() as session:
            session.execute(update(Model).values(weights_sha256=weights))
        return job_id

    def attempt(self, job_id: str) -> Attempt:
        """Claim a job."""
        now = time.monotonic()
        lease = rows.claim(self.database, job_id)
        return Attempt(self.database, self.blobs, lease, self.settings, claimed_at=now)

    def work_on(self, job_id: str, *, draining: Callable[[], bool] = lambda: False) -> Job:
        """Make one attempt and return the job as it leaves it."""
        self.make(self.attempt(job_id), draining=draining)
        return self.job(job_id)

    def make(self, attempt: Attempt, *, draining: Callable[[], bool] = lambda: False) -> None:
        """Make an attempt at a job that has been claimed."""
        run_attempt(attempt, draining=draining)

    def job(self, job_id: str) -> Job:
        return rows.read_job(self.database, job_id)

    def once_under_way(self, job_id: str, act: Callable[[], bool]) -> Callable[[], bool]:
        """Return a `draining` that acts once when the runner has said UNDER_WAY, then keeps on
        giving the answer of `act`."""
        answers: list[bool] = []

        def draining() -> bool:
            if not answers and UNDER_WAY.name in rows.event_types(self.database, job_id):
                answers.append(act())
            return bool(answers) and answers[0]

        return draining

    def once_under_way_move(self, job_id: str, target: JobState) -> Callable[[], bool]:
        """Return a `draining` that asks for a transition once, as a request of a client does."""

        def act() -> bool:
            assert rows.move(self.database, job_id, target) is not None
            return False

        return self.once_under_way(job_id, act)
