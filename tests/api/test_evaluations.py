"""Evaluations: jobs that judge a model as it is."""

from __future__ import annotations

from typing import Any

import pytest

from store.records import MetricPoint, record_metrics
from store.states import JobKind, JobState, Status
from store.tables import Job
from tests.api.test_jobs import create
from tests.api.world import INPUT, TARGETS, World
from tests.support import rows


def evaluate(client: Any, world: World, **fields: Any) -> Any:
    response = client.post("/v1/jobs", json=world.evaluation_body(**fields))
    assert response.status_code == 202, response.text
    return response.json()


def refused(client: Any, world: World, **fields: Any) -> Any:
    response = client.post("/v1/jobs", json=world.evaluation_body(**fields))
    assert response.status_code in (404, 409, 422)
    assert rows.count(world.database, Job) == 0
    return response.json()


def test_an_evaluation_is_a_job_without_method_profile_and_options(
    client: Any, world: World
) -> None:
    job = evaluate(client, world, seed=7, labels={"team": "vision"}, priority=3)
    assert (job["object"], job["kind"], job["state"]) == ("job", "evaluate", "queued")
    assert [job[name] for name in ("method", "profile", "options")] == [None] * 3
    assert (job["seed"], job["labels"], job["priority"]) == (7, {"team": "vision"}, 3)
    assert job["targets"]["robustness"]["epsilon"] == TARGETS["robustness"]["epsilon"]
    assert job["targets"]["compression"] is None
    assert client.get(job["urls"]["self"]).json() == job
    assert rows.read_job(world.database, job["id"]).kind == JobKind.EVALUATE


def test_a_job_of_before_there_were_evaluations_is_shown_as_it_was(
    client: Any, world: World
) -> None:
    job = create(client, world)
    with world.database.writing() as session:
        row = session.get_one(Job, job["id"])
        new = ("kind", "baseline_model_id")
        row.request = {name: row.request[name] for name in row.request if name not in new}
    assert client.get(f"/v1/jobs/{job['id']}").json() == job


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"method": "cstar"}, "/method"),
        ({"profile": "quick"}, "/profile"),
        ({"options": {"admm_epochs": 3}}, "/options"),
        ({"targets": TARGETS}, "/targets/compression"),
    ],
)
def test_what_belongs_to_a_compression_is_refused_with_its_place_and_why(
    client: Any, world: World, fields: dict[str, Any], pointer: str
) -> None:
    problem = refused(client, world, **fields)
    assert problem["code"] == "invalid_request"
    (fault,) = problem["errors"]
    assert fault["pointer"] == pointer
    assert "leave it out" in fault["detail"]


def test_a_compression_without_a_target_is_refused_as_ever(client: Any, world: World) -> None:
    problem = refused(client, world, kind="compress")
    assert problem["errors"] == [{"pointer": "/targets/compression", "detail": "Field required"}]


def test_a_compression_with_a_baseline_is_refused(client: Any, world: World) -> None:
    body = world.job_body(baseline_model_id=world.model())
    problem = client.post("/v1/jobs", json=body).json()
    assert problem["errors"][0]["pointer"] == "/baseline_model_id"


def test_an_unknown_kind_is_refused(client: Any, world: World) -> None:
    problem = refused(client, world, kind="plan")
    assert problem["errors"][0]["pointer"] == "/kind"


def test_a_model_is_compared_with_another_one(client: Any, world: World) -> None:
    baseline = world.model()
    assert evaluate(client, world, baseline_model_id=baseline)["baseline_model_id"] == baseline


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"status": Status.VALIDATING}, "model_not_ready"),
        ({"status": Status.REJECTED, "reasons": [{"code": "x", "detail": "no"}]}, "model_rejected"),
        ({"input": INPUT | {"shape": [3, 9, 9]}}, "shape_mismatch"),
        ({"num_classes": 11}, "shape_mismatch"),
    ],
)
def test_a_baseline_that_cannot_be_compared_with_is_refused(
    client: Any, world: World, columns: dict[str, Any], code: str
) -> None:
    problem = refused(client, world, baseline_model_id=world.model(**columns))
    assert problem["code"] == code
    if code != "model_not_ready":
        assert problem["errors"][0]["pointer"] == "/baseline_model_id"


def test_a_baseline_of_another_tenant_does_not_exist(client: Any, world: World) -> None:
    other = World(world.database, world.blobs, rows.add_tenant(world.database))
    problem = refused(client, world, baseline_model_id=other.model())
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("not_found", "/baseline_model_id")


def test_jobs_are_listed_together_and_by_kind(client: Any, world: World) -> None:
    compression, evaluation = create(client, world)["id"], evaluate(client, world)["id"]
    for query, expected in (
        ({}, {compression, evaluation}),
        ({"kind": "evaluate"}, {evaluation}),
        ({"kind": "compress"}, {compression}),
    ):
        listed = client.get("/v1/jobs", params=query).json()["data"]
        assert {job["id"] for job in listed} == expected
    assert client.get("/v1/jobs?kind=plan").json()["errors"][0]["parameter"] == "kind"


def test_both_kinds_stand_in_one_queue(client: Any, world: World) -> None:
    create(client, world)
    assert evaluate(client, world)["queue_position"] == 1
    assert create(client, world)["queue_position"] == 2


def test_a_retry_of_an_evaluation_is_an_evaluation(client: Any, world: World) -> None:
    first = evaluate(client, world, baseline_model_id=world.model())
    world.bring(first["id"], JobState.FAILED)
    second = client.post(f"/v1/jobs/{first['id']}/retry").json()
    same = ("kind", "targets", "evaluation", "baseline_model_id", "method")
    assert [second[name] for name in same] == [first[name] for name in same]


def test_what_an_evaluation_leaves_is_found_as_that_of_any_job(client: Any, world: World) -> None:
    job = evaluate(client, world)
    lease = world.bring(job["id"], JobState.RUNNING)
    assert lease is not None
    with world.database.writing() as session:
        record_metrics(session, lease, [MetricPoint("evaluating", "clean", 0, 0.5)])
    world.finish(lease, ("report.html", b"<!doctype html>"))
    urls = job["urls"]
    assert [row["name"] for row in client.get(urls["metrics"]).json()["data"]] == ["clean"]
    assert client.get(urls["events"]).json()["data"][-1]["type"] == "job.succeeded"
    (artifact,) = client.get(urls["artifacts"]).json()["data"]
    assert client.get(artifact["url"]).content == b"<!doctype html>"
    assert client.get(urls["logs"]).status_code == 200
