"""What a tenant may have holds, also when many ask at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from store import quotas
from store.database import Database
from store.settings import Settings
from store.states import JobState
from store.tables import Tenant
from tests.api.world import AS_DATASET, MODEL, World, archive
from tests.security.objects import UPLOAD
from tests.support.threads import at_once

PARALLEL = 12


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Of both databases: what makes parallel requests wait for each other differs."""
    database: Database = request.getfixturevalue(f"{request.param}_database")
    url = database.engine.url.render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": url})


@pytest.fixture
def limit(world: World) -> Iterator[Any]:
    """A function that gives the owner limits of its own."""

    def limited(**limits: int | None) -> None:
        with world.database.writing() as session:
            quotas.set_limits(session.get_one(Tenant, world.tenant_id), limits)

    return limited


def test_of_parallel_jobs_as_many_are_taken_as_there_may_be(
    client: Any, world: World, limit: Any
) -> None:
    limit(jobs=5)
    body = world.job_body()
    answers = at_once([lambda: client.post("/v1/jobs", json=body) for _ in range(PARALLEL)])
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [403] * (PARALLEL - 5)
    assert client.get("/v1/usage").json()["jobs"] == {"used": 5, "limit": 5}


def test_of_parallel_uploads_as_many_are_taken_as_there_is_room_for(
    client: Any, world: World, limit: Any
) -> None:
    size = len(archive("0"))
    limit(bytes=3 * size)

    def upload(text: str) -> Any:
        return client.put("/v1/files", params=AS_DATASET, content=archive(text))

    answers = at_once([lambda n=n: upload(str(n)) for n in range(8)])
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 5
    assert client.get("/v1/usage").json()["bytes"] == {"used": 3 * size, "limit": 3 * size}


def test_what_is_being_uploaded_in_parts_counts_from_its_beginning(
    client: Any, world: World, limit: Any
) -> None:
    content = archive("a")
    size = len(content)
    limit(bytes=size)
    announced = UPLOAD | {"bytes": size, "sha256": hashlib.sha256(content).hexdigest()}
    upload = client.post("/v1/uploads", json=announced).json()
    refused = client.post("/v1/uploads", json=announced | {"sha256": "ab" * 32}).json()
    assert (refused["code"], refused["quota"]) == ("quota_exceeded", "bytes")
    client.put(upload["urls"]["part"].replace("{number}", "1"), content=content)
    assert client.post(upload["urls"]["complete"]).status_code == 200
    assert client.get("/v1/usage").json()["bytes"] == {"used": size, "limit": size}


def test_a_refusal_says_which_limit_how_much_there_is_and_what_to_do(
    client: Any, world: World, limit: Any
) -> None:
    limit(jobs=1)
    body = world.job_body()
    job = client.post("/v1/jobs", json=body).json()["id"]
    problem = client.post("/v1/jobs", json=body).json()
    assert problem["code"] == "quota_exceeded"
    assert [problem[name] for name in ("quota", "used", "limit")] == ["jobs", 1, 1]
    assert "cancel one" in problem["detail"]
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_each_thing_has_its_limit(client: Any, world: World, limit: Any) -> None:
    file = client.put("/v1/files", params=AS_DATASET, content=archive()).json()["id"]
    model = client.put(
        "/v1/files", params={"filename": "a.pt", "purpose": "checkpoint"}, content=archive("b")
    )
    client.post("/v1/jobs", json=world.job_body())
    client.post("/v1/uploads", json=UPLOAD)
    limit(models=1, datasets=1, uploads=1, keys=1, jobs=1)
    requests = {
        "models": ("/v1/models", MODEL | {"file_id": model.json()["id"]}),
        "datasets": ("/v1/datasets", {"name": "digits", "file_id": file}),
        "uploads": ("/v1/uploads", UPLOAD),
        "keys": ("/v1/api-keys", {"name": "x", "scopes": ["*"]}),
        "jobs": ("/v1/plans", world.plan_body()),
    }
    for name, (path, body) in requests.items():
        problem = client.post(path, json=body).json()
        assert (problem["code"], problem["quota"]) == ("quota_exceeded", name)


def test_a_job_is_refused_when_the_artifacts_of_others_took_the_room(
    client: Any, world: World, limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.quotas.STORED_KNOWN_S", 0.0)
    body = world.job_body()
    lease = world.bring(client.post("/v1/jobs", json=body).json()["id"], JobState.RUNNING)
    assert lease is not None
    world.finish(lease, ("model.safetensors", b"weights" * 100))
    limit(bytes=500)
    assert client.post("/v1/jobs", json=body).json()["quota"] == "bytes"


def test_a_sweep_is_all_of_its_jobs_or_none(client: Any, world: World, limit: Any) -> None:
    limit(jobs=2)
    targets = {"robustness": {"epsilon": 0.1}}
    body = world.job_body(ratios=[2.0, 3.0, 4.0], targets=targets)
    assert client.post("/v1/sweeps", json=body).json()["quota"] == "jobs"
    assert client.get("/v1/usage").json()["jobs"]["used"] == 0
    assert client.post("/v1/sweeps", json=body | {"ratios": [2.0, 3.0]}).status_code == 202


def test_a_plan_that_is_there_is_given_whatever_the_limit(
    client: Any, world: World, limit: Any
) -> None:
    body = world.plan_body()
    first = client.post("/v1/plans", json=body).json()["id"]
    limit(jobs=1)
    assert client.post("/v1/plans", json=body).json()["id"] == first


def test_the_limits_of_one_tenant_are_not_those_of_another(
    app: FastAPI, client: Any, stranger: Any, limit: Any
) -> None:
    limit(jobs=7, models=0)
    own, other = client.get("/v1/usage").json(), stranger.get("/v1/usage").json()
    assert (own["jobs"]["limit"], own["models"]["limit"]) == (7, None)
    assert other["jobs"]["limit"] == app.state.services.settings.quota_jobs


def test_a_limit_of_its_own_can_be_taken_back(client: Any, limit: Any) -> None:
    usual = client.get("/v1/usage").json()["jobs"]["limit"]
    limit(jobs=7)
    limit(jobs=None)
    assert client.get("/v1/usage").json()["jobs"]["limit"] == usual


def test_what_was_deleted_no_longer_counts(client: Any, world: World, limit: Any) -> None:
    limit(models=1, datasets=1)
    subjects = {"model": world.model(), "dataset": world.dataset()}
    for noun, subject in subjects.items():
        assert client.get("/v1/usage").json()[f"{noun}s"]["used"] == 1
        assert client.delete(f"/v1/{noun}s/{subject}").status_code == 204
        assert client.get("/v1/usage").json()[f"{noun}s"]["used"] == 0


def test_a_registered_model_counts_once(client: Any, world: World, limit: Any) -> None:
    first, second = world.compress(client), world.compress(client)
    limit(models=3)  # two are the parents
    urls = [f"/v1/jobs/{job_id}/model" for job_id in (first, second)]
    assert client.post(urls[0]).status_code == 201
    assert client.post(urls[0]).status_code == 200
    assert client.post(urls[1]).json()["code"] == "quota_exceeded"
