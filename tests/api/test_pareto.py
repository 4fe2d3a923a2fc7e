"""Frontiers: the points of a model's compressions, and which of them are on the front."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from store.states import JobState
from store.tables import Job
from tests.api.test_jobs import create
from tests.api.test_versions import register
from tests.api.world import TARGETS, World

SMALL = {"parameters": 100, "clean": 0.7, "robust": 0.3, "latency_ms": 0.3}
MIDDLE = {"parameters": 250, "clean": 0.8, "robust": 0.45, "latency_ms": 0.2}
WORSE = {"parameters": 300, "clean": 0.75, "robust": 0.45, "latency_ms": 0.1}


@pytest.fixture
def subject(world: World) -> dict[str, str]:
    return {"model_id": world.model(), "dataset_id": world.dataset()}


def pareto(client: Any, model_id: str, **query: str) -> Any:
    response = client.get(f"/v1/models/{model_id}/pareto", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def by_id(document: Any) -> dict[str, Any]:
    return {point["id"]: point for point in document["data"]}


def test_a_model_without_compressions_has_no_points(client: Any, world: World) -> None:
    model_id = world.model()
    assert pareto(client, model_id) == {
        "object": "pareto",
        "model_id": model_id,
        "sweep_id": None,
        "axes": ["parameters", "clean_accuracy", "robust_accuracy"],
        "data": [],
        "truncated": False,
    }


def test_a_point_has_what_was_measured_with_its_interval(
    client: Any, world: World, subject: Any
) -> None:
    job_id = world.compress(client, **subject, seed=7, result=MIDDLE)
    point = by_id(pareto(client, subject["model_id"]))[job_id]
    assert (point["kind"], point["job_id"], point["model_id"]) == ("compressed", job_id, None)
    assert (point["method"], point["profile"], point["seed"]) == ("cstar", "quick", 7)
    assert (point["parameters"], point["latency_ms"], point["ratio"]) == (250, 0.2, 4.0)
    assert (point["clean_accuracy"]["value"], point["clean_accuracy"]["n"]) == (0.8, 1000)
    robust = point["robust_accuracy"]
    assert (robust["value"], robust["n"], robust["interval"]) == (0.45, 64, [0.35, 0.55])
    assert point["threat"] == {"norm": "linf", "epsilon": TARGETS["robustness"]["epsilon"]}
    assert point["dataset_id"] == subject["dataset_id"]


def test_the_dense_model_is_a_point_among_them(client: Any, world: World, subject: Any) -> None:
    world.compress(client, **subject)
    newest = world.compress(client, **subject)
    dense = by_id(pareto(client, subject["model_id"]))[subject["model_id"]]
    assert (dense["kind"], dense["job_id"], dense["ratio"]) == ("dense", newest, 1.0)
    assert (dense["parameters"], dense["clean_accuracy"]["value"]) == (1000, 0.9)
    assert (dense["method"], dense["on_front"]) == (None, True)


def test_what_another_is_better_than_is_not_on_the_front(
    client: Any, world: World, subject: Any
) -> None:
    small, middle, worse = (
        world.compress(client, **subject, result=result) for result in (SMALL, MIDDLE, WORSE)
    )
    points = by_id(pareto(client, subject["model_id"]))
    on_front = {name for name, point in points.items() if point["on_front"]}
    assert on_front == {small, middle, subject["model_id"]}
    assert points[worse]["dominated_by"] == middle


def test_other_axes_make_another_front(client: Any, world: World, subject: Any) -> None:
    small, middle, worse = (
        world.compress(client, **subject, result=result) for result in (SMALL, MIDDLE, WORSE)
    )
    document = pareto(client, subject["model_id"], axes="latency_ms,robust_accuracy")
    assert document["axes"] == ["latency_ms", "robust_accuracy"]
    points = by_id(document)
    assert {name for name, point in points.items() if point["on_front"]} == {worse}
    assert {points[name]["dominated_by"] for name in (small, middle)} == {worse}


@pytest.mark.parametrize("axes", ["", "speed", "parameters,", "parameters clean_accuracy"])
def test_an_axis_that_is_none_is_refused_with_those_there_are(
    client: Any, world: World, axes: str
) -> None:
    response = client.get(f"/v1/models/{world.model()}/pareto", params={"axes": axes})
    problem = response.json()
    assert (problem["code"], problem["errors"][0]["parameter"]) == ("invalid_request", "axes")
    assert "robust_accuracy" in problem["detail"]


def test_networks_are_compared_on_one_data_set_against_one_attacker(
    client: Any, world: World, subject: Any
) -> None:
    better = world.compress(client, **subject, result=MIDDLE)
    stronger = TARGETS | {"robustness": {"norm": "linf", "epsilon": 0.1}}
    apart = [
        world.compress(client, **subject, targets=stronger, result=WORSE),
        world.compress(client, model_id=subject["model_id"], result=WORSE),
    ]
    beside = world.compress(client, **subject, result=WORSE)
    document = pareto(client, subject["model_id"])
    points = by_id(document)
    assert all(points[name]["on_front"] for name in (better, *apart))
    assert points[beside]["dominated_by"] == better
    assert [point["kind"] for point in document["data"]].count("dense") == 3


def test_only_compressions_that_have_succeeded_are_points(
    client: Any, world: World, subject: Any
) -> None:
    create(client, world, **subject)
    world.bring(create(client, world, **subject)["id"], JobState.FAILED)
    evaluation = client.post("/v1/jobs", json=world.evaluation_body(**subject)).json()
    world.bring(evaluation["id"], JobState.SUCCEEDED)
    assert pareto(client, subject["model_id"])["data"] == []


def test_a_point_that_was_not_measured_is_listed_and_not_compared(
    client: Any, world: World, subject: Any
) -> None:
    job_id = create(client, world, **subject)["id"]
    world.bring(job_id, JobState.SUCCEEDED)  # its result has a ratio alone
    point = by_id(pareto(client, subject["model_id"]))[job_id]
    assert (point["ratio"], point["parameters"], point["on_front"]) == (4.03, None, None)


@pytest.mark.parametrize("name", ["parameters", "latency_ms", "ratio"])
def test_a_number_that_no_network_has_is_no_figure(
    client: Any, world: World, subject: Any, name: str
) -> None:
    job_id = world.compress(client, **subject, result=MIDDLE)
    with world.database.writing() as session:
        job = session.get_one(Job, job_id)
        result = copy.deepcopy(job.result or {})
        figures = {"parameters": result["after"], "ratio": result}
        figures["latency_ms"] = result["after"]["latency_ms"]["batch 1"]
        figures[name]["median_ms" if name == "latency_ms" else name] = 10**400
        job.result = result
    assert by_id(pareto(client, subject["model_id"], axes="parameters"))[job_id][name] is None


def test_a_point_names_the_model_that_was_registered_of_it(
    client: Any, world: World, subject: Any
) -> None:
    job_id = world.compress(client, **subject)
    model_id = register(client, job_id).json()["id"]
    assert by_id(pareto(client, subject["model_id"]))[job_id]["model_id"] == model_id


def test_a_frontier_has_the_newest_jobs_and_says_so(
    client: Any, world: World, subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.pareto.service.MOST", 1)
    world.compress(client, **subject)
    newest = world.compress(client, **subject)
    document = pareto(client, subject["model_id"])
    assert document["truncated"] is True
    assert set(by_id(document)) == {newest, subject["model_id"]}
