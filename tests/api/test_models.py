"""Models: what is asked of the validation, and what is refused before it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from store.states import JobKind, JobState, Status
from store.tables import Job, Model, OutboxMessage
from tests.api.test_files import upload
from tests.api.world import AS_DATASET, MODEL, World, archive
from tests.support import rows


@pytest.fixture
def file_id(client: Any) -> str:
    return str(upload(client, archive()).json()["id"])


def create(client: Any, file_id: str, **fields: Any) -> Any:
    return client.post("/v1/models", json=MODEL | {"file_id": file_id} | fields)


def test_a_new_model_is_validating(client: Any, file_id: str) -> None:
    response = create(client, file_id)
    model = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/models/{model['id']}"
    assert (model["object"], model["status"], model["file_id"]) == ("model", "validating", file_id)
    assert (model["parameters"], model["limits"], model["reasons"]) == (None, None, [])
    assert client.get(response.headers["location"]).json() == model


def test_a_validation_is_queued_with_the_whole_request(
    client: Any, file_id: str, world: World
) -> None:
    model_id = create(client, file_id).json()["id"]
    with world.database.reading() as session:
        job = session.scalars(select(Job)).one()
        woken = session.scalars(select(OutboxMessage)).one()
    assert (job.kind, job.queue, job.model_id) == (JobKind.VALIDATE_MODEL, "io", model_id)
    assert (job.state, job.attempt, job.version) == (JobState.QUEUED, 0, 1)
    assert job.request == MODEL | {"file_id": file_id}
    assert (woken.job_id, woken.queue) == (job.id, "io")
    assert rows.event_types(world.database, job.id) == ["job.queued"]


def test_a_ready_model_shows_what_was_found(client: Any, world: World) -> None:
    model = client.get(f"/v1/models/{world.model()}").json()
    assert (model["status"], model["parameters"], model["macs"]) == ("ready", 1000, 50_000)
    assert model["limits"] == {"min_parameters": 100, "min_macs": 7000, "min_bytes": 480}
    assert model["architecture"]["name"] == "resnet8_cifar"
    assert model["input"]["shape"] == [3, 8, 8]


def test_a_model_of_an_earlier_version_has_no_least_bytes(client: Any, world: World) -> None:
    model_id = world.model(limits={"min_parameters": 100, "min_macs": 7000})
    assert client.get(f"/v1/models/{model_id}").json()["limits"]["min_bytes"] is None


def test_a_rejected_model_shows_why(client: Any, world: World) -> None:
    reasons = [{"code": "pickled_module", "detail": "The file holds a module."}]
    model_id = world.model(status=Status.REJECTED, reasons=reasons)
    (shown,) = client.get(f"/v1/models/{model_id}").json()["reasons"]

    assert shown == {
        **reasons[0],
        "type": f"/errors/{reasons[0]['code']}",
        "title": f"The upload was rejected: {reasons[0]['code'].replace('_', ' ')}",
    }


def test_a_known_architecture_may_be_named(client: Any, file_id: str) -> None:
    named = {"name": "resnet20_cifar", "arguments": {"width": 16}}
    assert create(client, file_id, architecture=named).status_code == 202


def test_an_unknown_architecture_is_refused_with_the_known_names(
    client: Any, file_id: str, world: World
) -> None:
    problem = create(client, file_id, architecture={"name": "resnet21"}).json()
    assert problem["code"] == "unknown_architecture"
    assert problem["errors"][0]["pointer"] == "/architecture/name"
    assert "resnet20_cifar" in problem["detail"]
    assert "resnet20_cifar" in problem["known"]
    assert (rows.count(world.database, Model), rows.count(world.database, Job)) == (0, 0)


@pytest.mark.parametrize("arguments", [{"depth": 3}, {"width": "wide"}, {"width": True}])
def test_an_argument_it_does_not_take_is_refused(
    client: Any, file_id: str, arguments: dict[str, Any]
) -> None:
    named = {"name": "resnet20_cifar", "arguments": arguments}
    problem = create(client, file_id, architecture=named).json()
    assert problem["code"] == "invalid_arguments"
    assert problem["errors"][0]["pointer"] == f"/architecture/arguments/{next(iter(arguments))}"
    assert "width (int, default 16)" in problem["detail"]


def test_a_file_that_is_not_there_is_pointed_at(client: Any, world: World) -> None:
    problem = create(client, "file_none").json()
    assert (problem["status"], problem["errors"][0]["pointer"]) == (404, "/file_id")
    assert rows.count(world.database, Model) == 0


def test_a_data_sets_file_is_no_checkpoint(client: Any) -> None:
    file_id = upload(client, archive(), AS_DATASET).json()["id"]
    problem = create(client, file_id).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("wrong_purpose", "/file_id")


def test_the_architectures_are_listed(client: Any) -> None:
    listed = client.get("/v1/architectures").json()["data"]
    by_name = {architecture["name"]: architecture for architecture in listed}
    assert by_name["resnet20_cifar"]["parameters"] == 269_722
    assert by_name["vgg16_bn_cifar"]["arguments"]["bias"] is False


def test_models_are_listed(client: Any, world: World) -> None:
    model_id = world.model()
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [model_id]
