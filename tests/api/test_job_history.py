"""Events, metrics, logs and artifacts of a job."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from store.leases import Lease, give_back
from store.records import MetricPoint, record_event, record_log, record_metrics
from tests.api.test_jobs import create, running
from tests.api.world import World
from tests.support import rows


@pytest.fixture
def job_id(client: Any, world: World) -> str:
    return str(create(client, world)["id"])


@pytest.fixture
def lease(world: World, job_id: str) -> Lease:
    return running(world, job_id)


def test_events_are_numbered_without_a_gap(
    client: Any, world: World, job_id: str, lease: Lease
) -> None:
    with world.database.writing() as session:
        record_event(session, lease, "ranks.chosen", {"layers": 7})
    page = client.get(f"/v1/jobs/{job_id}/events").json()
    assert [event["seq"] for event in page["data"]] == [1, 2, 3]
    types = [event["type"] for event in page["data"]]
    assert types == ["job.queued", "job.running", "ranks.chosen"]
    assert page["data"][2]["data"] == {"layers": 7}
    assert (page["first_id"], page["last_id"], page["has_more"]) == (1, 3, False)


def test_events_go_on_behind_a_number(client: Any, job_id: str, lease: Lease) -> None:
    first = client.get(f"/v1/jobs/{job_id}/events?limit=1").json()
    assert (first["last_id"], first["has_more"]) == (1, True)
    rest = client.get(f"/v1/jobs/{job_id}/events", params={"after": first["last_id"]}).json()
    assert [event["seq"] for event in rest["data"]] == [2]
    end = client.get(f"/v1/jobs/{job_id}/events?after=2").json()
    assert (end["data"], end["first_id"], end["last_id"]) == ([], None, None)


def test_metrics_are_found_by_name_and_phase(
    client: Any, world: World, job_id: str, lease: Lease
) -> None:
    points = [
        MetricPoint(phase, name, step, step / 4)
        for phase in ("admm", "finetune")
        for step in (1, 2)
        for name in ("loss", "gap")
    ]
    with world.database.writing() as session:
        record_metrics(session, lease, points)
    path = f"/v1/jobs/{job_id}/metrics"
    assert client.get(path).json()["last_id"] == len(points)
    found = client.get(path, params={"name": "gap", "phase": "admm"}).json()["data"]
    assert [(m["seq"], m["step"], m["value"]) for m in found] == [(2, 1, 0.25), (4, 2, 0.5)]
    page = client.get(path, params={"name": "loss", "after": 3, "limit": 1}).json()
    assert ([m["seq"] for m in page["data"]], page["has_more"]) == ([5], True)


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=1001", "after=x"])
def test_a_page_out_of_range_is_refused(client: Any, job_id: str, query: str) -> None:
    for path in ("events", "metrics"):
        response = client.get(f"/v1/jobs/{job_id}/{path}?{query}")
        assert response.json()["code"] == "invalid_request"


def test_logs_have_every_attempt_in_order(
    client: Any, world: World, job_id: str, lease: Lease
) -> None:
    with world.database.writing() as session:
        record_log(session, lease, "one\ntwo\n")
        assert give_back(session, lease)
    again = rows.claim(world.database, job_id)
    with world.database.writing() as session:
        record_log(session, again, "three")
    response = client.get(f"/v1/jobs/{job_id}/logs")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.splitlines() == [
        "==> attempt 1 on worker-1: released",
        "one",
        "two",
        "==> attempt 2 on worker-1: not ended",
        "three",
    ]
    tail = client.get(f"/v1/jobs/{job_id}/logs?tail=1").text
    assert tail == "three\n"


def test_a_job_nobody_took_has_an_empty_log(client: Any, job_id: str) -> None:
    assert client.get(f"/v1/jobs/{job_id}/logs").text == ""


def test_artifacts_appear_when_the_job_has_succeeded(
    client: Any, world: World, job_id: str, lease: Lease
) -> None:
    path = f"/v1/jobs/{job_id}/artifacts"
    assert client.get(path).json() == {"data": []}
    world.finish(lease, ("report.json", b"{}"), ("model.safetensors", b"weights"))
    model, report = client.get(path).json()["data"]
    assert (model["filename"], report["filename"]) == ("model.safetensors", "report.json")
    assert (model["bytes"], model["kind"]) == (7, "checkpoint")
    assert model["sha256"] == hashlib.sha256(b"weights").hexdigest()
    download = client.get(model["url"])
    assert download.content == b"weights"
    assert 'filename="model.safetensors"' in download.headers["content-disposition"]
    assert client.head(model["url"]).headers["etag"] == f'"{model["sha256"]}"'


def test_an_artifact_without_bytes_can_be_had(
    client: Any, world: World, job_id: str, lease: Lease
) -> None:
    world.finish(lease, ("empty.txt", b""))
    url = client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"][0]["url"]
    assert (client.get(url).status_code, client.get(url).content) == (200, b"")
    assert client.get(url, headers={"Range": "bytes=0-"}).status_code == 416
