"""What the SDK does with the things of the API."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cstar_client import (
    Client,
    DigestError,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotFound,
    Rejected,
    Timeout,
    Unauthenticated,
    lists,
)
from cstar_client.documents import Job
from store.states import JobState, Status
from tests.api.world import INPUT, World, archive
from tests.client.conftest import Access

EPSILON = 8 / 255


def test_a_small_file_is_uploaded_with_progress_and_comes_back(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").write_bytes(archive())
    told: list[tuple[int, int]] = []
    file = client.files.upload(
        tmp_path / "weights.pt",
        purpose="checkpoint",
        on_progress=lambda done, total: told.append((done, total)),
    )

    size = len(archive())
    assert told[-1] == (size, size)
    assert client.files.get(file)["bytes"] == size
    assert client.files.download(file, tmp_path / "back").read_bytes() == archive()
    assert [one["id"] for one in client.files.list()] == [file["id"]]


def test_lists_go_on_over_all_pages(client: Client, world: World) -> None:
    made = [world.model() for _ in range(5)]

    found = lists.rows(client.transport, "/v1/models", limit=2)
    assert [model["id"] for model in found] == made[::-1]


def test_a_model_is_waited_for_until_it_is_ready(client: Client, world: World) -> None:
    model_id = world.model()

    assert client.models.wait(model_id)["status"] == "ready"


def test_a_rejected_data_set_is_an_error_with_the_reasons(client: Client, world: World) -> None:
    reason = {"code": "no_labels", "title": "x", "type": "/x", "detail": "There are no labels."}
    dataset_id = world.dataset(status=Status.REJECTED, reasons=[reason])
    with pytest.raises(Rejected, match="There are no labels") as rejection:
        client.datasets.wait(dataset_id)

    assert rejection.value.reasons[0]["code"] == "no_labels"


def test_what_is_not_ready_in_time_is_a_timeout(client: Client, world: World) -> None:
    model_id = world.model(status=Status.VALIDATING)
    with pytest.raises(Timeout, match=r"still validating after 0\.1 s"):
        client.models.wait(model_id, timeout_s=0.1)


def test_a_model_of_a_file_is_created_as_asked(client: Client, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(archive())
    file = client.files.upload(tmp_path / "weights.pt", purpose="checkpoint")
    model = client.models.create(file, name="small", input=INPUT, num_classes=10)

    assert (model["name"], model["input"], model["file_id"]) == ("small", INPUT, file["id"])


def test_a_job_is_submitted_and_waited_for_with_updates(client: Client, world: World) -> None:
    model, dataset = world.model(), world.dataset()
    job = client.jobs.submit(
        model, dataset, compression={"ratio": 4}, epsilon=EPSILON, seed=7, labels={"team": "a"}
    )
    seen: list[str] = []

    def see(job: Job) -> None:
        if not seen:
            threading.Thread(target=world.bring, args=(job["id"], JobState.SUCCEEDED)).start()
        seen.append(job["status"])

    ended = client.jobs.wait(job, on_update=see)
    assert (seen[0], seen[-1], ended["status"]) == ("queued", "succeeded", "succeeded")
    assert (ended["seed"], ended["labels"]) == (7, {"team": "a"})
    assert [one["id"] for one in client.jobs.list(model=model)] == [job["id"]]


@pytest.mark.parametrize(
    ("state", "error"), [(JobState.FAILED, JobFailed), (JobState.CANCELLED, JobCancelled)]
)
def test_a_job_without_a_result_is_an_error(
    client: Client, world: World, state: JobState, error: type[JobFailed]
) -> None:
    job = client.jobs.create(world.job_body())
    world.bring(job["id"], state)
    with pytest.raises(error) as failure:
        client.jobs.wait(job)

    assert failure.value.job["id"] == job["id"]
    assert client.jobs.wait(job, check=False)["status"] == state


def test_a_job_goes_through_its_actions(client: Client, world: World) -> None:
    job = client.jobs.create(world.job_body())

    assert client.jobs.pause(job)["status"] == "paused"
    assert client.jobs.resume(job)["status"] == "queued"
    assert client.jobs.cancel(job)["status"] == "cancelled"
    assert client.jobs.retry(job)["retried_from"] == job["id"]


def test_a_paused_job_is_still_waited_for(client: Client, world: World) -> None:
    job = client.jobs.create(world.job_body())
    client.jobs.pause(job)
    with pytest.raises(Timeout):
        client.jobs.wait(job, timeout_s=0.1)


def test_all_artifacts_are_saved_under_their_names(
    client: Client, world: World, tmp_path: Path
) -> None:
    job = client.jobs.create(world.job_body())
    lease = world.bring(job["id"], JobState.RUNNING)
    assert lease
    world.finish(lease, ("model.safetensors", b"weights"), ("empty.txt", b""))
    saved = client.jobs.download_all(job, tmp_path / "out")

    assert {name: path.read_bytes() for name, path in saved.items()} == {
        "model.safetensors": b"weights",
        "empty.txt": b"",
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(saved)


def test_an_artifact_with_other_bytes_leaves_nothing(
    client: Client, world: World, tmp_path: Path
) -> None:
    job = client.jobs.create(world.job_body())
    lease = world.bring(job["id"], JobState.RUNNING)
    assert lease
    world.finish(lease, ("model.safetensors", b"weights"))
    (artifact,) = client.jobs.artifacts(job)
    with pytest.raises(DigestError):
        client.jobs.download({**artifact, "sha256": "00" * 32}, tmp_path)

    assert list(tmp_path.glob("model*")) == []


def test_a_plan_is_made_and_waited_for(client: Client, world: World) -> None:
    model_id = world.model()
    plan = client.plans.create(model_id, {"ratio": 4.0})
    world.finish_plan(plan["id"])

    ready = client.plans.wait(plan)
    assert ready["plan"]
    assert [one["id"] for one in client.plans.list(model=model_id)] == [plan["id"]]


def test_a_plan_that_fails_is_an_error_with_the_best(client: Client, world: World) -> None:
    plan = client.plans.create(world.model(), {"max_latency_ms": 1e-6})
    world.fail_plan(plan["id"], best={"max_latency_ms": 0.5})
    with pytest.raises(JobFailed) as failure:
        client.plans.wait(plan)

    assert failure.value.job["error"]["best"] == {"max_latency_ms": 0.5}


def test_a_refusal_has_the_class_of_its_status(
    client: Client, world: World, access: Access
) -> None:
    with pytest.raises(NotFound) as missing:
        client.jobs.get("job_none")
    with pytest.raises(InvalidRequest) as invalid:
        client.jobs.submit(world.model(), world.dataset(), compression={}, epsilon=EPSILON)
    with Client(access.url, "cst_wrong") as stranger, pytest.raises(Unauthenticated):
        next(stranger.jobs.list())

    assert (missing.value.status, missing.value.code) == (404, "not_found")
    assert missing.value.request_id
    assert invalid.value.problem["errors"][0]["pointer"] == "/targets/compression"


def test_workers_are_listed(client: Client) -> None:
    assert client.workers.list() == []
