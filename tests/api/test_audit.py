"""Every change leaves an event, in the transaction that makes it; nothing else does."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from fastapi import FastAPI

from store import audit
from store.keys import __main__ as command
from store.settings import Settings
from store.settings import settings as process_settings
from store.tables import AuditEvent, Job
from tests.api.conftest import SECRET, client_of
from tests.api.world import AS_CHECKPOINT, MODEL, World, archive
from tests.support.rows import count

PATH = "/v1/audit-events"


def events(client: Any, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(PATH, params=query).json()["data"]
    return found


def test_an_event_says_who_did_what_to_what_and_in_which_request(client: Any, world: World) -> None:
    answer = client.post("/v1/jobs", json=world.job_body(), headers={"X-Request-Id": "r-1"})
    [event] = events(client)
    own = client.get("/v1/api-keys").json()["data"][0]["id"]
    job = answer.json()["id"]
    expected = {
        "action": "create_job",
        "key_id": own,
        "object_id": job,
        "created": [job],
        "request_id": "r-1",
        "client_address": "testclient",
    }
    assert {name: event[name] for name in expected} == expected


def test_an_endpoint_that_runs_in_a_thread_and_one_that_does_not_both_leave_an_event(
    client: Any, world: World
) -> None:
    file = client.put("/v1/files", params=AS_CHECKPOINT, content=archive()).json()["id"]
    model = client.post("/v1/models", json=MODEL | {"file_id": file}).json()["id"]
    plan = client.post("/v1/plans", json=world.plan_body()).json()["id"]
    told = {event["action"]: event["object_id"] for event in events(client)}
    assert told == {"upload_file": file, "create_model": model, "create_plan": plan}


def test_all_that_was_made_is_told_and_found(client: Any, world: World) -> None:
    first = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    client.post(f"/v1/jobs/{first}/cancel")
    second = client.post(f"/v1/jobs/{first}/retry").json()["id"]
    actions = [event["action"] for event in events(client, object_id=first)]
    assert actions == ["retry_job", "cancel_job", "create_job"]
    [event] = events(client, object_id=second)
    assert (event["action"], event["object_id"], event["created"]) == ("retry_job", first, [second])


def test_a_request_that_is_refused_or_only_looks_leaves_nothing(client: Any, world: World) -> None:
    body = world.job_body()
    client.post("/v1/jobs", json=body | {"model_id": "mdl_none"})
    client.post("/v1/jobs", json={})
    client.get("/v1/jobs")
    assert count(world.database, AuditEvent) == 0


def test_a_request_that_is_answered_again_changes_nothing_and_leaves_nothing(
    client: Any, world: World
) -> None:
    first = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    client.post(f"/v1/jobs/{first}/cancel")
    for _ in range(3):
        client.post(f"/v1/jobs/{first}/retry", headers={"Idempotency-Key": "again"})
    assert len(events(client, action="retry_job")) == 1


def test_a_change_that_breaks_off_leaves_no_event(
    client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = world.job_body()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("api.jobs.service.documents", broken)
    assert client.post("/v1/jobs", json=body).status_code == 500
    assert (count(world.database, AuditEvent), count(world.database, Job)) == (0, 0)


def test_an_event_that_cannot_be_written_undoes_the_change(
    client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = world.job_body()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(audit, "record", broken)
    assert client.post("/v1/jobs", json=body).status_code == 500
    assert count(world.database, Job) == 0


def test_the_same_request_again_leaves_no_second_event(client: Any, world: World) -> None:
    body = world.job_body()
    for _ in range(2):
        client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})
    assert len(events(client)) == 1


def test_the_request_of_one_tenant_is_not_told_to_another(
    client: Any, stranger: Any, world: World
) -> None:
    job = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    assert events(stranger) == events(stranger, object_id=job) == []


def test_events_are_found_by_action_and_key(client: Any, world: World) -> None:
    job = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    own = client.get("/v1/api-keys").json()["data"][0]["id"]
    assert [event["action"] for event in events(client, action="cancel_job")] == ["cancel_job"]
    assert len(events(client, key_id=own)) == 2
    assert events(client, key_id="key_none") == []


def test_what_the_operator_does_is_told_without_a_key(
    app: FastAPI, client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSTAR_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("CSTAR_SECRET_KEY", SECRET)
    process_settings.cache_clear()
    command.main(["create", "--tenant", "owner"])
    process_settings.cache_clear()
    [event] = events(client)
    assert (event["action"], event["key_id"]) == ("create_api_key", None)
    assert event["created"] == [event["object_id"]]


def test_an_address_that_a_proxy_made_up_fits_into_its_column(
    app: FastAPI, client: Any, owner: tuple[str, dict[str, str]]
) -> None:
    far = client_of(app, owner[1], client=("x" * 300, 1))
    assert far.post("/v1/api-keys", json={"name": "a", "scopes": ["*"]}).status_code == 201
    [event] = events(client)
    assert event["client_address"] == "x" * 255


def test_an_upload_in_parts_is_told_when_it_is_completed_not_part_by_part(client: Any) -> None:
    content = archive()
    announced = {
        "filename": "digits.npz",
        "purpose": "dataset",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    upload = client.post("/v1/uploads", json=announced).json()["id"]
    client.put(f"/v1/uploads/{upload}/parts/1", content=content)
    file = client.post(f"/v1/uploads/{upload}/complete").json()["file"]["id"]
    told = [(event["action"], event["created"]) for event in events(client, object_id=upload)]
    begun = ("complete_upload", [])
    assert told == [("complete_upload", [file]), begun, ("create_upload", [upload])]
