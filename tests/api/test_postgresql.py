"""The requests whose SQL or text differs between the databases, on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store.database import Database
from store.settings import Settings
from store.states import JobState
from tests.api.test_files import upload
from tests.api.test_jobs import create
from tests.api.test_plans import ask
from tests.api.test_sweeps import sweep
from tests.api.test_uploads import Sender
from tests.api.test_versions import point, register
from tests.api.world import MODEL, World, archive


@pytest.fixture
def settings(settings: Settings, postgresql_database: Database) -> Settings:
    url = postgresql_database.engine.url.render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": url})


def test_places_in_the_queue_are_counted(client: Any, world: World) -> None:
    jobs = [create(client, world, priority=priority)["id"] for priority in (0, 5)]
    listed = {job["id"]: job["queue_position"] for job in client.get("/v1/jobs").json()["data"]}
    assert [listed[job] for job in jobs] == [1, 0]


def test_a_job_goes_through_its_states(client: Any, world: World) -> None:
    url = create(client, world)["urls"]["self"]
    assert client.post(f"{url}/pause").json()["state"] == "paused"
    assert client.post(f"{url}/resume").json()["state"] == "queued"
    world.bring(url.rpartition("/")[2], JobState.RUNNING)
    assert client.post(f"{url}/cancel").json()["state"] == "cancelling"
    assert client.post(f"{url}/resume").json()["code"] == "invalid_transition"


def test_a_file_becomes_a_model(client: Any) -> None:
    file_id = upload(client, archive()).json()["id"]
    model = client.post("/v1/models", json=MODEL | {"file_id": file_id}).json()
    assert client.get("/v1/models").json()["data"] == [model]


def test_a_plan_is_found_again_that_of_the_same_model_first(client: Any, world: World) -> None:
    bodies = [world.plan_body(), world.plan_body()]
    plans = [ask(client, body).json() for body in bodies]
    world.finish_plan(plans[0]["id"])
    for body, plan in zip(bodies, plans, strict=True):
        again = ask(client, body)
        assert (again.status_code, again.json()["id"]) == (200, plan["id"])
    assert len(client.get("/v1/plans").json()["data"]) == 2


def test_a_compression_becomes_a_version_with_an_alias(client: Any, world: World) -> None:
    made = [register(client, world.compress(client), name="tiny").json() for _ in range(2)]
    for model in made:
        assert point(client, model["id"]).json()["model_id"] == model["id"]
    assert [model["version"] for model in made] == [1, 2]
    assert client.get("/v1/models/tiny@production").json()["id"] == made[1]["id"]
    listed = client.get("/v1/models", params={"alias": "production"}).json()["data"]
    assert [model["id"] for model in listed] == [made[1]["id"]]


def test_a_sweep_runs_its_course(client: Any, world: World) -> None:
    found = sweep(client, world)
    for job, parameters in zip(found["jobs"], (500, 250, 125), strict=True):
        world.succeed(job["id"], parameters=parameters)
    assert client.get(found["urls"]["self"]).json()["status"] == "succeeded"
    document = client.get(found["urls"]["pareto"]).json()
    assert sum(each["on_front"] for each in document["data"]) == 2
    assert client.delete(found["urls"]["self"]).status_code == 204
    assert client.delete(f"/v1/models/{found['model_id']}").status_code == 204


def test_a_baseline_is_in_use(client: Any, world: World) -> None:
    baseline = world.model()
    client.post("/v1/jobs", json=world.evaluation_body(baseline_model_id=baseline))
    assert client.delete(f"/v1/models/{baseline}").json()["code"] == "in_use"


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/files/a%00b/content", "/v1/models/\u2028"])
def test_an_id_that_is_no_text_names_nothing(client: Any, path: str) -> None:
    assert client.get(path).json()["code"] == "not_found"


@pytest.mark.parametrize("query", ["after=%00", "before=%00", "model_id=%00"])
def test_a_parameter_that_is_no_text_is_refused(client: Any, query: str) -> None:
    assert client.get(f"/v1/jobs?{query}").json()["code"] == "invalid_request"


def test_an_upload_in_parts_becomes_a_file_and_is_then_known(client: Any) -> None:
    sender = Sender(client)
    upload = sender.begin()
    sender.put_all(upload)
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: sender.complete(upload), range(3)))
    assert len({answer.json()["file"]["id"] for answer in answers}) == 1
    assert sender.begin()["status"] == "completed"
    assert client.get("/v1/uploads").json()["has_more"] is False
