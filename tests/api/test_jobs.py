"""Jobs: their documents, lists, tags and places in the queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from store import leases
from store.database import database_now
from store.leases import Lease
from store.records import record_progress
from store.states import ErrorCode, JobKind, JobState
from store.tables import Job, OutboxMessage, Worker
from tests.api.conftest import tenant
from tests.api.world import TARGETS, World
from tests.support import rows


def create(client: Any, world: World, **fields: Any) -> Any:
    response = client.post("/v1/jobs", json=world.job_body(**fields))
    assert response.status_code == 202, response.text
    return response.json()


def test_a_new_job_is_queued_and_says_where_to_go_on(client: Any, world: World) -> None:
    body = world.job_body(labels={"team": "vision"}, seed=7, max_runtime_s=60, priority=3)
    response = client.post("/v1/jobs", json=body)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == job["urls"]["self"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["kind"]) == ("job", "compress")
    assert job["state"] == job["status"] == "queued"
    assert (job["progress"], job["attempt"], job["queue_position"]) == (0.0, 0, 0)
    assert (job["labels"], job["seed"], job["max_runtime_s"]) == ({"team": "vision"}, 7, 60)
    assert (job["method"], job["profile"], job["priority"]) == ("cstar", "quick", 3)
    assert job["targets"]["compression"]["ratio"] == 4.0
    nothing_yet = ("phase", "eta_s", "started_at", "finished_at", "error", "result", "retried_from")
    assert [job[name] for name in nothing_yet] == [None] * len(nothing_yet)
    assert client.get(job["urls"]["self"]).json() == job


@pytest.mark.parametrize("labels", [{"a": "\0"}, {"\0": "a"}, {"a": "\ud800"}, {"\ud800": "a"}])
def test_labels_that_a_database_or_an_answer_cannot_hold_are_refused(
    client: Any, world: World, labels: dict[str, str]
) -> None:
    body = json.dumps(world.job_body(labels=labels))
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/labels")


def test_its_urls_lead_somewhere(client: Any, world: World) -> None:
    urls = create(client, world)["urls"]
    for name in ("self", "events", "metrics", "logs", "artifacts"):
        assert client.get(urls[name]).status_code == 200
    assert client.post(urls["cancel"]).status_code == 200


def test_a_job_is_written_with_its_event_and_its_wake_up_call(client: Any, world: World) -> None:
    body = world.job_body(priority=5)
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    with world.database.reading() as session:
        job = session.get_one(Job, job_id)
        woken = session.scalars(select(OutboxMessage)).one()
    assert (job.kind, job.queue) == (JobKind.COMPRESS, "cpu.default")
    assert (job.model_id, job.dataset_id) == (body["model_id"], body["dataset_id"])
    assert (woken.job_id, woken.queue, woken.priority) == (job_id, "cpu.default", 5)
    assert rows.event_types(world.database, job_id) == ["job.queued"]


def test_a_running_job_shows_how_far_it_is(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    lease = running(world, job_id)
    with world.database.writing() as session:
        record_progress(session, lease, phase="admm", progress=0.25, eta_s=90.0)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["phase"], job["progress"]) == ("running", "admm", 0.25)
    assert (job["eta_s"], job["attempt"], job["queue_position"]) == (90.0, 1, None)
    assert job["started_at"].endswith("Z")


def test_a_failed_job_shows_why(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    world.bring(job_id, JobState.FAILED)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["finished_at"] is not None
    assert (job["error"]["code"], job["error"]["retryable"]) == ("diverged", False)


def test_a_succeeded_job_shows_its_result(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    world.bring(job_id, JobState.SUCCEEDED)
    assert client.get(f"/v1/jobs/{job_id}").json()["result"] == {"ratio": 4.03}


def test_a_known_version_of_a_job_is_not_sent_again(client: Any, world: World) -> None:
    url = create(client, world)["urls"]["self"]
    first = client.get(url)
    again = client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize("change", ["a step forward", "a place in the queue"])
def test_a_changed_job_has_another_tag(client: Any, world: World, change: str) -> None:
    ahead = create(client, world)["id"]
    url = create(client, world)["urls"]["self"]
    tag = client.get(url).headers["etag"]
    moved = ahead if change == "a place in the queue" else url.rpartition("/")[2]
    world.bring(moved, JobState.RUNNING)
    response = client.get(url, headers={"If-None-Match": tag})
    assert response.status_code == 200
    assert response.headers["etag"] != tag


def test_places_in_the_queue_go_by_priority_then_age(client: Any, world: World) -> None:
    jobs = [create(client, world, priority=priority)["id"] for priority in (0, 0, 9)]
    listed = {job["id"]: job["queue_position"] for job in client.get("/v1/jobs").json()["data"]}
    oldest, younger = sorted(jobs[:2])
    assert [listed[job] for job in (jobs[2], oldest, younger)] == [0, 1, 2]


def test_another_queue_is_not_in_the_way(client: Any, world: World) -> None:
    other = create(client, world)["id"]
    with world.database.writing() as session:
        session.execute(update(Job).where(Job.id == other).values(queue="gpu.default"))
    assert create(client, world)["queue_position"] == 0


def test_jobs_are_listed_by_state_and_model(client: Any, world: World) -> None:
    first, second = create(client, world), create(client, world)
    world.bring(first["id"], JobState.CANCELLED)
    for query, expected in (
        ({"state": "queued"}, [second["id"]]),
        ({"state": "cancelled"}, [first["id"]]),
        ({"model_id": first["model_id"]}, [first["id"]]),
        ({"model_id": "mdl_none"}, []),
    ):
        listed = client.get("/v1/jobs", params=query).json()["data"]
        assert [job["id"] for job in listed] == expected


def test_an_unknown_state_is_refused(client: Any) -> None:
    problem = client.get("/v1/jobs?state=done").json()
    assert problem["errors"][0]["parameter"] == "state"


@pytest.mark.parametrize("kind", [JobKind.VALIDATE_MODEL, JobKind.PLAN])
def test_short_work_is_no_job_to_a_client(client: Any, world: World, kind: JobKind) -> None:
    job_id = rows.add_job(
        world.database,
        tenant_id=world.tenant_id,
        kind=kind,
        model_id=world.model(),
    )
    assert client.get("/v1/jobs").json()["data"] == []
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404


def test_targets_come_back_as_they_were_sent(client: Any, world: World) -> None:
    limits = {"max_params": 900, "max_macs": 40_000, "max_bytes": 3000, "max_latency_ms": 0.5}
    targets = {
        "compression": {"ratio": 2.5} | limits,
        "robustness": {"norm": "l2", "epsilon": 0.5, "min_accuracy": 0.3},
        "min_clean_accuracy": 0.6,
    }
    assert create(client, world, targets=targets)["targets"] == targets
    assert create(client, world, targets=TARGETS)["targets"]["min_clean_accuracy"] is None


def running(world: World, job_id: str) -> Lease:
    lease = world.bring(job_id, JobState.RUNNING)
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("device", "queue"), [("any", "cpu.default"), ("cpu", "cpu.default"), ("gpu", "gpu.default")]
)
def test_a_job_waits_in_the_queue_of_its_device(
    client: Any, world: World, device: str, queue: str
) -> None:
    job = create(client, world, device=device)
    assert job["device"] == device
    assert rows.read_job(world.database, job["id"]).queue == queue


def test_a_device_that_is_none_is_refused(client: Any, world: World) -> None:
    response = client.post("/v1/jobs", json=world.job_body(device="tpu"))
    assert response.json()["errors"][0]["pointer"] == "/device"


def test_a_retry_waits_for_the_same_device(client: Any, world: World) -> None:
    job_id = create(client, world, device="gpu")["id"]
    world.bring(job_id, JobState.FAILED)
    retry = client.post(f"/v1/jobs/{job_id}/retry").json()
    assert retry["device"] == "gpu"
    assert rows.read_job(world.database, retry["id"]).queue == "gpu.default"


def test_a_job_of_before_there_were_devices_takes_any(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    with world.database.writing() as session:
        job = session.get_one(Job, job_id)
        job.request = {name: value for name, value in job.request.items() if name != "device"}
    assert client.get(f"/v1/jobs/{job_id}").json()["device"] == "any"


def add_worker(world: World, *queues: str) -> None:
    with world.database.writing() as session:
        now = database_now(session)
        facts: dict[str, Any] = {"hostname": "host", "pid": 1, "facts": {}}
        times = {"started_at": now, "last_seen_at": now}
        session.add(Worker(id=f"wrk_{queues[0]}", queues=list(queues), **facts, **times))


def test_a_job_for_which_no_worker_has_ever_come_says_so(client: Any, world: World) -> None:
    add_worker(world, "cpu.default", "io")
    assert create(client, world, device="cpu")["notice"] is None
    job = create(client, world, device="gpu")
    assert job["notice"] == (
        "No worker of queue gpu.default has been heard of; the job waits for one."
    )
    add_worker(world, "gpu.default")
    assert client.get(job["urls"]["self"]).json()["notice"] is None


def test_a_job_that_waits_for_storage_says_until_when(client: Any, world: World) -> None:
    job_id = create(client, world)["id"]
    lease = running(world, job_id)
    with world.database.writing() as session:
        leases.lose(
            session,
            lease,
            code=ErrorCode.STORAGE_ERROR,
            message="no room",
            max_attempts=3,
            full=True,
        )
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "queued"
    assert job["notice"].startswith("Storage failed; the job is tried again at 20")


def succeeded(client: Any, world: World, seconds: float, **fields: Any) -> None:
    """Let a job have succeeded after so long."""
    job_id = create(client, world, **fields)["id"]
    world.bring(job_id, JobState.SUCCEEDED)
    with world.database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(running_s=seconds))


def test_a_queued_job_tells_when_it_may_have_ended(client: Any, world: World) -> None:
    for seconds in (50.0, 60.0, 900.0):
        succeeded(client, world, seconds)
    first, second = create(client, world), create(client, world)
    assert (first["eta_s"], second["eta_s"]) == (60.0, 120.0)
    running(world, first["id"])
    assert client.get(second["urls"]["self"]).json()["eta_s"] == 120.0


def test_several_workers_shorten_the_wait(client: Any, world: World) -> None:
    succeeded(client, world, 60.0)
    for _ in range(2):
        running(world, create(client, world)["id"])
    assert create(client, world)["eta_s"] == 30.0 + 60.0
    assert create(client, world)["eta_s"] == 30.0 + 30.0 + 60.0


def test_a_profile_that_never_succeeded_and_an_empty_past_tell_nothing(
    client: Any, world: World
) -> None:
    assert create(client, world)["eta_s"] is None
    succeeded(client, world, 60.0, profile="quick")
    assert create(client, world, profile="paper")["eta_s"] is None


def test_another_tag_for_another_guess(client: Any, world: World) -> None:
    url = create(client, world)["urls"]["self"]
    tag = client.get(url).headers["etag"]
    succeeded(client, world, 60.0)
    assert client.get(url).headers["etag"] != tag


def test_a_tenant_with_many_jobs_is_not_in_the_way(app: FastAPI, client: Any, world: World) -> None:
    many, _ = tenant(app, "many")
    for _ in range(5):
        rows.add_job(world.database, tenant_id=many, queue="cpu.default")
    assert create(client, world)["queue_position"] == 1
