"""One campaign: jobs go in over HTTP, processes are killed at seeded times, and all is counted."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cstar_client import Client, ConnectionFailed, Retries, ServerError
from stack.demo.digits import load_digits
from store.blobs import BlobStore
from store.database import Database
from store.settings import Settings
from store.states import FINAL, JobKind, JobState
from store.tables import Artifact, Job, JobEvent, Tenant
from tests.chaos.kills import KILLS, is_at_work
from tests.chaos.stack import ChaosStack
from tests.e2e.requests import job_body, upload_digits
from tests.support import rows, small
from tests.support.brokers import Broker
from tests.support.small_runner import STEPS

SETTINGS = {
    "lease_s": 4.0,
    "heartbeat_s": 0.5,
    "redispatch_s": 3.0,
    "scheduler_interval_s": 0.1,
    "cancel_grace_s": 10.0,
    "max_attempts": 1000,
    "runner_threads": 1,
    "checkpoint_interval_s": 0.5,
}
LABEL = "chaos"
ONCE = Retries(total_s=0)
PATIENCE_S = 120.0  # a process that was killed is back by then
BRIEF: dict[str, Any] = {
    "targets": {"compression": {"ratio": 4.5}, "robustness": {"epsilon": 0.5, "min_accuracy": 0.5}}
}


@dataclass(frozen=True)
class Plan:
    """What a campaign does; everything that is left to chance follows from `seed`."""

    seed: int
    jobs: int
    kills: int
    step_s: float = 0.05
    gap_s: tuple[float, float] = (0.1, 1.0)
    workers: int = 2
    ends_within_s: float = 600.0
    compressions: int = 0  # real ones, of the demo's network


@dataclass
class Tally:
    """What a campaign has found.

    `lost`: jobs that did not succeed exactly once. `wrong`: results that are not those of an
    undisturbed job. `compressed`: digests of real jobs, all of one network: they must be equal.
    `steps`: how many were begun, of which `ideal` would have been enough.
    """

    jobs: int
    seconds: float
    kills: dict[str, int]
    attempts: int
    succeeded: int
    compressed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    overlaps: list[tuple[str, str]] = field(default_factory=list)
    steps: int = 0
    ideal: int = 0

    @property
    def clean(self) -> bool:
        differ = len(set(self.compressed)) > 1
        return not (self.lost or self.wrong or self.gaps or self.overlaps or differ)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "steps_per_ideal": round(self.steps / self.ideal, 3)}


class Campaign:
    """Drives one stack over an empty database."""

    def __init__(self, plan: Plan, broker: Broker, database: Database, data_dir: Path) -> None:
        self.plan, self.database = plan, database
        url = database.engine.url.render_as_string(hide_password=False)
        settings = Settings(data_dir=data_dir, database_url=url, broker_url=broker.url, **SETTINGS)
        self.stack = ChaosStack(settings, broker, workers=plan.workers)
        self.blobs = BlobStore(settings.resolved_blob_url)
        self.kills: Counter[str] = Counter()
        self._rng = random.Random(plan.seed)
        self._done = threading.Event()

    def run(self) -> Tally:
        """Run to the end of the last job and return what was found."""
        with self.stack:
            if self.plan.compressions:
                self._submit_compressions()
            began = time.monotonic()
            clients = threading.Thread(target=self._submit)
            clients.start()
            self._kill_at_random()
            clients.join()
            self._await_end()
            seconds = time.monotonic() - began
        return self._count(seconds)

    def _submit_compressions(self) -> None:
        """Upload the demo's network and queue real jobs, before anything is killed."""
        digits = load_digits().save(self.stack.data_dir / "digits.npz")
        with Client(self.stack.url, self.stack.api_key) as client:
            uploads = upload_digits(client, digits)
            for _ in range(self.plan.compressions):
                client.jobs.create(job_body(uploads, **BRIEF))

    def _submit(self) -> None:
        """Submit the jobs one after another, as a client does that repeats what got no answer."""
        subject = small.add_subject(self.database, self.blobs, self._tenant())
        for seed in range(self.plan.jobs):
            self._submit_one(subject, seed)

    def _submit_one(self, subject: small.SmallSubject, seed: int) -> None:
        body = {
            "model_id": subject.model_id,
            "dataset_id": subject.dataset_id,
            "targets": {"compression": {"ratio": 2.0}, "robustness": {"epsilon": 0.1}},
            **small.request(seed=seed, step_s=self.plan.step_s),
        }
        body["labels"] |= {LABEL: str(seed)}
        while not self._is_known(seed):  # an answer may be lost after the job was written
            try:
                with Client(
                    self.stack.url, self.stack.api_key, timeout_s=PATIENCE_S, retries=ONCE
                ) as client:
                    client.jobs.create(body)
            except (
                ConnectionFailed,
                ServerError,
            ):  # the API is dead; a commit of its may be under way
                time.sleep(0.5)

    def _kill_at_random(self) -> None:
        """Kill until the plan is carried out or no job is left to be disturbed."""
        kinds = [kind for _ in range(self.plan.kills) for kind in KILLS][: self.plan.kills]
        self._rng.shuffle(kinds)
        for kind in kinds:
            if not self._await_work():
                return
            time.sleep(self._rng.uniform(*self.plan.gap_s))
            self.kills[kind] += KILLS[kind](self.stack, self._rng)

    def _await_work(self) -> bool:
        """Wait for a runner to be there, so that something is disturbed; false when all is over."""
        while not self._all_ended():
            if is_at_work(self.stack):
                return True
            time.sleep(0.05)
        return False

    def _await_end(self) -> None:
        deadline = time.monotonic() + self.plan.ends_within_s
        while not self._all_ended():
            if time.monotonic() > deadline:
                return  # what has not ended is counted as lost
            time.sleep(0.2)

    def _all_ended(self) -> bool:
        states = [job.state for job in self._jobs()]
        return len(states) >= self.plan.jobs + self.plan.compressions and all(
            state in FINAL for state in states
        )

    def _is_known(self, seed: int) -> bool:
        return any(job.labels.get(LABEL) == str(seed) for job in self._jobs())

    def _jobs(self) -> list[Job]:
        with self.database.reading() as session:
            return list(session.scalars(select(Job).where(Job.kind == JobKind.COMPRESS)))

    def _tenant(self) -> str:
        with self.database.reading() as session:
            return session.scalars(select(Tenant.id)).one()

    def _count(self, seconds: float) -> Tally:
        jobs = self._jobs()
        stamps = small.read_stamps(self.stack.stamps_file)
        chains = [job for job in jobs if LABEL in job.labels]
        ids = {job.id for job in chains}
        return Tally(
            jobs=len(jobs),
            seconds=round(seconds, 1),
            kills=dict(sorted(self.kills.items())),
            attempts=sum(job.attempt for job in jobs),
            succeeded=sum(job.state == JobState.SUCCEEDED for job in jobs),
            compressed=[self._weights(job) for job in jobs if LABEL not in job.labels],
            lost=[job.id for job in jobs if self._successes(job) != 1]
            + [f"seed {seed}" for seed in self._not_once(chains)],
            wrong=[job.id for job in chains if not self._is_right(job)],
            gaps=[job.id for job in jobs if self._has_gaps(job)],
            overlaps=small.overlaps(stamps),
            steps=small.steps_taken(stamp for stamp in stamps if stamp.job_id in ids),
            ideal=STEPS * len(chains),
        )

    def _not_once(self, jobs: list[Job]) -> list[int]:
        counted = Counter(int(job.labels[LABEL]) for job in jobs)
        return [seed for seed in range(self.plan.jobs) if counted[seed] != 1]

    def _successes(self, job: Job) -> int:
        types = rows.event_types(self.database, job.id)
        return types.count("job.succeeded") if job.state == JobState.SUCCEEDED else 0

    def _is_right(self, job: Job) -> bool:
        """Say whether result and artifact are, to the bit, those of an undisturbed job."""
        chain = small.expected(
            int(job.labels[LABEL]) if "seed" not in job.request else job.request["seed"]
        )
        with self.database.reading() as session:
            digests = session.scalars(
                select(Artifact.sha256).where(Artifact.job_id == job.id)
            ).all()
        artifacts = [b"".join(self.blobs.read(digest)) for digest in digests]
        return job.result == {"chain": chain} and artifacts == [chain.encode()]

    def _weights(self, job: Job) -> str:
        """Return the SHA-256 of the compressed network of a real job."""
        query = select(Artifact.sha256).where(Artifact.job_id == job.id)
        with self.database.reading() as session:
            return str(session.scalar(query.where(Artifact.kind == "checkpoint")))

    def _has_gaps(self, job: Job) -> bool:
        with self.database.reading() as session:
            query = select(func.count(), func.max(JobEvent.seq)).where(JobEvent.job_id == job.id)
            counted, last = session.execute(query).one()
        return not counted == last == job.event_count
