"""Who may ask, and what a tenant never sees of another."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import update

from api.known_keys import MOST, TRUSTED_S, KnownKeys
from api.main import app as described
from api.principal import Principal
from store.database import database_now
from store.states import JobState
from store.tables import ApiKey
from tests.api.conftest import client_of
from tests.api.world import World

OPEN = {"/errors", "/errors/{code}", "/healthz", "/metrics", "/readyz", "/version"}
OPERATIONS = [
    (method.upper(), path)
    for path, operations in described.openapi()["paths"].items()
    for method in operations
    if path not in OPEN
]
OF_ONE = [(method, path) for method, path in OPERATIONS if "{" in path]


def ask(client: Any, method: str, path: str) -> Any:
    query = {"filename": "x", "purpose": "dataset"} if method == "PUT" else {}
    return client.request(method, path, params=query)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_needs_a_key(anonymous: Any, method: str, path: str) -> None:
    response = ask(anonymous, method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    if method != "HEAD":
        assert response.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("path", sorted(OPEN))
def test_the_operator_needs_no_key(anonymous: Any, path: str) -> None:
    assert anonymous.get(path.format(code="not_found")).status_code == 200


@pytest.mark.parametrize("value", ["Bearer cst_wrong", "Bearer \xe9", "Basic dTpw", "Bearer"])
def test_a_wrong_key_is_refused(app: FastAPI, value: str) -> None:
    headers = {"Authorization": value.encode("latin-1")}
    response = client_of(app, {}).get("/v1/jobs", headers=headers)
    assert response.json()["code"] == "unauthenticated"


def test_a_key_that_is_revoked_while_in_use_is_refused_a_moment_later(
    client: Any, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/v1/jobs").status_code == 200
    with app.state.services.database.writing() as session:
        session.execute(update(ApiKey).values(revoked_at=database_now(session)))
    later = time.monotonic() + TRUSTED_S
    monkeypatch.setattr("api.known_keys.time.monotonic", lambda: later)
    assert client.get("/v1/jobs").status_code == 401


ANYONE = Principal("tnt_1", "key_1", frozenset({"*"}))


def test_a_wrong_key_is_never_trusted() -> None:
    known = KnownKeys()
    known.trust("cst_good", ANYONE, generation=known.generation)
    assert known.principal_of("cst_good") == ANYONE
    assert known.principal_of("cst_wrong") is None


def test_the_keys_that_are_kept_are_bounded() -> None:
    known = KnownKeys()
    for number in range(MOST + 1):
        known.trust(f"cst_{number}", ANYONE, generation=known.generation)
    assert known.principal_of("cst_0") is None
    assert known.principal_of(f"cst_{MOST}") == ANYONE


def test_a_key_is_trusted_no_longer_than_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownKeys()
    known.trust("cst_good", ANYONE, generation=known.generation, good_for_s=1.0)
    later = time.monotonic() + 1.0
    monkeypatch.setattr("api.known_keys.time.monotonic", lambda: later)
    assert known.principal_of("cst_good") is None


def test_a_key_that_is_forgotten_during_a_look_up_is_not_trusted_after_it() -> None:
    known = KnownKeys()
    begun = known.generation
    known.forget(ANYONE.key_id)
    known.trust("cst_good", ANYONE, generation=begun)
    assert known.principal_of("cst_good") is None


def test_a_revoked_key_is_refused(client: Any, app: FastAPI) -> None:
    with app.state.services.database.writing() as session:
        session.execute(update(ApiKey).values(revoked_at=database_now(session)))
    response = client.get("/v1/jobs")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


@pytest.fixture
def things(client: Any, world: World) -> dict[str, str]:
    """One of each thing a path can name, all of the owner."""
    job_id = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    found = {"job_id": job_id, "model_id": world.model(), "dataset_id": world.dataset()}
    found["file_id"] = client.get("/v1/files").json()["data"][0]["id"]
    done = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    lease = world.bring(done, JobState.RUNNING)
    assert lease is not None
    world.finish(lease, ("model.safetensors", b"weights"))
    artifacts = client.get(f"/v1/jobs/{done}/artifacts").json()["data"]
    found["plan_id"] = client.post("/v1/plans", json=world.plan_body()).json()["id"]
    several = world.job_body(ratios=[2.0], targets={"robustness": {"epsilon": 0.1}})
    found["sweep_id"] = client.post("/v1/sweeps", json=several).json()["id"]
    assert client.put(f"/v1/models/{found['model_id']}/aliases/production").status_code == 200
    return found | {"artifact_id": artifacts[0]["id"], "alias": "production"}


@pytest.mark.parametrize(("method", "path"), OF_ONE)
def test_what_another_tenant_owns_is_not_there(
    stranger: Any, client: Any, things: dict[str, str], method: str, path: str
) -> None:
    named = path.format(**things)
    assert ask(stranger, method, named).status_code == 404
    assert ask(client, method, named).status_code != 404


@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/models", "/v1/datasets", "/v1/plans", "/v1/jobs"]
)
def test_a_list_has_the_tenants_own_things_only(
    stranger: Any, client: Any, things: dict[str, str], path: str
) -> None:
    assert client.get(path).json()["data"]
    assert stranger.get(path).json()["data"] == []


@pytest.mark.parametrize("noun", ["job", "plan"])
def test_a_body_cannot_name_what_another_tenant_owns(
    stranger: Any, world: World, things: dict[str, str], noun: str
) -> None:
    bodies = {
        "job": world.job_body(model_id=things["model_id"], dataset_id=things["dataset_id"]),
        "plan": world.plan_body(model_id=things["model_id"]),
    }
    problem = stranger.post(f"/v1/{noun}s", json=bodies[noun]).json()
    assert (problem["status"], problem["errors"][0]["pointer"]) == (404, "/model_id")
