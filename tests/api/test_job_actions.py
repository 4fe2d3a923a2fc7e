"""What a job takes in which state, for every pair."""

from __future__ import annotations

from typing import Any

import pytest

from api.jobs.actions import MOVES, possible
from store.states import ALLOWED, FINAL, JobState
from store.tables import Job
from tests.api.test_jobs import create
from tests.api.world import World
from tests.support import rows

EXPECTED = {
    ("queued", "cancel"): "cancelled",
    ("paused", "cancel"): "cancelled",
    ("running", "cancel"): "cancelling",
    ("pausing", "cancel"): "cancelling",
    ("queued", "pause"): "paused",
    ("running", "pause"): "pausing",
    ("paused", "resume"): "queued",
    ("failed", "retry"): "queued",
    ("cancelled", "retry"): "queued",
}
PAIRS = [(s, a) for s in JobState for a in ("cancel", "pause", "resume", "retry")]


def test_every_move_is_one_the_store_allows() -> None:
    for moves in MOVES.values():
        assert all(target in ALLOWED[origin] for origin, target in moves.items())


@pytest.mark.parametrize(("state", "action"), PAIRS)
def test_an_action_moves_a_job_or_is_refused_with_what_is_possible(
    client: Any, world: World, state: JobState, action: str
) -> None:
    job_id = create(client, world)["id"]
    world.bring(job_id, state)
    response = client.post(f"/v1/jobs/{job_id}/{action}")
    expected = EXPECTED.get((state.value, action))
    if expected is not None:
        assert response.json()["state"] == expected
        return
    problem = response.json()
    assert (response.status_code, problem["code"]) == (409, "invalid_transition")
    assert problem["state"] == state
    assert problem["possible"] == possible(state)
    assert state in problem["detail"]
    assert rows.read_job(world.database, job_id).state == state


def test_a_final_job_can_only_be_tried_again() -> None:
    assert {state: possible(state) for state in FINAL} == {
        JobState.SUCCEEDED: [],
        JobState.FAILED: ["retry"],
        JobState.CANCELLED: ["retry"],
    }


def test_a_retry_is_a_new_job_of_the_same_request(client: Any, world: World) -> None:
    first = create(client, world, seed=5, labels={"a": "b"}, priority=2)
    world.bring(first["id"], JobState.FAILED)
    response = client.post(f"/v1/jobs/{first['id']}/retry")
    second = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{second['id']}"
    assert second["retried_from"] == first["id"]
    same = ("targets", "evaluation", "seed", "labels", "priority", "model_id", "dataset_id")
    assert [second[name] for name in same] == [first[name] for name in same]
    assert rows.read_job(world.database, first["id"]).state == JobState.FAILED


def test_a_resumed_job_is_woken_again(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    client.post(f"/v1/jobs/{job_id}/pause")
    client.post(f"/v1/jobs/{job_id}/resume")
    events = ["job.queued", "job.paused", "job.queued"]
    assert rows.event_types(world.database, job_id) == events


def test_an_action_takes_no_other_tenants_validation(client: Any, world: World) -> None:
    kind = {"kind": "validate_model", "model_id": world.model()}
    job_id = rows.add_job(world.database, tenant_id=world.tenant_id, **kind)
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 404
    assert rows.count(world.database, Job) == 1
