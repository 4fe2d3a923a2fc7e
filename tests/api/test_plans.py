"""Plans: asked for once, answered at once the second time, and never without a model to plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from api import waiting
from store.blobs import remember
from store.states import ErrorCode, JobKind, JobState, Status
from store.tables import Job, OutboxMessage, Plan
from tests.api.world import TARGETS, World
from tests.support import rows


def ask(client: Any, body: dict[str, Any], **headers: str) -> Any:
    response = client.post("/v1/plans", json=body, headers=headers)
    assert response.status_code in (200, 201, 202), response.text
    return response


def test_a_new_plan_is_planning(client: Any, world: World) -> None:
    body = world.plan_body(profile="paper", options={"rank_multiple": 8})
    response = ask(client, body)
    plan = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/plans/{plan['id']}"
    assert plan["id"].startswith("plan_")
    assert (plan["object"], plan["status"], plan["cached"]) == ("plan", "planning", False)
    assert (plan["model_id"], plan["profile"]) == (body["model_id"], "paper")
    assert plan["targets"]["compression"]["ratio"] == 4.0
    assert plan["options"] == {"rank_multiple": 8}
    assert [plan[name] for name in ("plan", "device", "error", "finished_at")] == [None] * 4
    assert client.get(response.headers["location"]).json() == plan


def test_its_job_is_short_work_with_what_decides_the_plan(client: Any, world: World) -> None:
    body = world.plan_body(targets=TARGETS | {"min_clean_accuracy": 0.5})
    ask(client, body)
    with world.database.reading() as session:
        job = session.scalars(select(Job)).one()
        woken = session.scalars(select(OutboxMessage)).one()
    assert (job.kind, job.queue, job.model_id) == (JobKind.PLAN, "io", body["model_id"])
    assert job.request["targets"]["robustness"] is None
    assert job.max_runtime_s is not None
    assert (woken.job_id, woken.queue) == (job.id, "io")


def test_a_ready_plan_has_every_candidate_and_the_recommended_one(
    client: Any, world: World
) -> None:
    plan_id = ask(client, world.plan_body()).json()["id"]
    world.finish_plan(plan_id)
    plan = client.get(f"/v1/plans/{plan_id}").json()
    assert (plan["status"], plan["error"], plan["device"]) == (
        "ready",
        None,
        "a processor, 1 threads",
    )
    assert plan["candidates"] == rows.PLAN_RESULT["candidates"]
    assert plan["plan"] == plan["candidates"][1]
    assert plan["plan"]["name"] == rows.PLAN_RESULT["recommended"]
    assert plan["finished_at"] is not None


def test_a_failed_plan_says_why_and_what_could_be_met(client: Any, world: World) -> None:
    body = world.plan_body(targets={"compression": {"max_latency_ms": 1e-6}})
    plan_id = ask(client, body).json()["id"]
    world.fail_plan(plan_id, best={"max_latency_ms": 0.25})
    plan = client.get(f"/v1/plans/{plan_id}").json()
    assert (plan["status"], plan["plan"], plan["candidates"]) == ("failed", None, [])
    assert plan["error"]["code"] == "target_infeasible"
    assert plan["error"]["best"] == {"max_latency_ms": 0.25}


def test_the_same_question_again_is_answered_at_once(client: Any, world: World) -> None:
    body = world.plan_body()
    first = ask(client, body).json()
    world.finish_plan(first["id"])
    response = ask(client, body)
    again = response.json()
    assert (response.status_code, again["cached"], again["id"]) == (200, True, first["id"])
    assert response.headers["location"] == f"/v1/plans/{first['id']}"
    assert again["plan"]["parameters"] == 250
    assert client.get(f"/v1/plans/{first['id']}").json()["cached"] is False
    assert (rows.count(world.database, Job), rows.count(world.database, Plan)) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"targets": TARGETS},  # whom it withstands changes no rank
        {"targets": {"compression": {"ratio": 4}}},
        {"options": {"rank_multiple": None}},
        {"profile": "quick"},
    ],
)
def test_a_question_in_other_words_is_the_same(
    client: Any, world: World, other: dict[str, Any]
) -> None:
    body = world.plan_body()
    first = ask(client, body).json()["id"]
    assert ask(client, body | other).json()["id"] == first


@pytest.mark.parametrize(
    "other",
    [
        {"targets": {"compression": {"ratio": 4.5}}},
        {"targets": {"compression": {"ratio": 4.0, "max_macs": 10_000}}},
        {"options": {"rank_multiple": 8}},
        {"profile": "paper"},
    ],
)
def test_another_question_is_another_plan(client: Any, world: World, other: dict[str, Any]) -> None:
    body = world.plan_body()
    first = ask(client, body).json()["id"]
    world.finish_plan(first)
    response = ask(client, body | other)
    assert (response.status_code, response.json()["cached"]) == (202, False)
    assert response.json()["id"] != first


def test_a_plan_in_the_making_is_not_made_twice(client: Any, world: World) -> None:
    body = world.plan_body()
    first, again = ask(client, body), ask(client, body)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert rows.count(world.database, Job) == 1


def test_the_same_weights_uploaded_again_have_the_plan_already(client: Any, world: World) -> None:
    twins = [world.model(), world.model()]
    first = ask(client, world.plan_body(model_id=twins[0])).json()
    world.finish_plan(first["id"])
    response = ask(client, world.plan_body(model_id=twins[1]))
    again = response.json()
    assert (response.status_code, again["cached"], again["model_id"]) == (200, True, twins[1])
    assert again["id"] != first["id"]
    assert again["candidates"] == rows.PLAN_RESULT["candidates"]
    assert rows.count(world.database, Job) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"input": {"shape": [3, 16, 16], "mean": [0.5] * 3, "std": [0.2] * 3}},
        {"architecture": {"name": "resnet8_cifar", "arguments": {"width": 8}}},
    ],
)
def test_the_same_weights_seen_otherwise_are_planned_again(
    client: Any, world: World, other: dict[str, Any]
) -> None:
    first = ask(client, world.plan_body()).json()["id"]
    world.finish_plan(first)
    assert ask(client, world.plan_body(model_id=world.model(**other))).status_code == 202


def test_a_plan_that_failed_is_tried_again(client: Any, world: World) -> None:
    body = world.plan_body()
    first = ask(client, body).json()["id"]
    world.fail_plan(first)
    again = ask(client, body).json()
    assert again["status"] == "planning"
    assert again["id"] != first


def test_another_tenants_plan_is_no_answer(client: Any, stranger: Any, world: World) -> None:
    body = world.plan_body()
    world.finish_plan(ask(client, body).json()["id"])
    problem = stranger.post("/v1/plans", json=body).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("not_found", "/model_id")


def test_other_weights_are_planned_for_themselves(client: Any, world: World) -> None:
    world.finish_plan(ask(client, world.plan_body()).json()["id"])
    other = rows.blob_of(b"other weights")
    with world.database.writing() as session:
        remember(session, other)
    body = world.plan_body(model_id=world.model(weights_sha256=other.sha256))
    assert ask(client, body).status_code == 202


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ({"status": Status.VALIDATING}, "model_not_ready"),
        ({"status": Status.REJECTED}, "model_rejected"),
    ],
)
def test_a_model_that_is_not_ready_is_refused_as_for_a_job(
    client: Any, world: World, model: dict[str, Any], code: str
) -> None:
    body = world.plan_body(model_id=world.model(**model))
    assert client.post("/v1/plans", json=body).json()["code"] == code
    assert rows.count(world.database, Plan) == 0


def test_what_ranks_cannot_reach_is_refused_at_once(client: Any, world: World) -> None:
    body = world.plan_body(targets={"compression": {"ratio": 11, "max_bytes": 1}})
    problem = client.post("/v1/plans", json=body).json()
    assert (problem["status"], problem["code"]) == (422, "target_infeasible")
    assert problem["best"] == {"ratio": 10.0, "max_bytes": 480}
    assert rows.count(world.database, Job) == 0


def test_a_client_may_wait_for_its_plan(
    client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> None:
        with world.database.reading() as session:
            plan_id = session.scalars(select(Plan.id)).one()
        world.finish_plan(plan_id)

    happens: list[Callable[[], None]] = [lambda: None, made]

    async def pause(_seconds: float) -> None:
        happens.pop(0)()

    monkeypatch.setattr(waiting, "pause", pause)
    response = ask(client, world.plan_body(), Prefer="wait=30")
    assert (response.status_code, response.json()["status"]) == (201, "ready")
    assert response.headers["preference-applied"] == "wait=30"
    assert response.json()["cached"] is False
    assert happens == []


def test_plans_are_listed_by_model_without_their_candidates(client: Any, world: World) -> None:
    first = ask(client, world.plan_body()).json()
    second = ask(client, world.plan_body()).json()  # the same weights: made by the same job
    other = ask(client, world.plan_body(targets={"compression": {"ratio": 2}})).json()
    world.finish_plan(first["id"])
    listed = client.get("/v1/plans").json()["data"]
    status = {plan["id"]: plan["status"] for plan in listed}
    assert status == {first["id"]: "ready", second["id"]: "ready", other["id"]: "planning"}
    assert not any("candidates" in plan for plan in listed)
    query = {"model_id": first["model_id"]}
    assert [p["id"] for p in client.get("/v1/plans", params=query).json()["data"]] == [first["id"]]


def test_a_plan_whose_worker_was_lost_for_good_has_failed(client: Any, world: World) -> None:
    plan_id = ask(client, world.plan_body()).json()["id"]
    rows.claim(world.database, world.plan_job(plan_id))
    rows.expire(world.database, world.plan_job(plan_id))
    rows.reap(world.database, max_attempts=1)
    plan = client.get(f"/v1/plans/{plan_id}").json()
    assert (plan["status"], plan["error"]["code"]) == ("failed", ErrorCode.WORKER_LOST)
    assert client.get(f"/v1/models/{plan['model_id']}").json()["status"] == "ready"


def test_a_plan_cannot_be_told_what_jobs_can(client: Any, world: World) -> None:
    job_id = world.plan_job(ask(client, world.plan_body()).json()["id"])
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 404
    assert rows.read_job(world.database, job_id).state == JobState.QUEUED
