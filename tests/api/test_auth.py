"""Which keys open, and for how long. Every route with every kind of key: tests/security."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import update

from api.known_keys import MOST, TRUSTED_S, KnownKeys
from api.principal import Principal
from store.database import database_now
from store.tables import ApiKey
from tests.api.conftest import client_of


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


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> float:
    """No time passes for keys that are known."""
    now = time.monotonic()
    monkeypatch.setattr("api.known_keys.time.monotonic", lambda: now)
    return now


@pytest.mark.usefixtures("stopped_clock")
def test_a_wrong_key_is_never_trusted() -> None:
    known = KnownKeys()
    known.trust("cst_good", ANYONE, generation=known.generation)
    assert known.principal_of("cst_good") == ANYONE
    assert known.principal_of("cst_wrong") is None


@pytest.mark.usefixtures("stopped_clock")
def test_the_keys_that_are_kept_are_bounded() -> None:
    known = KnownKeys()
    for number in range(MOST + 1):
        known.trust(f"cst_{number}", ANYONE, generation=known.generation)
    assert known.principal_of("cst_0") is None
    assert known.principal_of(f"cst_{MOST}") == ANYONE


def test_a_key_is_trusted_no_longer_than_it_is_good(
    stopped_clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownKeys()
    known.trust("cst_good", ANYONE, generation=known.generation, good_for_s=1.0)
    assert known.principal_of("cst_good") == ANYONE
    monkeypatch.setattr("api.known_keys.time.monotonic", lambda: stopped_clock + 1.0)
    assert known.principal_of("cst_good") is None


def test_a_key_that_is_forgotten_during_a_look_up_is_not_trusted_after_it() -> None:
    known = KnownKeys()
    begun = known.generation
    known.forget(ANYONE.key_id)
    known.trust("cst_good", ANYONE, generation=begun)
    assert known.principal_of("cst_good") is None


def test_a_key_that_is_forgotten_while_it_is_kept_is_not_trusted_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, clock = KnownKeys(), time.monotonic
    forgetting = threading.Thread(target=known.forget, args=[ANYONE.key_id])

    def forgotten_meanwhile() -> float:
        forgetting.start()
        forgetting.join(0.1)  # it waits until the key is kept, or was done before
        return clock()

    monkeypatch.setattr("api.known_keys.time.monotonic", forgotten_meanwhile)
    known.trust("cst_good", ANYONE, generation=known.generation)
    forgetting.join()
    monkeypatch.undo()
    assert known.principal_of("cst_good") is None


def test_a_revoked_key_is_refused(client: Any, app: FastAPI) -> None:
    with app.state.services.database.writing() as session:
        session.execute(update(ApiKey).values(revoked_at=database_now(session)))
    response = client.get("/v1/jobs")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
