"""`Prefer: wait`: the answer comes when the thing has settled, or when the time is up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from api import waiting
from store.states import JobState, Status
from store.tables import Dataset, Model
from tests.api.test_jobs import create
from tests.api.world import World


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What happens while a request waits, one call for each of its pauses."""
    calls: list[Callable[[], None]] = []

    async def pause(_seconds: float) -> None:
        calls.pop(0)()

    monkeypatch.setattr(waiting, "pause", pause)
    return calls


def nothing() -> None:
    pass


@pytest.mark.parametrize(("noun", "table"), [("model", Model), ("dataset", Dataset)])
def test_the_answer_waits_for_the_validation(
    client: Any, world: World, pauses: Any, noun: str, table: Any
) -> None:
    subject = getattr(world, noun)(status=Status.VALIDATING)

    def validated() -> None:
        with world.database.writing() as session:
            session.execute(update(table).values(status=Status.READY))

    pauses += [nothing, validated]
    response = client.get(f"/v1/{noun}s/{subject}", headers={"Prefer": "wait=30"})
    assert response.json()["status"] == "ready"
    assert response.headers["preference-applied"] == "wait=30"
    assert pauses == []


def test_the_answer_waits_for_the_end_of_a_job(client: Any, world: World, pauses: Any) -> None:
    job_id = create(client, world)["id"]
    pauses += [nothing, lambda: world.bring(job_id, JobState.SUCCEEDED) and None]
    response = client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "respond-async, wait=30"})
    assert response.json()["state"] == "succeeded"
    assert pauses == []


def test_what_has_settled_is_answered_at_once(client: Any, world: World, pauses: Any) -> None:
    response = client.get(f"/v1/models/{world.model()}", headers={"Prefer": "wait=60"})
    assert response.json()["status"] == "ready"


@pytest.mark.parametrize(
    ("header", "applied"),
    [
        ("wait=0", "wait=0"),
        ("WAIT = 0", "wait=0"),
        ('wait="0"', "wait=0"),
        ("wait=soon", None),
        ("await=30", None),
        ("wait=-1", None),
        ("return=minimal", None),
    ],
)
def test_who_does_not_want_to_wait_does_not(
    client: Any, world: World, pauses: Any, header: str, applied: str | None
) -> None:
    model_id = world.model(status=Status.VALIDATING)
    response = client.get(f"/v1/models/{model_id}", headers={"Prefer": header})
    assert response.json()["status"] == "validating"
    assert response.headers.get("preference-applied") == applied


def test_nobody_waits_longer_than_a_minute(client: Any, world: World) -> None:
    response = client.get(f"/v1/models/{world.model()}", headers={"Prefer": "wait=3600"})
    assert response.headers["preference-applied"] == "wait=60"


def test_waiting_for_a_known_version_ends_in_a_304(client: Any, world: World) -> None:
    url = create(client, world)["urls"]["self"]
    tag = client.get(url).headers["etag"]
    response = client.get(url, headers={"If-None-Match": tag, "Prefer": "wait=0"})
    assert (response.status_code, response.headers["preference-applied"]) == (304, "wait=0")


def test_waiting_for_what_is_not_there_is_a_404(client: Any) -> None:
    assert client.get("/v1/jobs/job_no", headers={"Prefer": "wait=9"}).status_code == 404
