"""`/v1/api-keys`: made, listed without their text, rotated, revoked."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.last_used import _write
from store.keys import issue
from store.tables import ApiKey
from tests.api.conftest import SECRET, client_of
from tests.api.world import World

PATH = "/v1/api-keys"
READER = {"name": "reader", "scopes": ["jobs:read"]}


def made(client: Any, **fields: Any) -> dict[str, Any]:
    answer = client.post(PATH, json=READER | fields)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def holder(app: FastAPI, document: dict[str, Any]) -> Any:
    return client_of(app, {"Authorization": f"Bearer {document['key']}"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time of the database and of this process, which only a test moves."""
    now, monotonic = datetime.now(UTC), time.monotonic()
    moved = SimpleNamespace(by_s=0.0)
    monkeypatch.setattr("store.database._clock", lambda _: now + timedelta(seconds=moved.by_s))
    monkeypatch.setattr("api.known_keys.time.monotonic", lambda: monotonic + moved.by_s)
    return moved


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_new_key_does_what_it_is_for_and_no_more(client: Any, app: FastAPI) -> None:
    document = made(client)
    reader = holder(app, document)
    assert reader.get("/v1/jobs").status_code == 200
    assert reader.get("/v1/models").status_code == 403
    assert (document["scopes"], document["prefix"]) == (["jobs:read"], document["key"][:10])


def test_the_text_of_a_key_is_told_once(client: Any) -> None:
    document = made(client)
    key = document.pop("key")
    assert client.get(f"{PATH}/{document['id']}").json() == document
    listed = client.get(PATH)
    assert listed.json()["data"][0] == document
    assert key not in listed.text


def test_the_same_request_again_makes_no_second_key_and_tells_no_secret(client: Any) -> None:
    answers = [
        client.post(PATH, json=READER, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    first, second = (answer.json() for answer in answers)
    assert first.pop("key")
    assert second == first
    assert len(client.get(PATH).json()["data"]) == 2  # with the one that asks


def test_a_key_knows_who_made_it_and_when_it_ends(client: Any) -> None:
    own = client.get(PATH).json()["data"][0]["id"]
    document = made(client, expires_in_s=3600)
    assert document["created_by"] == own
    lasts = moment(document["expires_at"]) - moment(document["created_at"])
    assert lasts == timedelta(hours=1)


def test_a_key_that_has_expired_is_refused_at_once_although_it_was_just_used(
    client: Any, app: FastAPI, clock: SimpleNamespace
) -> None:
    document = made(client, expires_in_s=3)
    reader = holder(app, document)
    assert reader.get("/v1/jobs").status_code == 200
    clock.by_s = 3.0
    refused = reader.get("/v1/jobs")
    assert (refused.status_code, "expired" in refused.json()["detail"]) == (401, True)


def test_a_key_cannot_give_what_it_has_not(client: Any, app: FastAPI) -> None:
    maker = holder(app, made(client, scopes=["keys:write", "jobs:read"]))
    assert made(maker)["scopes"] == ["jobs:read"]
    for beyond in ("models:read", "*"):
        refused = maker.post(PATH, json=READER | {"scopes": ["jobs:read", beyond]})
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert refused.json()["errors"][0]["pointer"] == "/scopes/1"


def test_a_key_cannot_rotate_one_that_may_do_more(client: Any, app: FastAPI) -> None:
    maker = holder(app, made(client, scopes=["keys:write"]))
    strong = client.get(PATH).json()["data"][-1]["id"]
    assert maker.post(f"{PATH}/{strong}/rotate").json()["code"] == "insufficient_scope"


class TestOfAKeyThatEnds:
    """What a key with an end can make ends with it."""

    @pytest.fixture
    def ending(self, client: Any) -> dict[str, Any]:
        return made(client, scopes=["keys:write", "keys:read", "jobs:read"], expires_in_s=3600)

    @pytest.fixture
    def maker(self, app: FastAPI, ending: dict[str, Any]) -> Any:
        return holder(app, ending)

    def test_a_key_ends_with_the_one_that_made_it(self, maker: Any, ending: dict[str, Any]) -> None:
        assert made(maker)["expires_at"] == ending["expires_at"]
        assert made(maker, expires_in_s=60)["expires_at"] < ending["expires_at"]

    def test_a_key_that_would_outlive_it_is_refused(
        self, maker: Any, ending: dict[str, Any]
    ) -> None:
        before = maker.get(PATH).json()["data"]
        refused = maker.post(PATH, json=READER | {"expires_in_s": 3601})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        [fault] = refused.json()["errors"]
        assert fault["pointer"] == "/expires_in_s"
        assert f"{moment(ending['expires_at']):%Y-%m-%d %H:%M:%S} UTC" in fault["detail"]
        assert maker.get(PATH).json()["data"] == before

    @pytest.mark.parametrize("overlap_s", [0, 60])
    def test_rotating_itself_it_gets_no_more_time(
        self, maker: Any, ending: dict[str, Any], overlap_s: int
    ) -> None:
        path = f"{PATH}/{ending['id']}/rotate"
        assert (
            maker.post(path, json={"overlap_s": overlap_s}).json()["expires_at"]
            == (ending["expires_at"])
        )

    def test_nor_by_rotating_a_key_that_has_no_end(
        self, client: Any, maker: Any, ending: dict[str, Any]
    ) -> None:
        endless = made(client)
        assert endless["expires_at"] is None
        new = maker.post(f"{PATH}/{endless['id']}/rotate").json()
        assert new["expires_at"] == ending["expires_at"]

    def test_what_it_made_has_an_end_also_when_it_is_rotated_by_another(
        self, client: Any, maker: Any
    ) -> None:
        new = client.post(f"{PATH}/{made(maker)['id']}/rotate").json()
        assert moment(new["expires_at"]) - moment(new["created_at"]) <= timedelta(hours=1)


@pytest.mark.parametrize("scopes", [["jobs:fly"], ["dreams:read"], ["jobs:read", "x"], []])
def test_a_scope_that_there_is_not_is_refused(client: Any, scopes: list[str]) -> None:
    refused = client.post(PATH, json=READER | {"scopes": scopes})
    assert refused.json()["code"] == "invalid_request"
    pointer = f"/scopes/{len(scopes) - 1}" if scopes else "/scopes"
    assert refused.json()["errors"][0]["pointer"] == pointer


def test_a_key_that_is_revoked_is_refused_at_once_although_it_was_just_used(
    client: Any, app: FastAPI
) -> None:
    document = made(client)
    reader = holder(app, document)
    assert reader.get("/v1/jobs").status_code == 200
    revoked = client.post(f"{PATH}/{document['id']}/revoke").json()
    refused = reader.get("/v1/jobs")
    assert (refused.status_code, "revoked" in refused.json()["detail"]) == (401, True)
    assert client.post(f"{PATH}/{document['id']}/revoke").json() == revoked


@pytest.mark.usefixtures("clock")
def test_a_rotated_key_and_its_successor_both_work_meanwhile(client: Any, app: FastAPI) -> None:
    old = made(client, expires_in_s=7200)
    new = client.post(f"{PATH}/{old['id']}/rotate", json={"overlap_s": 60}).json()
    same = ("name", "scopes")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert new["rotated_from"] == old["id"]
    assert moment(new["expires_at"]) - moment(new["created_at"]) == timedelta(hours=2)
    for document in (old, new):
        assert holder(app, document).get("/v1/jobs").status_code == 200
    ends = moment(client.get(f"{PATH}/{old['id']}").json()["expires_at"])
    assert ends - moment(new["created_at"]) == timedelta(seconds=60)


def test_a_key_may_rotate_itself_and_end_at_once(client: Any, app: FastAPI) -> None:
    old = made(client, scopes=["keys:write"])
    itself = holder(app, old)
    new = itself.post(f"{PATH}/{old['id']}/rotate", json={"overlap_s": 0}).json()
    assert itself.get("/v1/jobs").status_code == 401
    assert holder(app, new).get("/v1/jobs").status_code == 403


@pytest.mark.usefixtures("clock")
def test_a_rotation_lets_the_old_key_go_on_for_a_day(client: Any) -> None:
    old = made(client)
    new = client.post(f"{PATH}/{old['id']}/rotate").json()
    ends = moment(client.get(f"{PATH}/{old['id']}").json()["expires_at"])
    assert ends - moment(new["created_at"]) == timedelta(days=1)


def test_a_key_that_has_ended_is_not_rotated(client: Any) -> None:
    document = made(client)
    client.post(f"{PATH}/{document['id']}/revoke")
    refused = client.post(f"{PATH}/{document['id']}/rotate")
    assert (refused.status_code, refused.json()["code"]) == (409, "key_ended")


def test_when_a_key_was_last_used_is_written_later(client: Any, app: FastAPI) -> None:
    document = made(client)
    holder(app, document).get("/v1/jobs")
    path = f"{PATH}/{document['id']}"
    assert client.get(path).json()["last_used_at"] is None
    app.state.services.last_used.write()
    used = moment(client.get(path).json()["last_used_at"])
    assert used >= moment(document["created_at"])


def test_a_pool_that_has_no_connection_free_does_not_end_the_writing(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted() -> None:
        raise PoolTimeout

    monkeypatch.setattr(app.state.services.last_used, "write", exhausted)
    asyncio.run(_write(app.state.services.last_used))
    assert "was not written" in caplog.text


def test_an_earlier_use_replaces_no_later_one(app: FastAPI, world: World) -> None:
    now = datetime.now(UTC)
    with world.database.writing() as session:
        made = {"tenant_id": world.tenant_id, "name": "x", "secret_key": SECRET}
        row, _ = issue(session, **made)
        session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=now))
    app.state.services.last_used.note(row.id, now - timedelta(hours=1))
    app.state.services.last_used.write()
    with world.database.reading() as session:
        assert session.get_one(ApiKey, row.id).last_used_at == now


def test_refused_keys_are_counted_by_reason(app: FastAPI, client: Any, anonymous: Any) -> None:
    reader = holder(app, made(client))
    reader.get("/v1/models")
    anonymous.get("/v1/jobs")
    client_of(app, {"Authorization": "Bearer cst_wrong"}).get("/v1/jobs")
    text = anonymous.get("/metrics").text
    for reason in ("insufficient_scope", "missing", "malformed"):
        assert f'cstar_auth_failures_total{{reason="{reason}"}} 1.0' in text
