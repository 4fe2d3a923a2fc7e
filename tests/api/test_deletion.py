"""Deleting: what is needed stays, what is not goes with all that belongs to it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from store.database import database_now
from store.states import JobKind, JobState, Status
from store.tables import (
    Artifact,
    Checkpoint,
    Dataset,
    File,
    Job,
    JobAttempt,
    JobEvent,
    JobMetric,
    Model,
    OutboxMessage,
    Plan,
)
from tests.api.test_jobs import create
from tests.api.test_plans import ask
from tests.api.test_versions import point, register
from tests.api.world import World
from tests.support import rows

OF_A_JOB = (Artifact, Checkpoint, JobAttempt, JobEvent, JobMetric, OutboxMessage)


def delete(client: Any, noun: str, identifier: str) -> Any:
    return client.delete(f"/v1/{noun}s/{identifier}")


def in_use(response: Any) -> list[tuple[str, str]]:
    problem = response.json()
    assert (problem["status"], problem["code"]) == (409, "in_use")
    return [(use["object"], use["id"]) for use in problem["used_by"]]


def gone(client: Any, noun: str, identifier: str) -> bool:
    listed = [row["id"] for row in client.get(f"/v1/{noun}s").json()["data"]]
    read, again = client.get(f"/v1/{noun}s/{identifier}"), delete(client, noun, identifier)
    return (read.status_code, again.status_code) == (404, 404) and identifier not in listed


@pytest.mark.parametrize("noun", ["model", "dataset"])
def test_a_subject_that_nothing_uses_goes(client: Any, world: World, noun: str) -> None:
    subject = getattr(world, noun)()
    response = delete(client, noun, subject)
    assert (response.status_code, response.content) == (204, b"")
    assert gone(client, noun, subject)


@pytest.mark.parametrize("noun", ["model", "dataset"])
def test_a_subject_is_in_use_until_its_jobs_have_ended(
    client: Any, world: World, noun: str
) -> None:
    job = create(client, world)
    subject = job[f"{noun}_id"]
    assert in_use(delete(client, noun, subject)) == [("job", job["id"])]
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert delete(client, noun, subject).status_code == 204


def test_a_baseline_is_in_use_as_the_model_is(client: Any, world: World) -> None:
    baseline = world.model()
    job = client.post("/v1/jobs", json=world.evaluation_body(baseline_model_id=baseline)).json()
    assert in_use(delete(client, "model", baseline)) == [("job", job["id"])]


def test_a_model_with_an_alias_is_in_use(client: Any, world: World) -> None:
    model_id = world.model()
    point(client, model_id)
    assert in_use(delete(client, "model", model_id)) == [("model_alias", "small@production")]


def test_a_finished_job_keeps_naming_what_was_deleted(client: Any, world: World) -> None:
    before = client.get(f"/v1/jobs/{world.compress(client)}").json()
    for noun in ("model", "dataset"):
        assert delete(client, noun, before[f"{noun}_id"]).status_code == 204
    assert client.get(f"/v1/jobs/{before['id']}").json() == before


def test_a_deleted_subject_holds_no_bytes(client: Any, world: World) -> None:
    ids = {"model": world.model(), "dataset": world.dataset()}
    with world.database.writing() as session:
        file = session.scalars(select(File)).first()
        assert file is not None
        session.get_one(Model, ids["model"]).weights_sha256 = file.sha256
        session.get_one(Dataset, ids["dataset"]).blob_sha256 = file.sha256
    for noun, subject in ids.items():
        delete(client, noun, subject)
    with world.database.reading() as session:
        model = session.get_one(Model, ids["model"])
        dataset = session.get_one(Dataset, ids["dataset"])
    assert (model.weights_sha256, model.network_sha256, model.file_id) == (None, None, None)
    assert (dataset.blob_sha256, dataset.file_id) == (None, None)


def test_nothing_new_is_made_of_what_was_deleted(client: Any, world: World) -> None:
    model_id = world.model()
    failed = create(client, world, model_id=model_id)
    world.bring(failed["id"], JobState.FAILED)
    delete(client, "model", model_id)
    asked = [
        client.post("/v1/jobs", json=world.job_body(model_id=model_id)),
        client.post("/v1/plans", json=world.plan_body(model_id=model_id)),
        client.post(f"/v1/jobs/{failed['id']}/retry"),
        point(client, model_id),
    ]
    assert [response.status_code for response in asked] == [404] * 4


def test_a_file_is_in_use_as_long_as_something_is_made_of_it(client: Any, world: World) -> None:
    model_id = world.model()
    file_id = client.get(f"/v1/models/{model_id}").json()["file_id"]
    assert in_use(delete(client, "file", file_id)) == [("model", model_id)]
    delete(client, "model", model_id)
    assert delete(client, "file", file_id).status_code == 204
    assert gone(client, "file", file_id)
    assert client.get(f"/v1/files/{file_id}/content").status_code == 404


def test_a_validation_that_is_not_over_keeps_its_model(client: Any, world: World) -> None:
    model_id = world.model(status=Status.VALIDATING)
    kind = {"kind": JobKind.VALIDATE_MODEL, "queue": "io", "model_id": model_id}
    job_id = rows.add_job(world.database, tenant_id=world.tenant_id, **kind)
    assert in_use(delete(client, "model", model_id)) == [("job", job_id)]
    rows.move(world.database, job_id, JobState.CANCELLED)
    assert delete(client, "model", model_id).status_code == 204
    assert rows.count(world.database, Job) == 0


def test_a_job_goes_with_all_that_belongs_to_it(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    lease = world.bring(job_id, JobState.RUNNING)
    assert lease is not None
    with world.database.writing() as session:
        now = database_now(session)
        metric = {"phase": "admm", "name": "loss", "step": 1, "value": 0.5}
        session.add(JobMetric(job_id=job_id, seq=1, created_at=now, **metric))
    world.finish(lease, ("report.json", b"{}"))
    assert delete(client, "job", job_id).status_code == 204
    assert gone(client, "job", job_id)
    assert [rows.count(world.database, table) for table in OF_A_JOB] == [0] * len(OF_A_JOB)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.PAUSED])
def test_a_job_that_has_not_ended_is_not_deleted(
    client: Any, world: World, state: JobState
) -> None:
    job_id = create(client, world)["id"]
    world.bring(job_id, state)
    problem = delete(client, "job", job_id).json()
    assert (problem["code"], problem["state"]) == ("invalid_transition", state)
    assert "cancel" in problem["possible"]


def test_a_job_of_which_a_model_was_registered_is_in_use(client: Any, world: World) -> None:
    job_id = world.compress(client)
    model_id = register(client, job_id).json()["id"]
    assert in_use(delete(client, "job", job_id)) == [("model", model_id)]
    delete(client, "model", model_id)
    assert delete(client, "job", job_id).status_code == 204


def test_a_registered_model_outlives_its_parent(client: Any, world: World) -> None:
    model = register(client, world.compress(client)).json()
    assert delete(client, "model", model["parent_model_id"]).status_code == 204
    assert client.get(f"/v1/models/{model['id']}").json() == model


def test_a_retry_outlives_the_job_it_retries(client: Any, world: World) -> None:
    first = create(client, world)["id"]
    world.bring(first, JobState.FAILED)
    second = client.post(f"/v1/jobs/{first}/retry").json()
    tag = client.get(second["urls"]["self"]).headers["etag"]
    assert delete(client, "job", first).status_code == 204
    response = client.get(second["urls"]["self"])
    assert response.json()["retried_from"] is None
    assert response.headers["etag"] != tag


def test_a_plan_is_in_use_while_it_is_made(client: Any, world: World) -> None:
    plan_id = ask(client, world.plan_body()).json()["id"]
    assert in_use(delete(client, "plan", plan_id)) == [("job", world.plan_job(plan_id))]
    world.finish_plan(plan_id)
    assert delete(client, "plan", plan_id).status_code == 204
    assert gone(client, "plan", plan_id)
    assert rows.count(world.database, Job) == 0


def test_a_plan_that_is_shared_stays_for_the_other_model(client: Any, world: World) -> None:
    first, second = (ask(client, world.plan_body()).json() for _ in range(2))
    world.finish_plan(first["id"])
    assert delete(client, "model", first["model_id"]).status_code == 204
    assert client.get(f"/v1/plans/{first['id']}").status_code == 404
    assert client.get(f"/v1/plans/{second['id']}").json()["status"] == "ready"
    assert delete(client, "model", second["model_id"]).status_code == 204
    assert (rows.count(world.database, Plan), rows.count(world.database, Job)) == (0, 0)
