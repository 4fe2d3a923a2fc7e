"""Small jobs: what they ask for, what they must end with, and what their runners have stamped."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from store.blobs import BlobStore, remember
from store.database import Database
from store.states import Status
from store.tables import Dataset, Model
from tests.support import rows
from tests.support.small_runner import STEPS, link

SMALL = b"a small model"
STAMPS = "CSTAR_TEST_STAMPS"


@dataclass(frozen=True)
class Stamp:
    """A line of a runner: `start`, `step` (about to be taken), `held` in it, or `end`.

    `at`: on the monotonic clock.
    """

    attempt: str
    process: str
    what: str
    step: int
    at: float

    @property
    def job_id(self) -> str:
        return self.attempt.rsplit(".", 1)[0]


@dataclass(frozen=True)
class SmallSubject:
    """A model and a data set that are ready, as the small runner takes them."""

    model_id: str
    dataset_id: str


def add_subject(database: Database, blobs: BlobStore, tenant_id: str) -> SmallSubject:
    """Add a small model and its data set as if they had been validated."""
    with blobs.stage() as staging:
        staging.write(SMALL)
        blob = staging.commit()
    limits = {"min_parameters": 10, "min_macs": 10, "min_bytes": 40}
    examples = {"train": 1000, "test": 1000}
    with database.writing() as session:
        remember(session, blob)
        model_id = rows.add_model(session, tenant_id)
        dataset_id = rows.add_dataset(session, tenant_id)
        facts: dict[str, Any] = {"parameters": 1000, "limits": limits, "architecture": {}}
        model = update(Model).where(Model.id == model_id)
        session.execute(model.values(status=Status.READY, weights_sha256=blob.sha256, **facts))
        facts = {"num_examples": examples, "shape": [3, 32, 32], "num_classes": 10}
        dataset = update(Dataset).where(Dataset.id == dataset_id)
        session.execute(dataset.values(status=Status.READY, blob_sha256=blob.sha256, **facts))
    return SmallSubject(model_id, dataset_id)


def request(*, seed: int, step_s: float, hold_at: int = STEPS) -> dict[str, Any]:
    """Return what the small runner reads of a job's request.

    `hold_at`: the step that the first attempt does not leave until it is ended.
    """
    return {"seed": seed, "labels": {"step_s": str(step_s), "hold_at": str(hold_at)}}


def expected(seed: int) -> str:
    """Return the result of a small job that nobody disturbs."""
    chain = str(seed)
    for step in range(STEPS):
        chain = link(chain, step)
    return chain


def read_stamps(path: Path) -> list[Stamp]:
    """Return the stamps of all runners in the order they were written, between their last words."""
    lines = path.read_text(errors="replace").splitlines()
    return [Stamp(**json.loads(line)) for line in lines if line.startswith('{"attempt": ')]


def overlaps(stamps: Iterable[Stamp]) -> list[tuple[str, str]]:
    """Return the pairs of processes that worked on one job at the same time."""
    spans: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for stamp in stamps:
        spans[stamp.job_id][stamp.process].append(stamp.at)
    return [
        (one, other)
        for processes in spans.values()
        for (one, first), (other, second) in itertools.combinations(processes.items(), 2)
        if min(first) <= max(second) and min(second) <= max(first)
    ]


def steps_taken(stamps: Iterable[Stamp]) -> int:
    """Return how many steps were begun, the repeated ones among them."""
    return sum(stamp.what == "step" for stamp in stamps)
