"""Sweeps: several compressions in one request, their common status and frontier."""

from __future__ import annotations

from typing import Any

import pytest

from api import waiting
from api.sweeps.schemas import status_of
from store.states import JobState
from store.tables import Job, OutboxMessage, Sweep
from tests.api.test_versions import point, register
from tests.api.world import TARGETS, World
from tests.support import rows

ROBUSTNESS = {"robustness": TARGETS["robustness"]}


def body(world: World, **fields: Any) -> dict[str, Any]:
    """Return the body of a sweep over three ratios, unless `fields` says otherwise."""
    return world.job_body(**({"targets": ROBUSTNESS, "ratios": [2.0, 4.0, 8.0]} | fields))


def sweep(client: Any, world: World, **fields: Any) -> Any:
    response = client.post("/v1/sweeps", json=body(world, **fields))
    assert response.status_code == 202, response.text
    return response.json()


def refused(client: Any, world: World, **fields: Any) -> Any:
    response = client.post("/v1/sweeps", json=body(world, **fields))
    assert response.status_code in (404, 409, 422), response.text
    counted = [rows.count(world.database, table) for table in (Sweep, Job, OutboxMessage)]
    assert counted == [0, 0, 0]
    return response.json()


def read(client: Any, found: Any) -> Any:
    return client.get(found["urls"]["self"]).json()


def test_a_sweep_has_a_job_for_each_ratio(client: Any, world: World) -> None:
    response = client.post("/v1/sweeps", json=body(world, labels={"team": "vision"}))
    found = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == found["urls"]["self"] == f"/v1/sweeps/{found['id']}"
    assert found["id"].startswith("swp_")
    assert (found["object"], found["status"], found["progress"]) == ("sweep", "running", 0.0)
    assert found["counts"] == {"queued": 3}
    assert [job["ratio"] for job in found["jobs"]] == found["ratios"] == [2.0, 4.0, 8.0]
    assert (found["labels"], found["finished_at"]) == ({"team": "vision"}, None)
    assert read(client, found) == found


def test_the_jobs_of_a_sweep_are_jobs_like_any_other(client: Any, world: World) -> None:
    found = sweep(client, world, seed=3, priority=5, labels={"team": "vision"})
    listed = client.get(found["urls"]["jobs"]).json()["data"]
    assert [job["id"] for job in listed] == [job["id"] for job in reversed(found["jobs"])]
    for job in listed:
        assert (job["sweep_id"], job["seed"], job["priority"]) == (found["id"], 3, 5)
        assert job["labels"] == {"team": "vision"}
        assert job["evaluation"]["examples"] == 50
    assert rows.count(world.database, OutboxMessage) == 3


def test_a_job_that_is_in_no_sweep_says_so(client: Any, world: World) -> None:
    sweep(client, world)
    job = client.post("/v1/jobs", json=world.job_body()).json()
    assert job["sweep_id"] is None
    assert len(client.get("/v1/jobs").json()["data"]) == 4


def test_every_combination_is_tried(client: Any, world: World) -> None:
    found = sweep(client, world, ratios=[2.0, 4.0], profiles=["quick", "paper"], seeds=[0, 1])
    tried = [(job["ratio"], job["profile"], job["seed"]) for job in found["jobs"]]
    assert tried == [
        (ratio, profile, seed)
        for ratio in (2.0, 4.0)
        for profile in ("quick", "paper")
        for seed in (0, 1)
    ]


def test_profiles_are_tried_at_one_target(client: Any, world: World) -> None:
    found = sweep(client, world, targets=TARGETS, ratios=[], profiles=["quick", "best"])
    assert [(job["ratio"], job["profile"]) for job in found["jobs"]] == [
        (4.0, "quick"),
        (4.0, "best"),
    ]


def test_further_limits_hold_for_every_ratio(client: Any, world: World) -> None:
    targets = ROBUSTNESS | {"compression": {"max_macs": 9000}, "min_clean_accuracy": 0.5}
    found = sweep(client, world, targets=targets, ratios=[2.0, 4.0])
    for job in client.get(found["urls"]["jobs"]).json()["data"]:
        assert job["targets"]["compression"]["max_macs"] == 9000
        assert job["targets"]["min_clean_accuracy"] == 0.5


def test_ratios_out_of_reach_are_refused_together_and_nothing_is_queued(
    client: Any, world: World
) -> None:
    problem = refused(client, world, ratios=[2.0, 40.0, 4.0, 80.0])
    assert (problem["code"], problem["best"]) == ("target_infeasible", {"ratio": 10.0})
    pointers = [fault["pointer"] for fault in problem["errors"]]
    assert pointers == ["/ratios/1", "/ratios/3"]


def test_a_limit_out_of_reach_is_told_once(client: Any, world: World) -> None:
    targets = ROBUSTNESS | {"compression": {"max_macs": 5}}
    problem = refused(client, world, targets=targets)
    pointers = [fault["pointer"] for fault in problem["errors"]]
    assert pointers == ["/targets/compression/max_macs"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"ratios": []}, "/ratios"),
        ({"ratios": [2.0, 2.0]}, "/ratios"),
        ({"ratios": [1.0]}, "/ratios/0"),
        ({"profiles": ["quick", "fast"]}, "/profiles/1"),
        ({"seeds": [0, 0]}, "/seeds"),
        ({"seeds": list(range(17))}, ""),
        ({"targets": TARGETS}, "/targets/compression/ratio"),
        ({"ratios": [], "seeds": [0, 1]}, "/targets/compression"),
        ({"kind": "evaluate"}, "/kind"),
        ({"baseline_model_id": "mdl_1"}, "/baseline_model_id"),
        ({"model_id": "mdl_none"}, "/model_id"),
        ({"dataset_id": "dts_none"}, "/dataset_id"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused_with_its_place(
    client: Any, world: World, fields: dict[str, Any], pointer: str
) -> None:
    problem = refused(client, world, **fields)
    assert problem["errors"][0]["pointer"] == pointer


def test_fifty_jobs_are_a_sweep(client: Any, world: World) -> None:
    assert len(sweep(client, world, ratios=[2.0], seeds=list(range(50)))["jobs"]) == 50


def test_a_repeated_request_makes_one_sweep(client: Any, world: World) -> None:
    asked, headers = body(world), {"Idempotency-Key": "once"}
    first, second = (client.post("/v1/sweeps", json=asked, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert rows.count(world.database, Job) == 3


def test_all_jobs_are_of_the_model_the_alias_pointed_to(client: Any, world: World) -> None:
    model_id = world.model()
    point(client, model_id)
    found = sweep(client, world, model_id="small@production")
    listed = client.get(found["urls"]["jobs"]).json()["data"]
    assert {job["model_id"] for job in listed} == {found["model_id"]} == {model_id}


QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([SUCCEEDED, QUEUED], "running"),
        ([FAILED, RUNNING], "running"),
        ([SUCCEEDED, JobState.PAUSED], "running"),
        ([SUCCEEDED, SUCCEEDED], "succeeded"),
        ([SUCCEEDED, FAILED], "partly_failed"),
        ([SUCCEEDED, FAILED, CANCELLED], "partly_failed"),
        ([FAILED, FAILED], "failed"),
        ([FAILED, CANCELLED], "failed"),
        ([SUCCEEDED, CANCELLED], "cancelled"),
        ([CANCELLED, CANCELLED], "cancelled"),
    ],
)
def test_the_status_of_a_sweep_is_told_by_its_jobs(states: list[JobState], status: str) -> None:
    assert status_of(states) == status


def test_a_sweep_whose_jobs_have_ended_has_ended(client: Any, world: World) -> None:
    found = sweep(client, world)
    first, second, third = (job["id"] for job in found["jobs"])
    world.succeed(first)
    world.bring(second, JobState.FAILED)
    halfway = read(client, found)
    assert (halfway["status"], halfway["counts"]) == (
        "running",
        {"succeeded": 1, "failed": 1, "queued": 1},
    )
    assert halfway["progress"] == pytest.approx(2 / 3)
    world.succeed(third)
    ended = read(client, found)
    assert (ended["status"], ended["progress"]) == ("partly_failed", 1.0)
    last = client.get(f"/v1/jobs/{third}").json()
    assert ended["finished_at"] == last["finished_at"]


def test_a_retry_takes_the_place_of_the_job_that_failed(client: Any, world: World) -> None:
    found = sweep(client, world, ratios=[2.0, 4.0])
    first, second = (job["id"] for job in found["jobs"])
    world.succeed(first)
    world.bring(second, JobState.FAILED)
    retry = client.post(f"/v1/jobs/{second}/retry").json()
    assert retry["sweep_id"] == found["id"]
    again = read(client, found)
    assert (again["status"], again["counts"]) == ("running", {"succeeded": 1, "queued": 1})
    world.succeed(retry["id"])
    assert read(client, found)["status"] == "succeeded"


def test_cancelling_a_sweep_cancels_what_has_not_ended(client: Any, world: World) -> None:
    found = sweep(client, world)
    first, second, _ = (job["id"] for job in found["jobs"])
    world.succeed(first)
    world.bring(second, JobState.RUNNING)
    cancelled = client.post(found["urls"]["cancel"]).json()
    assert cancelled["counts"] == {"succeeded": 1, "cancelling": 1, "cancelled": 1}
    assert cancelled["status"] == "running"
    rows.move(world.database, second, JobState.CANCELLED)
    problem = client.post(found["urls"]["cancel"]).json()
    assert (problem["code"], problem["state"]) == ("invalid_transition", "cancelled")


def test_the_answer_waits_for_the_end_of_the_last_job(
    client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sweep(client, world, ratios=[2.0, 4.0])
    left = [job["id"] for job in found["jobs"]]

    async def pause(_seconds: float) -> None:
        world.succeed(left.pop(0))

    monkeypatch.setattr(waiting, "pause", pause)
    response = client.get(found["urls"]["self"], headers={"Prefer": "wait=30"})
    assert (response.json()["status"], left) == ("succeeded", [])


def test_a_sweep_has_one_frontier_of_its_own_jobs(client: Any, world: World) -> None:
    found = sweep(client, world, ratios=[2.0, 4.0])
    first, second = (job["id"] for job in found["jobs"])
    world.succeed(first, parameters=500, clean=0.8, robust=0.4)
    world.succeed(second, parameters=250, clean=0.8, robust=0.4)
    world.compress(
        client,
        model_id=found["model_id"],
        dataset_id=found["dataset_id"],
        result={"parameters": 1, "clean": 1.0, "robust": 1.0},
    )
    document = client.get(found["urls"]["pareto"]).json()
    assert (document["sweep_id"], document["model_id"]) == (found["id"], found["model_id"])
    points = {point["id"]: point for point in document["data"]}
    assert set(points) == {first, second, found["model_id"]}
    assert (points[first]["dominated_by"], points[second]["on_front"]) == (second, True)
    assert client.get(f"{found['urls']['pareto']}?axes=speed").status_code == 422


def test_sweeps_are_listed_newest_first(client: Any, stranger: Any, world: World) -> None:
    made = [sweep(client, world)["id"] for _ in range(2)]
    listed = client.get("/v1/sweeps").json()["data"]
    assert [each["id"] for each in listed] == made[::-1]
    assert [len(each["jobs"]) for each in listed] == [3, 3]
    assert stranger.get("/v1/sweeps").json()["data"] == []


def test_a_sweep_is_deleted_with_all_its_jobs_or_not_at_all(client: Any, world: World) -> None:
    found = sweep(client, world, ratios=[2.0, 4.0])
    first, second = (job["id"] for job in found["jobs"])
    world.succeed(first)
    assert client.delete(found["urls"]["self"]).json()["code"] == "invalid_transition"
    world.succeed(second)
    model_id = register(client, second).json()["id"]
    problem = client.delete(found["urls"]["self"]).json()
    assert (problem["code"], problem["used_by"]) == (
        "in_use",
        [{"object": "model", "id": model_id}],
    )
    assert rows.count(world.database, Job) == 2
    client.delete(f"/v1/models/{model_id}")
    assert client.delete(found["urls"]["self"]).status_code == 204
    assert client.get(found["urls"]["self"]).status_code == 404
    assert (rows.count(world.database, Job), rows.count(world.database, Sweep)) == (0, 0)


def test_a_sweep_goes_with_the_last_of_its_jobs(client: Any, world: World) -> None:
    found = sweep(client, world, ratios=[2.0, 4.0])
    client.post(found["urls"]["cancel"])
    for job in found["jobs"]:
        assert client.get(found["urls"]["self"]).status_code == 200
        assert client.delete(job["url"]).status_code == 204
    assert client.get(found["urls"]["self"]).status_code == 404
