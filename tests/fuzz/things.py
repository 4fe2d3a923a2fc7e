"""What the first tenant has: one of everything and a job in every state, to stay; more, to go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from api.examples import EXAMPLES
from store.states import JobState, Status
from tests.api.world import AS_CHECKPOINT, AS_DATASET, World, archive

Ids = dict[str, list[str]]
EXPENDABLE = 20  # of each kind


@dataclass(frozen=True)
class Things:
    """Ids by the name of the path parameter they are good for; only `expendable` may end."""

    kept: Ids
    expendable: Ids


def fill(world: World, client: httpx.Client) -> Things:
    """Make them, by requests where no worker would be needed."""
    for content in (b"a checkpoint", b"images"):  # what the world's files say they are
        world.blob(content)
    return Things(_kept(world, client), _expendable(world, client))


def _kept(world: World, client: httpx.Client) -> Ids:
    model, dataset = world.model(), world.dataset()
    jobs = [_job(world, client, state, model, dataset) for state in JobState]
    upload = EXAMPLES["UploadRequest"][0]
    endpoint = _made(client, "webhook-endpoints", EXAMPLES["WebhookEndpointRequest"][0])
    return {
        "model_id": [model, world.model(status=Status.VALIDATING)],
        "dataset_id": [dataset, world.dataset(status=Status.REJECTED)],
        "job_id": jobs,
        "artifact_id": [row for job in jobs for row in _ids(client, f"jobs/{job}/artifacts")],
        "plan_id": [_plan(world, client, model)],
        "sweep_id": [_sweep(client, model, dataset)],
        "file_id": [_file(client, AS_CHECKPOINT, "kept"), _file(client, AS_DATASET, "kept")],
        "upload_id": [_made(client, "uploads", upload)],
        "key_id": _ids(client, "api-keys"),
        "endpoint_id": [endpoint],
        "delivery_id": [_made(client, f"webhook-endpoints/{endpoint}/test", None)],
    }


def _expendable(world: World, client: httpx.Client) -> Ids:
    model, dataset = world.model(), world.dataset()
    key, endpoint = EXAMPLES["KeyRequest"][0], EXAMPLES["WebhookEndpointRequest"][0]
    makers: dict[str, Callable[[], str]] = {
        "model_id": world.model,
        "dataset_id": world.dataset,
        "job_id": lambda: _job(world, client, JobState.CANCELLED, model, dataset),
        "plan_id": lambda: _made(client, "plans", world.plan_body()),
        "sweep_id": lambda: _sweep(client, model, dataset),
        "file_id": lambda: _file(client, AS_CHECKPOINT, "expendable"),
        "key_id": lambda: _made(client, "api-keys", key),
        "endpoint_id": lambda: _made(client, "webhook-endpoints", endpoint),
    }
    return {name: [make() for _ in range(EXPENDABLE)] for name, make in makers.items()}


def _job(
    world: World, client: httpx.Client, state: JobState, model_id: str, dataset_id: str
) -> str:
    body = world.job_body(model_id=model_id, dataset_id=dataset_id)
    job_id = _made(client, "jobs", body)
    if state is JobState.SUCCEEDED:
        world.succeed(job_id)
    else:
        world.bring(job_id, state)
    return job_id


def _plan(world: World, client: httpx.Client, model_id: str) -> str:
    plan_id = _made(client, "plans", world.plan_body(model_id=model_id))
    world.finish_plan(plan_id)
    return plan_id


def _sweep(client: httpx.Client, model_id: str, dataset_id: str) -> str:
    names = {"model_id": model_id, "dataset_id": dataset_id}
    return _made(client, "sweeps", EXAMPLES["SweepRequest"][0] | names)


def _file(client: httpx.Client, what: Mapping[str, str], text: str) -> str:
    answer = client.put("/v1/files", params=dict(what), content=archive(text))
    return str(answer.raise_for_status().json()["id"])


def _made(client: httpx.Client, path: str, body: Any) -> str:
    return str(client.post(f"/v1/{path}", json=body).raise_for_status().json()["id"])


def _ids(client: httpx.Client, path: str) -> list[str]:
    return [row["id"] for row in client.get(f"/v1/{path}").raise_for_status().json()["data"]]
