"""A request with an `Idempotency-Key` is carried out once, however often it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update

from api.errors import ModelNotReady
from api.jobs import service
from store import idempotency
from store.blobs import BlobStore
from store.database import Database, database_now
from store.keys import create_key
from store.states import JobState, Status
from store.tables import Dataset, IdempotencyKey, Job, Model
from tests.api.world import AS_CHECKPOINT, AS_DATASET, MODEL, World, archive
from tests.support import rows
from tests.support.server import SECRET, serving
from tests.support.threads import PATIENCE_S

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
PARALLEL = 20


def count(world: World, table: type[Any]) -> int:
    with world.database.reading() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def file_of(client: Any, query: dict[str, str]) -> str:
    identifier: str = client.put("/v1/files", content=archive(), params=query).json()["id"]
    return identifier


def model_request(client: Any, _world: World) -> tuple[str, Any]:
    return "/v1/models", MODEL | {"file_id": file_of(client, AS_CHECKPOINT)}


def dataset_request(client: Any, _world: World) -> tuple[str, Any]:
    return "/v1/datasets", {"name": "digits", "file_id": file_of(client, AS_DATASET)}


def job_request(_client: Any, world: World) -> tuple[str, Any]:
    return "/v1/jobs", world.job_body()


def plan_request(_client: Any, world: World) -> tuple[str, Any]:
    return "/v1/plans", world.plan_body()


def retry_request(client: Any, world: World) -> tuple[str, Any]:
    job_id = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    world.bring(job_id, JobState.FAILED)
    return f"/v1/jobs/{job_id}/retry", None


@pytest.mark.parametrize(
    "request_of", [model_request, dataset_request, job_request, plan_request, retry_request]
)
def test_a_repeated_request_gets_the_first_answer_and_makes_nothing(
    client: Any, world: World, request_of: Callable[[Any, World], tuple[str, Any]]
) -> None:
    path, body = request_of(client, world)
    first = client.post(path, json=body, headers=KEY)
    before = [count(world, table) for table in (Model, Dataset, Job)]
    again = client.post(path, json=body, headers=KEY)
    assert first.status_code == again.status_code == 202
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert [count(world, table) for table in (Model, Dataset, Job)] == before


def test_without_a_key_every_request_makes_something(client: Any, world: World) -> None:
    body = world.job_body()
    ids = {client.post("/v1/jobs", json=body).json()["id"] for _ in range(2)}
    assert len(ids) == 2


def test_another_key_makes_another_job(client: Any, world: World) -> None:
    body = world.job_body()
    for key in ("one", "two"):
        client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
    assert count(world, Job) == 2


def test_the_answer_is_that_of_then_even_if_the_job_has_moved_on(client: Any, world: World) -> None:
    body = world.job_body()
    job = client.post("/v1/jobs", json=body, headers=KEY).json()
    world.bring(job["id"], JobState.SUCCEEDED)
    assert client.post("/v1/jobs", json=body, headers=KEY).json() == job


def test_a_plan_that_was_asked_for_again_is_answered_as_it_is_now(
    client: Any, world: World
) -> None:
    body = world.plan_body()
    plan = client.post("/v1/plans", json=body, headers=KEY).json()
    world.finish_plan(plan["id"])
    again = client.post("/v1/plans", json=body, headers=KEY)
    assert (again.status_code, again.json()["status"]) == (201, "ready")
    assert again.json()["id"] == plan["id"]
    assert again.headers["idempotency-replayed"] == "true"


def test_members_in_another_order_are_the_same_body(client: Any, world: World) -> None:
    body = world.job_body()
    first = client.post("/v1/jobs", json=body, headers=KEY)
    again = client.post("/v1/jobs", json=dict(reversed(body.items())), headers=KEY)
    assert again.json() == first.json()


@pytest.mark.parametrize("change", ["body", "path"])
def test_another_request_with_the_same_key_is_refused(
    client: Any, world: World, change: str
) -> None:
    body = world.job_body()
    client.post("/v1/jobs", json=body, headers=KEY)
    if change == "body":
        other = client.post("/v1/jobs", json=body | {"seed": 1}, headers=KEY)
    else:
        other = client.post("/v1/plans", json=world.plan_body(), headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert count(world, Job) == 1


def test_a_key_belongs_to_its_tenant(client: Any, stranger: Any, world: World) -> None:
    client.post("/v1/jobs", json=world.job_body(), headers=KEY)
    body = {"name": "digits", "file_id": file_of(stranger, AS_DATASET)}
    assert stranger.post("/v1/datasets", json=body, headers=KEY).status_code == 202


def test_a_refused_request_leaves_its_key_free(client: Any, world: World) -> None:
    body = world.job_body(model_id=world.model(status=Status.VALIDATING))
    refused = client.post("/v1/jobs", json=body, headers=KEY)
    assert refused.json()["code"] == ModelNotReady.code
    with world.database.writing() as session:
        session.execute(update(Model).values(status=Status.READY))
    assert client.post("/v1/jobs", json=body, headers=KEY).status_code == 202


def test_a_failed_request_leaves_nothing_and_its_key_free(
    client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError

    body = world.job_body()
    with monkeypatch.context() as patch:
        patch.setattr(service, "documents", broken)  # the job has been written by then
        assert client.post("/v1/jobs", json=body, headers=KEY).status_code == 500
    assert (count(world, Job), count(world, IdempotencyKey)) == (0, 0)
    assert client.post("/v1/jobs", json=body, headers=KEY).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
def test_a_key_that_is_none_is_pointed_at(client: Any, world: World, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    response = client.post("/v1/jobs", json=world.job_body(), headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "Idempotency-Key"


def age(database: Database, hours: float) -> None:
    with database.writing() as session:
        then = database_now(session) - timedelta(hours=hours)
        session.execute(update(IdempotencyKey).values(created_at=then))


def test_a_key_is_free_again_after_a_day(client: Any, world: World) -> None:
    body = world.job_body()
    first = client.post("/v1/jobs", json=body, headers=KEY).json()
    age(world.database, 23.9)
    assert client.post("/v1/jobs", json=body, headers=KEY).json() == first
    age(world.database, 24.1)
    assert client.post("/v1/jobs", json=body, headers=KEY).json()["id"] != first["id"]


def test_old_keys_are_swept_and_no_others(database: Database) -> None:
    tenant_id = rows.add_tenant(database)
    for key, hours in (("old", 25.0), ("young", 1.0)):
        with database.writing() as session:
            idempotency.claim(session, tenant_id=tenant_id, key=key, fingerprint="f")
            row = session.get_one(IdempotencyKey, (tenant_id, key))
            row.created_at = database_now(session) - timedelta(hours=hours)
    with database.writing() as session:
        assert idempotency.sweep(session) == 1
    with database.reading() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["young"]


def test_a_first_request_that_takes_long_is_not_waited_for(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "PATIENCE_MS", 50)
    tenant_id = rows.add_tenant(postgresql_database)
    place = {"tenant_id": tenant_id, "key": "k", "fingerprint": "f"}
    with postgresql_database.writing() as first:
        assert idempotency.claim(first, **place) is None
        with pytest.raises(idempotency.InProgress), postgresql_database.writing() as second:
            idempotency.claim(second, **place)


def test_the_second_takes_over_when_the_first_is_undone(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "PATIENCE_MS", 60_000)
    tenant_id = rows.add_tenant(postgresql_database)
    place = {"tenant_id": tenant_id, "key": "k", "fingerprint": "f"}
    claimed = threading.Event()

    def first() -> None:
        with postgresql_database.writing() as session:
            idempotency.claim(session, **place)
            claimed.set()
            session.rollback()

    with ThreadPoolExecutor() as pool:
        undone = pool.submit(first)
        assert claimed.wait(PATIENCE_S)
        with postgresql_database.writing() as session:
            assert idempotency.claim(session, **place) is None
        undone.result()


def test_a_request_in_progress_is_a_409_to_send_again(
    client: Any, app: FastAPI, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any, **__: Any) -> None:
        raise idempotency.InProgress

    monkeypatch.setattr(idempotency, "claim", busy)
    response = client.post("/v1/jobs", json=world.job_body(), headers=KEY)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_in_progress")
    assert "retry-after" in response.headers


def post(address: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    """Post a job as a client does: one that is in progress is asked for again."""
    while True:
        answer = httpx.post(f"{address}/v1/jobs", json=body, headers=headers, timeout=60.0)
        if answer.status_code != httpx.codes.CONFLICT:
            return answer


@pytest.fixture
def fresh(database: Database, tmp_path: Path) -> tuple[World, dict[str, str]]:
    """What a new tenant has on a database of each kind, and its key."""
    tenant_id = rows.add_tenant(database)
    with database.writing() as session:
        key = create_key(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    world = World(database, BlobStore((tmp_path / "blobs").as_uri()), tenant_id)
    return world, {"Authorization": f"Bearer {key}"}


def test_twenty_parallel_posts_with_one_key_make_one_job(
    fresh: tuple[World, dict[str, str]], tmp_path: Path
) -> None:
    world, headers = fresh
    body = world.job_body()
    with serving(world.database, tmp_path) as (address, _), ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(pool.map(lambda _: post(address, body, headers | KEY), range(PARALLEL)))
        others = list(
            pool.map(
                lambda n: post(address, body, headers | {"Idempotency-Key": str(n)}),
                range(PARALLEL),
            )
        )
    assert {answer.status_code for answer in answers + others} == {202}
    assert len({answer.content for answer in answers}) == 1
    replayed = ["idempotency-replayed" in answer.headers for answer in answers]
    assert sorted(replayed) == [False] + [True] * (PARALLEL - 1)
    assert len({answer.json()["id"] for answer in others}) == PARALLEL
    assert count(world, Job) == 1 + PARALLEL
