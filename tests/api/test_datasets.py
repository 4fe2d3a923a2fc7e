"""Data sets: what is asked of the validation, and what it found."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from store.states import JobKind, Status
from store.tables import Job
from tests.api.test_files import upload
from tests.api.world import AS_DATASET, World, archive


def create(client: Any, **fields: Any) -> Any:
    file_id = upload(client, archive(), AS_DATASET).json()["id"]
    return client.post("/v1/datasets", json={"name": "digits", "file_id": file_id} | fields)


def test_a_new_data_set_is_validating(client: Any) -> None:
    response = create(client)
    dataset = response.json()
    assert response.status_code == 202
    assert (dataset["object"], dataset["status"]) == ("dataset", "validating")
    assert (dataset["num_examples"], dataset["shape"], dataset["sha256"]) == (None, None, None)
    assert client.get(response.headers["location"]).json() == dataset


def test_its_validation_is_queued_with_defaults_written_down(client: Any, world: World) -> None:
    dataset = create(client).json()
    with world.database.reading() as session:
        job = session.scalars(select(Job)).one()
    assert (job.kind, job.queue) == (JobKind.VALIDATE_DATASET, "io")
    assert job.dataset_id == dataset["id"]
    assert (job.request["format"], job.request["seed"]) == ("npz", 0)


def test_a_ready_data_set_shows_what_was_found(client: Any, world: World) -> None:
    dataset = client.get(f"/v1/datasets/{world.dataset()}").json()
    assert (dataset["status"], dataset["sha256"]) == ("ready", "ab" * 32)
    assert dataset["num_examples"] == {"train": 200, "test": 50}
    assert (dataset["shape"], dataset["num_classes"]) == ([3, 8, 8], 10)
    assert dataset["class_names"][3] == "3"


def test_a_rejected_data_set_shows_why(client: Any, world: World) -> None:
    reasons = [{"code": "no_labels", "detail": "The file has no labels."}]
    dataset_id = world.dataset(status=Status.REJECTED, reasons=reasons)
    (shown,) = client.get(f"/v1/datasets/{dataset_id}").json()["reasons"]

    assert shown == {
        **reasons[0],
        "type": f"/errors/{reasons[0]['code']}",
        "title": f"The upload was rejected: {reasons[0]['code'].replace('_', ' ')}",
    }


def test_a_checkpoint_is_no_data_set(client: Any) -> None:
    file_id = upload(client, archive()).json()["id"]
    body = {"name": "digits", "file_id": file_id}
    assert client.post("/v1/datasets", json=body).json()["code"] == "wrong_purpose"


def test_an_unknown_format_is_refused(client: Any) -> None:
    assert create(client, format="tar").json()["errors"][0]["pointer"] == "/format"


def test_data_sets_are_listed(client: Any, world: World) -> None:
    dataset_id = world.dataset()
    assert [found["id"] for found in client.get("/v1/datasets").json()["data"]] == [dataset_id]
