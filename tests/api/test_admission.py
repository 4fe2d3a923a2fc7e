"""Jobs that cannot be done are refused at once, with what could be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import TargetInfeasible
from api.jobs.admission import check_feasible
from store.contracts import CompressionTarget
from store.states import Status
from store.tables import Job, Model
from tests.api.world import INPUT, TARGETS, World
from tests.support import rows

REASONS = [{"code": "not_finite", "detail": "conv1.weight holds NaN. Train it again."}]


def refused(client: Any, world: World, **fields: Any) -> Any:
    response = client.post("/v1/jobs", json=world.job_body(**fields))
    assert response.status_code in (409, 422)
    assert rows.count(world.database, Job) == 0
    return response


def compression(**limits: Any) -> dict[str, Any]:
    return TARGETS | {"compression": limits}


@pytest.mark.parametrize("noun", ["model", "dataset"])
def test_what_is_still_validating_is_a_409_to_try_again(
    client: Any, world: World, noun: str
) -> None:
    subject = getattr(world, noun)(status=Status.VALIDATING)
    response = refused(client, world, **{f"{noun}_id": subject})
    assert response.status_code == 409
    assert response.json()["code"] == f"{noun}_not_ready"
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("noun", ["model", "dataset"])
def test_what_was_rejected_is_refused_with_the_reasons(
    client: Any, world: World, noun: str
) -> None:
    subject = getattr(world, noun)(status=Status.REJECTED, reasons=REASONS)
    problem = refused(client, world, **{f"{noun}_id": subject}).json()
    assert problem["code"] == f"{noun}_rejected"
    assert problem["reasons"] == REASONS
    assert "conv1.weight holds NaN" in problem["detail"]
    assert problem["errors"][0]["pointer"] == f"/{noun}_id"


def test_images_of_another_shape_are_refused(client: Any, world: World) -> None:
    model_id = world.model(input=INPUT | {"shape": [3, 32, 32]})
    problem = refused(client, world, model_id=model_id).json()
    assert problem["code"] == "shape_mismatch"
    assert "[3, 32, 32]" in problem["detail"]
    assert "[3, 8, 8]" in problem["detail"]


def test_labels_outside_the_classes_are_refused(client: Any, world: World) -> None:
    problem = refused(client, world, dataset_id=world.dataset(num_classes=11)).json()
    assert problem["code"] == "labels_outside_classes"
    assert "11" in problem["detail"]


def test_fewer_classes_than_the_models_are_fine(client: Any, world: World) -> None:
    body = world.job_body(dataset_id=world.dataset(num_classes=9))
    assert client.post("/v1/jobs", json=body).status_code == 202


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({"ratio": 10.01}, {"ratio": 10.0}),
        ({"max_params": 99}, {"max_params": 100}),
        ({"max_macs": 6999}, {"max_macs": 7000}),
        ({"max_bytes": 479}, {"max_bytes": 480}),
        ({"ratio": 11, "max_params": 500, "max_macs": 1}, {"ratio": 10.0, "max_macs": 7000}),
    ],
)
def test_an_infeasible_target_is_refused_with_the_best_that_can_be_met(
    client: Any, world: World, limits: dict[str, Any], best: dict[str, Any]
) -> None:
    problem = refused(client, world, targets=compression(**limits)).json()
    assert problem["code"] == "target_infeasible"
    assert problem["best"] == best
    pointers = [fault["pointer"] for fault in problem["errors"]]
    assert pointers == [f"/targets/compression/{name}" for name in best]
    for name, value in best.items():
        assert f"{name} {value:g}" in problem["detail"]


@pytest.mark.parametrize(
    "limits", [{"ratio": 10.0}, {"max_params": 100}, {"max_macs": 7000}, {"max_bytes": 480}]
)
def test_the_best_that_can_be_met_is_accepted(
    client: Any, world: World, limits: dict[str, Any]
) -> None:
    body = world.job_body(targets=compression(**limits))
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_a_latency_is_left_to_the_runner(client: Any, world: World) -> None:
    body = world.job_body(targets=compression(max_latency_ms=1e-6))
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_bytes_of_a_model_of_an_earlier_version_are_left_to_the_runner(
    client: Any, world: World
) -> None:
    model_id = world.model(limits={"min_parameters": 100, "min_macs": 7000})
    body = world.job_body(model_id=model_id, targets=compression(max_bytes=1))
    assert client.post("/v1/jobs", json=body).status_code == 202


@pytest.mark.parametrize("method", ["fixed_rank_admm", "uniform_ranks", "one_shot_tucker"])
def test_what_ranks_cannot_reach_is_refused_for_every_method_of_ranks(
    client: Any, world: World, method: str
) -> None:
    problem = refused(client, world, method=method, targets=compression(ratio=11)).json()
    assert problem["code"] == "target_infeasible"


@pytest.mark.parametrize("method", ["filter_pruning", "small_dense"])
def test_a_method_without_ranks_is_not_judged_by_them(
    client: Any, world: World, method: str
) -> None:
    job = client.post(
        "/v1/jobs", json=world.job_body(method=method, targets=compression(ratio=11))
    ).json()
    assert (job["state"], job["method"]) == ("queued", method)


@pytest.mark.parametrize("method", ["filter_pruning", "small_dense"])
def test_a_method_that_cannot_aim_at_a_latency_says_so(
    client: Any, world: World, method: str
) -> None:
    targets = compression(ratio=2, max_latency_ms=5)
    problem = refused(client, world, method=method, targets=targets).json()
    assert problem["code"] == "invalid_request"
    assert problem["errors"][0]["pointer"] == "/targets/compression/max_latency_ms"
    assert method in problem["detail"]


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_best_ratio_offered_is_one_that_is_accepted(least: int, more: int) -> None:
    model = Model(parameters=least + more, limits={"min_parameters": least, "min_macs": 0})
    with pytest.raises(TargetInfeasible) as refusal:
        check_feasible(CompressionTarget(ratio=1e12), model)
    best = refusal.value.members["best"]["ratio"]
    check_feasible(CompressionTarget.model_construct(ratio=best), model)
    with pytest.raises(TargetInfeasible):
        check_feasible(CompressionTarget(ratio=best + 0.011), model)


@pytest.mark.parametrize(
    ("evaluation", "pointer"),
    [
        ({"examples": 51}, "/evaluation/examples"),
        ({"examples": 10, "autoattack_examples": 11}, "/evaluation/autoattack_examples"),
        ({"autoattack_examples": 51}, "/evaluation/autoattack_examples"),
        ({"examples": 10, "probe_examples": 11}, "/evaluation/probe_examples"),
    ],
)
def test_more_examples_than_there_are_is_refused(
    client: Any, world: World, evaluation: dict[str, Any], pointer: str
) -> None:
    problem = refused(client, world, evaluation=evaluation).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("too_few_examples", pointer)


@pytest.mark.parametrize(
    ("evaluation", "resolved"),
    [
        ({}, (50, 50, 50)),
        ({"examples": 20}, (20, 20, 20)),
        ({"autoattack_examples": 8}, (50, 8, 50)),
        ({"probe_examples": 7}, (50, 50, 7)),
        ({"examples": 50, "autoattack_examples": 50}, (50, 50, 50)),
    ],
)
def test_defaults_shrink_to_the_data_set(
    client: Any, world: World, evaluation: dict[str, Any], resolved: tuple[int, int, int]
) -> None:
    job = client.post("/v1/jobs", json=world.job_body(evaluation=evaluation)).json()
    found = job["evaluation"]
    names = ("examples", "autoattack_examples", "probe_examples")
    assert tuple(found[name] for name in names) == resolved
