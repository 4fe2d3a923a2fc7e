"""Versions of models, what they were made of, and the aliases that point to them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from store.states import JobState, Status
from store.tables import Job, Model
from tests.api.test_files import upload
from tests.api.test_jobs import create
from tests.api.world import MODEL, World, archive
from tests.support import rows
from tests.support.threads import at_once


def register(client: Any, job_id: str, **body: Any) -> Any:
    return client.post(f"/v1/jobs/{job_id}/model", json=body)


def point(client: Any, model_id: str, alias: str = "production") -> Any:
    return client.put(f"/v1/models/{model_id}/aliases/{alias}")


def read(client: Any, model_id: str) -> Any:
    return client.get(f"/v1/models/{model_id}").json()


@pytest.fixture
def compressed(client: Any, world: World) -> Any:
    """The model of a compression that has succeeded."""
    return register(client, world.compress(client)).json()


def test_models_of_one_name_are_numbered_and_those_of_another_apart(client: Any) -> None:
    file_id = upload(client, archive()).json()["id"]
    names = ("small", "small", "large", "small")
    bodies = [MODEL | {"file_id": file_id, "name": name} for name in names]
    made = [client.post("/v1/models", json=body).json() for body in bodies]
    assert [model["version"] for model in made] == [1, 2, 1, 3]


def test_uploads_of_one_name_at_once_get_a_number_each(client: Any) -> None:
    body = MODEL | {"file_id": upload(client, archive()).json()["id"]}
    made = at_once([partial(client.post, "/v1/models", json=body) for _ in range(4)])
    assert sorted(response.json()["version"] for response in made) == [1, 2, 3, 4]


def test_a_number_is_not_given_again_after_a_deletion(client: Any, world: World) -> None:
    client.delete(f"/v1/models/{world.model()}")
    assert read(client, world.model())["version"] == 2


def test_an_upload_has_a_file_and_no_parent(client: Any, world: World) -> None:
    model = read(client, world.model())
    assert (model["parent_model_id"], model["job_id"]) == (None, None)
    assert model["file_id"].startswith("file_")
    assert model["usable_for"] == ["compress", "plan", "evaluate"]


def test_a_model_that_is_not_ready_is_usable_for_nothing(client: Any, world: World) -> None:
    assert read(client, world.model(status=Status.VALIDATING))["usable_for"] == []


def test_what_a_compression_left_becomes_the_next_version(client: Any, world: World) -> None:
    parent = world.model()
    job_id = world.compress(client, model_id=parent, result={"parameters": 200, "macs": 9000})
    response = register(client, job_id)
    model = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/models/{model['id']}"
    assert (model["name"], model["version"], model["status"]) == ("small", 2, "ready")
    assert (model["parent_model_id"], model["job_id"], model["file_id"]) == (parent, job_id, None)
    assert (model["parameters"], model["macs"], model["limits"]) == (200, 9000, None)
    assert model["architecture"]["base"]["name"] == "resnet8_cifar"
    assert model["usable_for"] == ["evaluate"]
    assert read(client, model["id"]) == model


def test_a_model_has_the_very_files_the_job_left(client: Any, world: World) -> None:
    job_id = world.compress(client)
    model_id = register(client, job_id).json()["id"]
    artifacts = client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    hashes = {artifact["kind"]: artifact["sha256"] for artifact in artifacts}
    with world.database.reading() as session:
        model = session.get_one(Model, model_id)
    assert model.weights_sha256 == hashes["checkpoint"]
    assert model.network_sha256 == hashes["architecture"]


def test_the_same_job_is_the_same_version(client: Any, world: World) -> None:
    job_id = world.compress(client)
    first, second = register(client, job_id), client.post(f"/v1/jobs/{job_id}/model")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


def test_the_same_job_under_another_name_counts_there(client: Any, world: World) -> None:
    job_id = world.compress(client)
    register(client, job_id)
    model = register(client, job_id, name="tiny").json()
    assert (model["name"], model["version"], model["job_id"]) == ("tiny", 1, job_id)


def test_a_job_that_has_not_succeeded_has_nothing_to_register(client: Any, world: World) -> None:
    problem = register(client, create(client, world)["id"]).json()
    assert (problem["code"], problem["state"]) == ("invalid_transition", "queued")


def test_an_evaluation_has_nothing_to_register(client: Any, world: World) -> None:
    job = client.post("/v1/jobs", json=world.evaluation_body()).json()
    world.bring(job["id"], JobState.SUCCEEDED)
    assert register(client, job["id"]).json()["code"] == "invalid_request"


def test_a_job_that_left_no_network_cannot_be_registered(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    world.bring(job_id, JobState.SUCCEEDED)
    problem = register(client, job_id).json()
    assert problem["code"] == "invalid_request"
    assert "architecture" in problem["detail"]


def test_a_compressed_model_is_evaluated_beside_its_parent(
    client: Any, world: World, compressed: Any
) -> None:
    parent = compressed["parent_model_id"]
    body = world.evaluation_body(model_id=compressed["id"], baseline_model_id=parent)
    job = client.post("/v1/jobs", json=body).json()
    assert (job["model_id"], job["baseline_model_id"]) == (compressed["id"], parent)


@pytest.mark.parametrize("noun", ["job", "plan"])
def test_a_compressed_model_is_not_compressed_again(
    client: Any, world: World, compressed: Any, noun: str
) -> None:
    body = getattr(world, f"{noun}_body")(model_id=compressed["id"])
    problem = client.post(f"/v1/{noun}s", json=body).json()
    assert (problem["status"], problem["code"]) == (422, "not_compressible")
    assert problem["errors"][0]["pointer"] == "/model_id"
    assert "parent_model_id" in problem["detail"]


def test_models_are_filtered_by_name_alias_and_parent(
    client: Any, world: World, compressed: Any
) -> None:
    other = world.model(name="other")
    parent = compressed["parent_model_id"]
    assert point(client, other).status_code == point(client, parent, "dev").status_code == 200
    for query, expected in (
        ({"name": "small"}, [compressed["id"], parent]),
        ({"name": "other"}, [other]),
        ({"alias": "production"}, [other]),
        ({"name": "small", "alias": "production"}, []),
        ({"name": "small", "alias": "dev"}, [parent]),
        ({"parent_model_id": parent}, [compressed["id"]]),
    ):
        listed = client.get("/v1/models", params=query).json()["data"]
        assert [model["id"] for model in listed] == expected, query


def test_an_alias_points_to_one_version_at_a_time(client: Any, world: World) -> None:
    first, second = world.model(), world.model()
    for model_id in (first, second):
        alias = point(client, model_id).json()
        assert (alias["object"], alias["name"], alias["alias"]) == (
            "model_alias",
            "small",
            "production",
        )
        assert alias["model_id"] == model_id
    assert [read(client, model)["aliases"] for model in (first, second)] == [[], ["production"]]


def test_names_have_aliases_of_their_own(client: Any, world: World) -> None:
    models = [world.model(), world.model(name="other")]
    for model_id in models:
        point(client, model_id)
    assert [read(client, model)["aliases"] for model in models] == [["production"]] * 2


def test_an_alias_is_removed_from_the_model_it_points_to(client: Any, world: World) -> None:
    first, second = world.model(), world.model()
    point(client, second)
    assert client.delete(f"/v1/models/{first}/aliases/production").status_code == 404
    assert client.delete(f"/v1/models/{second}/aliases/production").status_code == 204
    assert client.get("/v1/models/small@production").status_code == 404


@pytest.mark.parametrize("alias", ["1", "a@b", "a" * 65, "-a"])
def test_an_alias_is_a_short_word(client: Any, world: World, alias: str) -> None:
    problem = point(client, world.model(), alias).json()
    assert (problem["code"], problem["errors"][0]["parameter"]) == ("invalid_request", "alias")


def test_an_alias_points_to_what_can_be_used(client: Any, world: World) -> None:
    model_id = world.model(status=Status.VALIDATING)
    assert point(client, model_id).json()["code"] == "model_not_ready"


def test_a_model_is_found_by_name_and_alias(client: Any, world: World) -> None:
    model_id = world.model(name="a@b")
    point(client, model_id)
    assert client.get("/v1/models/a@b@production").json()["id"] == model_id


def test_a_job_keeps_the_model_that_the_alias_pointed_to(client: Any, world: World) -> None:
    first, second = world.model(), world.model()
    point(client, first)
    job = create(client, world, model_id="small@production")
    point(client, second)
    assert client.get(f"/v1/jobs/{job['id']}").json()["model_id"] == job["model_id"] == first
    assert rows.read_job(world.database, job["id"]).request["model_id"] == first


def test_plans_and_baselines_are_named_by_alias_too(client: Any, world: World) -> None:
    model_id = world.model()
    point(client, model_id)
    plan = client.post("/v1/plans", json=world.plan_body(model_id="small@production")).json()
    body = world.evaluation_body(baseline_model_id="small@production")
    assert plan["model_id"] == model_id
    assert client.post("/v1/jobs", json=body).json()["baseline_model_id"] == model_id


def test_an_alias_that_points_nowhere_is_pointed_at(client: Any, world: World) -> None:
    world.model()
    problem = client.post("/v1/jobs", json=world.job_body(model_id="small@nothing")).json()
    assert (problem["status"], problem["errors"][0]["pointer"]) == (404, "/model_id")
    assert rows.count(world.database, Job) == 0


def test_an_alias_of_another_tenant_names_nothing(client: Any, stranger: Any, world: World) -> None:
    point(client, world.model())
    assert stranger.get("/v1/models/small@production").status_code == 404
