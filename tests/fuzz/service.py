"""A real API process with two tenants; the first has one of everything and a job in every state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stack.children import Child
from store.blobs import BlobStore
from store.database import Database
from store.keys import create_key, create_tenant
from store.migrate import upgrade
from store.states import JobState, Status
from tests.api.world import AS_CHECKPOINT, AS_DATASET, World, archive
from tests.support.server import SECRET, serving

METRICS_TOKEN = "a token of the tests"
SETTINGS = {
    "metrics_token": METRICS_TOKEN,
    "max_single_upload_bytes": 1 << 20,
    "rate_limit_per_minute": 0,
    "failures_per_minute": 0,
}


@dataclass(frozen=True)
class Service:
    """Where the API is, the keys of two tenants, and ids of the first by parameter name."""

    url: str
    process: Child
    owner_key: str
    stranger_key: str
    ids: dict[str, list[str]]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the tenant that has the things."""
        return {"Authorization": f"Bearer {self.owner_key}"}


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """Run the API over an SQLite database in `folder` until the block ends."""
    database = Database(f"sqlite:///{folder / 'cstar.db'}")
    upgrade(database)
    owner_id, owner_key = _tenant(database, "owner")
    _, stranger_key = _tenant(database, "stranger")
    world = World(database, BlobStore((folder / "blobs").as_uri()), owner_id)
    with serving(database, folder, **SETTINGS) as (url, process):
        ids = _fill(world, url, owner_key)
        yield Service(url, process, owner_key, stranger_key, ids)
    database.dispose()


def _tenant(database: Database, name: str) -> tuple[str, str]:
    with database.writing() as session:
        tenant_id = create_tenant(session, name).id
        return tenant_id, create_key(session, tenant_id=tenant_id, name="fuzz", secret_key=SECRET)


def _fill(world: World, url: str, key: str) -> dict[str, list[str]]:
    for content in (b"a checkpoint", b"images"):  # what the world's files say they are
        world.blob(content)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
        models, datasets = [world.model()], [world.dataset()]
        jobs = [_job(world, client, state, models[0], datasets[0]) for state in JobState]
        plans = [_plan(world, client, models[0])]
        artifacts = [row["id"] for job in jobs for row in _rows(client, f"jobs/{job}/artifacts")]
        for purpose in (AS_CHECKPOINT, AS_DATASET):
            client.put("/v1/files", params=purpose, content=archive()).raise_for_status()
        files = [row["id"] for row in _rows(client, "files")]
    return {
        "model_id": [*models, world.model(status=Status.VALIDATING)],
        "dataset_id": [*datasets, world.dataset(status=Status.REJECTED)],
        "job_id": jobs,
        "plan_id": plans,
        "artifact_id": artifacts,
        "file_id": files,
    }


def _job(
    world: World, client: httpx.Client, state: JobState, model_id: str, dataset_id: str
) -> str:
    body = world.job_body(model_id=model_id, dataset_id=dataset_id)
    job_id = str(client.post("/v1/jobs", json=body).raise_for_status().json()["id"])
    if state is JobState.SUCCEEDED:
        lease = world.bring(job_id, JobState.RUNNING)
        assert lease is not None
        world.finish(lease, ("model.safetensors", b"weights"), ("report.md", b"# a report"))
    else:
        world.bring(job_id, state)
    return job_id


def _plan(world: World, client: httpx.Client, model_id: str) -> str:
    answer = client.post("/v1/plans", json=world.plan_body(model_id=model_id))
    plan_id = str(answer.raise_for_status().json()["id"])
    world.finish_plan(plan_id)
    return plan_id


def _rows(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/{path}").raise_for_status().json()["data"])
