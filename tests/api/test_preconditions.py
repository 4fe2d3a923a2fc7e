"""`If-Match` on what a job is told, and the tags of models, data sets and plans."""

from __future__ import annotations

from typing import Any

import pytest

from store.states import JobState
from tests.api.test_jobs import create
from tests.api.world import World


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_a_job_that_is_as_it_was_read_does_as_it_is_told(
    client: Any, world: World, action: str
) -> None:
    url = create(client, world)["urls"]["self"]
    tag = client.get(url).headers["etag"]
    answer = client.post(f"{url}/{action}", headers={"If-Match": f'"99", {tag}'})
    assert answer.status_code == 200


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_a_job_that_has_moved_on_stays_as_it_is(client: Any, world: World, action: str) -> None:
    job = create(client, world)
    url = job["urls"]["self"]
    tag = client.get(url).headers["etag"]
    world.bring(job["id"], JobState.RUNNING)
    answer = client.post(f"{url}/{action}", headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert answer.json()["state"] == "running"
    assert client.get(url).json()["state"] == "running"


def test_its_place_in_the_queue_is_no_change_of_a_job(client: Any, world: World) -> None:
    ahead = create(client, world)["id"]
    url = create(client, world)["urls"]["self"]
    tag = client.get(url).headers["etag"]
    world.bring(ahead, JobState.CANCELLED)
    assert client.get(url).headers["etag"] != tag
    assert client.post(f"{url}/cancel", headers={"If-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("tags", "status"),
    [("*", 200), ('W/"1"', 412), ("1", 412), ("", 412), ('"x"', 412), ('"9999999999"', 412)],
)
def test_what_matches(client: Any, world: World, tags: str, status: int) -> None:
    url = create(client, world)["urls"]["self"]
    answer = client.post(f"{url}/cancel", headers={"If-Match": tags})
    assert answer.status_code == status


def paths(client: Any, world: World) -> list[str]:
    plan = client.post("/v1/plans", json=world.plan_body()).json()["id"]
    return [f"/v1/models/{world.model()}", f"/v1/datasets/{world.dataset()}", f"/v1/plans/{plan}"]


def test_a_known_document_is_not_sent_again(client: Any, world: World) -> None:
    for path in paths(client, world):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag


def test_a_changed_document_has_another_tag(client: Any, world: World) -> None:
    plan = client.post("/v1/plans", json=world.plan_body()).json()["id"]
    tag = client.get(f"/v1/plans/{plan}").headers["etag"]
    world.finish_plan(plan)
    answer = client.get(f"/v1/plans/{plan}", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
