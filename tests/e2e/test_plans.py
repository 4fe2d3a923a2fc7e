"""A dry run through the real stack: ranks in seconds, without data and without training."""

from __future__ import annotations

import pytest

from cstar_client import ApiError, Client, JobFailed
from cstar_client.documents import Plan
from tests.e2e.requests import Uploads

RATIO = 4.5


@pytest.fixture(scope="module")
def plan(client: Client, uploads: Uploads) -> Plan:
    return client.plans.wait(client.plans.create(uploads.model, {"ratio": RATIO}))


def test_a_plan_meets_its_target_and_explains_every_layer(uploads: Uploads, plan: Plan) -> None:
    chosen = plan["plan"] or {}

    assert chosen["dense_parameters"] == uploads.model["parameters"]
    assert chosen["dense_macs"] == uploads.model["macs"]
    assert chosen["parameters"] <= uploads.model["parameters"] / RATIO
    assert chosen["latency_ms"] > 0
    assert [layer["kind"] for layer in chosen["layers"]] == ["conv"] * 7 + ["linear"]
    for layer in chosen["layers"]:
        assert layer["ranks"] or layer["reason"]


def test_every_candidate_is_there_and_the_uniform_one_among_them(plan: Plan) -> None:
    names = [candidate["name"] for candidate in plan["candidates"]]

    assert names[0] == "uniform"
    assert len(set(names)) == len(names) > 1
    assert plan["plan"] in plan["candidates"]


def test_the_same_question_again_is_answered_at_once(client: Client, plan: Plan) -> None:
    again = client.plans.create(plan["model_id"], {"ratio": RATIO})

    assert again == {**plan, "cached": True}


def test_a_ratio_out_of_reach_is_refused_at_once_with_the_best(
    client: Client, uploads: Uploads
) -> None:
    with pytest.raises(ApiError) as refusal:
        client.plans.create(uploads.model, {"ratio": 10_000})

    assert (refusal.value.status, refusal.value.problem["code"]) == (422, "target_infeasible")
    assert RATIO < refusal.value.problem["best"]["ratio"] < 10_000


def test_a_latency_out_of_reach_is_found_by_the_worker_and_said_with_the_best(
    client: Client, uploads: Uploads
) -> None:
    asked = client.plans.create(uploads.model, {"max_latency_ms": 1e-6})
    with pytest.raises(JobFailed) as failure:
        client.plans.wait(asked)
    found = failure.value.job

    assert (found["status"], found["plan"]) == ("failed", None)
    assert found["error"]["code"] == "target_infeasible"
    assert found["error"]["best"]["max_latency_ms"] > 1e-6
    assert client.models.get(uploads.model)["status"] == "ready"
    newest = next(client.plans.list(model=uploads.model))
    assert (newest["id"], newest["status"]) == (found["id"], "failed")
