"""One of everything that a path or a body can name, and what requests need beside that.

A new route with a new parameter needs its line here; the matrix fails until it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from store.keys import issue
from store.states import JobState
from tests.api.conftest import SECRET
from tests.api.world import INPUT, MODEL, TARGETS, World, archive

Things = Mapping[str, str]

PLAIN = {"number": "1", "alias": "production"}  # path parameters that name nothing of a tenant
QUERY = {"filename": "digits.npz", "purpose": "dataset"}  # required query parameters


def make_things(client: Any, world: World) -> dict[str, str]:
    """Let the owner have one of each; returns values by the names of path parameters."""
    made = {"model_id": world.model(), "dataset_id": world.dataset()}
    job = world.job_body(**made)
    made["file_id"] = upload(client)
    client.put(f"/v1/models/{made['model_id']}/aliases/{PLAIN['alias']}")
    made["upload_id"] = client.post("/v1/uploads", json=UPLOAD).json()["id"]
    made["job_id"] = client.post("/v1/jobs", json=job).json()["id"]
    made["plan_id"] = client.post("/v1/plans", json=world.plan_body()).json()["id"]
    made["sweep_id"] = client.post("/v1/sweeps", json=BODIES["create_sweep"](made)).json()["id"]
    endpoint = client.post("/v1/webhook-endpoints", json=HOOK).json()["id"]
    delivery = client.post(f"/v1/webhook-endpoints/{endpoint}/test").json()["id"]
    made |= {"endpoint_id": endpoint, "delivery_id": delivery}
    return made | {"artifact_id": _artifact(client, world, job), "key_id": _key(world)}


def _artifact(client: Any, world: World, job: Mapping[str, Any]) -> str:
    done = client.post("/v1/jobs", json=job).json()["id"]
    lease = world.bring(done, JobState.RUNNING)
    assert lease is not None
    world.finish(lease, ("model.safetensors", b"weights"))
    return str(client.get(f"/v1/jobs/{done}/artifacts").json()["data"][0]["id"])


def _key(world: World) -> str:
    with world.database.writing() as session:
        made = {"tenant_id": world.tenant_id, "name": "other", "secret_key": SECRET}
        return issue(session, **made)[0].id


UPLOAD = {
    "filename": "digits.npz",
    "purpose": "dataset",
    "bytes": 1 << 20,
    "sha256": "ab" * 32,
    "part_bytes": 1 << 20,
}
HOOK = {"url": "https://hooks.example.com/cstar"}
# By operation: of each whose body can name something, or that needs one to get to its path.
BODIES: dict[str, Callable[[Things], dict[str, Any]]] = {
    "update_webhook_endpoint": lambda _: {"enabled": True},
    "create_job": lambda things: {
        "model_id": things["model_id"],
        "dataset_id": things["dataset_id"],
        "targets": TARGETS,
    },
    "create_sweep": lambda things: {
        "model_id": things["model_id"],
        "dataset_id": things["dataset_id"],
        "ratios": [2.0, 3.0],
        "targets": {"robustness": TARGETS["robustness"]},
    },
    "create_plan": lambda things: {
        "model_id": things["model_id"],
        "targets": {"compression": TARGETS["compression"]},
    },
    "create_model": lambda things: MODEL | {"file_id": things["file_id"], "input": INPUT},
    "create_dataset": lambda things: {"name": "digits", "file_id": things["file_id"]},
}


def upload(client: Any, text: str = "a file of nobody else") -> str:
    """Upload a file; returns its id."""
    answer = client.put("/v1/files", params=QUERY, content=archive(text))
    return str(answer.json()["id"])
