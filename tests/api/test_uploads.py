"""Uploads in parts: any order, in parallel, again; whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import update

from api.errors import PartsMissing
from api.uploads import completion
from store.database import Database, database_now
from store.parts import PartsLost
from store.settings import Settings
from store.tables import Blob, File, Upload
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.api.world import World, archive
from tests.store.places import BUCKET, S3Server, s3_server
from tests.support import rows

PART = 1 << 16
PATIENCE_S = 30.0
CONTENT = archive("".join(random.Random(6).choices("abcdefgh", k=3 * PART)))
COUNT = -(-len(CONTENT) // PART)


@pytest.fixture(scope="module")
def s3() -> Any:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["local disk", "s3"])
def settings(
    request: pytest.FixtureRequest,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Settings:
    """The parts are on each kind of store."""
    if request.param == "local disk":
        return settings
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    return settings.model_copy(update={"blob_url": f"s3://{BUCKET}/{tmp_path.name}"})


@dataclass(frozen=True)
class Sender:
    """A client that uploads `content`."""

    client: Any
    content: bytes = CONTENT

    def begin(self, **fields: Any) -> dict[str, Any]:
        answer = self.ask(**fields)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def ask(self, **fields: Any) -> Any:
        body = {
            "filename": "weights.pt",
            "purpose": "checkpoint",
            "bytes": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "part_bytes": PART,
        }
        return self.client.post("/v1/uploads", json=body | fields)

    def piece(self, number: int) -> bytes:
        return self.content[(number - 1) * PART : number * PART]

    def put(
        self, upload: dict[str, Any], number: int, piece: bytes | None = None, **headers: str
    ) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = upload["urls"]["part"].replace("{number}", str(number))
        content = self.piece(number) if piece is None else piece
        return self.client.put(url, content=content, headers=named)

    def put_all(self, upload: dict[str, Any]) -> None:
        for number in range(1, upload["part_count"] + 1):
            assert self.put(upload, number).status_code == 200

    def look(self, upload: dict[str, Any]) -> dict[str, Any]:
        return dict(self.client.get(upload["urls"]["self"]).json())

    def complete(self, upload: dict[str, Any], **headers: str) -> Any:
        return self.client.post(upload["urls"]["complete"], headers=headers)

    def whole(self) -> dict[str, Any]:
        """Upload everything."""
        upload = self.begin()
        self.put_all(upload)
        answer = self.complete(upload)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
def sender(client: Any) -> Sender:
    return Sender(client)


def names(app: FastAPI, prefix: str) -> list[str]:
    found: list[str] = app.state.services.blobs.names(prefix)
    return found


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_parts_in_any_order_become_the_file(app: FastAPI, client: Any, sender: Sender) -> None:
    upload = sender.begin()
    assert (upload["status"], upload["part_count"]) == ("open", COUNT)
    for number in random.Random(1).sample(range(1, COUNT + 1), COUNT):
        assert sender.put(upload, number, content_digest=digest(sender.piece(number))).is_success
    completed = sender.complete(upload).json()
    file = completed["file"]
    assert (completed["status"], file["filename"], file["bytes"]) == (
        "completed",
        "weights.pt",
        len(CONTENT),
    )
    assert client.get(file["url"]).content == CONTENT
    assert client.get(f"/v1/files/{file['id']}").json() == file
    assert (names(app, "uploads/"), names(app, "staging/")) == ([], [])


def test_parts_may_be_sent_in_parallel(client: Any, sender: Sender) -> None:
    upload = sender.begin()
    with ThreadPoolExecutor(COUNT) as threads:
        answers = list(threads.map(lambda number: sender.put(upload, number), range(1, COUNT + 1)))
    assert [answer.status_code for answer in answers] == [200] * COUNT
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT


def test_an_upload_says_what_has_arrived_and_what_has_not(sender: Sender) -> None:
    upload = sender.begin()
    sent = sender.put(upload, 2)
    sha256 = hashlib.sha256(sender.piece(2)).hexdigest()
    found = sender.look(upload)
    assert sent.json()["sha256"] == sha256
    assert sent.headers["repr-digest"] == digest(sender.piece(2))
    assert found["parts"] == [sent.json()]
    assert found["missing_parts"] == [n for n in range(1, COUNT + 1) if n != 2]


def test_a_part_sent_again_replaces_the_first(client: Any, sender: Sender) -> None:
    upload = sender.begin()
    sender.put(upload, 2, b"x" * PART)
    sender.put_all(upload)
    sender.put_all(upload)
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT


def test_a_completion_that_is_repeated_answers_with_the_same_file(
    sender: Sender, world: World
) -> None:
    upload = sender.whole()
    again = sender.complete(upload)
    assert (again.status_code, again.json()["file"]) == (200, upload["file"])
    assert rows.count(world.database, File) == 1


def test_completions_at_once_make_one_file(sender: Sender, world: World) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: sender.complete(upload), range(4)))
    assert {answer.json()["file"]["id"] for answer in answers} == {
        sender.look(upload)["file"]["id"]
    }
    assert rows.count(world.database, File) == 1


def test_missing_parts_are_listed(sender: Sender) -> None:
    upload = sender.begin()
    sender.put(upload, 1)
    answer = sender.complete(upload)
    assert (answer.status_code, answer.json()["code"]) == (409, "parts_missing")
    assert answer.json()["missing_parts"] == list(range(2, COUNT + 1))


@pytest.mark.parametrize("number", [0, -1, COUNT + 1, 10**20])
def test_a_part_that_there_is_not_is_refused(sender: Sender, number: int) -> None:
    answer = sender.put(sender.begin(), number, b"x" * PART)
    assert (answer.status_code, answer.json()["code"]) == (422, "part_out_of_range")


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART + 1, 3 * PART])
@pytest.mark.parametrize("declared", [True, False])
def test_a_part_of_another_size_is_refused_and_spoils_no_other(
    client: Any, sender: Sender, size: int, declared: bool
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    piece = b"x" * size
    answer = sender.put(upload, 2, piece if declared else iter([piece]))
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_part_size")
    assert answer.json()["expected_bytes"] == PART
    sender.put(upload, 2)
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT


def test_a_part_with_another_digest_is_refused_and_missing(sender: Sender) -> None:
    upload = sender.begin()
    answer = sender.put(upload, 2, content_digest=digest(b"else"))
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert 2 in sender.look(upload)["missing_parts"]


def test_parts_that_are_not_the_file_are_told_apart_from_it_and_can_be_sent_again(
    app: FastAPI, client: Any, sender: Sender, world: World
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    sender.put(upload, 2, b"x" * PART)
    answer = sender.complete(upload)
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert answer.json()["expected_sha256"] == upload["sha256"]
    found = sender.look(upload)
    assert (found["status"], found["failure"]["code"]) == ("open", "digest_mismatch")
    assert rows.count(world.database, Blob) == 0
    sender.put(upload, 2)
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT
    assert names(app, "uploads/") == []


def test_a_file_of_another_format_is_refused_with_its_first_part(sender: Sender) -> None:
    answer = sender.put(sender.begin(), 1, b"text" * (PART // 4))
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_format")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"bytes": 0}, 422, "invalid_request"),
        ({"bytes": MAX_UPLOAD_BYTES + 1}, 413, "too_large"),
        ({"sha256": "AB" * 32}, 422, "invalid_request"),
        ({"sha256": "ab"}, 422, "invalid_request"),
        ({"filename": "../x"}, 422, "invalid_request"),
        ({"filename": "x\0"}, 422, "invalid_request"),
        ({"purpose": "fun"}, 422, "invalid_request"),
        ({"part_bytes": 1}, 422, "invalid_request"),
        ({"parts": 3}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_at_once(
    sender: Sender, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = sender.ask(**fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_file_has_at_most_a_thousand_parts(app: FastAPI, sender: Sender) -> None:
    huge = {"max_upload_bytes": 10 << 30}
    services = app.state.services
    object.__setattr__(services, "settings", services.settings.model_copy(update=huge))
    size = 9 << 30
    assert sender.ask(bytes=size).json()["errors"][0]["pointer"] == "/part_bytes"
    chosen = sender.begin(bytes=size, part_bytes=None)
    assert chosen["part_count"] <= 1000
    assert sender.begin(bytes=5 << 20, part_bytes=None)["part_bytes"] == 32 << 20


def test_a_file_that_the_tenant_has_is_not_sent_again(
    client: Any, sender: Sender, world: World
) -> None:
    first = sender.whole()
    second = sender.begin(filename="again.pt")
    assert (second["status"], second["missing_parts"]) == ("completed", [])
    assert second["file"]["id"] != first["file"]["id"]
    assert second["file"]["filename"] == "again.pt"
    assert client.get(second["file"]["url"]).content == CONTENT
    assert rows.count(world.database, Blob) == 1


def test_a_file_with_the_same_bytes_for_another_purpose_is_sent(sender: Sender) -> None:
    sender.whole()
    assert sender.begin(purpose="dataset")["status"] == "open"


def test_what_another_tenant_has_is_not_given_away(sender: Sender, stranger: Any) -> None:
    sender.whole()
    assert Sender(stranger).begin()["status"] == "open"


def test_bytes_that_were_lost_are_asked_for_again(app: FastAPI, sender: Sender) -> None:
    app.state.services.blobs.delete(sender.whole()["sha256"])
    assert sender.begin()["status"] == "open"


def test_an_upload_of_another_tenant_is_a_404(sender: Sender, stranger: Any) -> None:
    upload = sender.begin()
    other = Sender(stranger)
    answers = [
        other.put(upload, 1),
        other.complete(upload),
        stranger.post(upload["urls"]["cancel"]),
        stranger.get(upload["urls"]["self"]),
    ]
    assert [answer.json()["code"] for answer in answers] == ["not_found"] * 4
    assert stranger.get("/v1/uploads").json()["data"] == []


def test_a_cancelled_upload_leaves_nothing_and_takes_nothing(app: FastAPI, sender: Sender) -> None:
    upload = sender.begin()
    sender.put(upload, 1)
    for _ in range(2):
        cancelled = sender.client.post(upload["urls"]["cancel"])
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert names(app, "uploads/") == []
    for answer in (sender.put(upload, 2), sender.complete(upload)):
        assert (answer.status_code, answer.json()["code"]) == (409, "upload_not_open")
        assert answer.json()["upload_status"] == "cancelled"


def test_a_completed_upload_takes_no_part_and_is_not_cancelled(sender: Sender) -> None:
    upload = sender.whole()
    for answer in (sender.put(upload, 1), sender.client.post(upload["urls"]["cancel"])):
        assert (answer.status_code, answer.json()["upload_status"]) == (409, "completed")


def test_uploads_are_listed_newest_first_without_their_parts(sender: Sender) -> None:
    first, second = sender.begin(), sender.begin()
    listed = sender.client.get("/v1/uploads").json()["data"]
    assert [upload["id"] for upload in listed] == [second["id"], first["id"]]
    assert "parts" not in listed[0]


def test_a_part_that_waits_in_the_network_holds_nothing_up_and_changes_nothing(
    app: FastAPI, client: Any, owner: Any, sender: Sender
) -> None:
    """The client lost its network, came back, sent the part again, and was done."""
    upload = sender.begin()
    sender.put_all(upload)
    arrived, go_on = threading.Event(), threading.Event()
    blocks = [b"x" * (PART // 2), b"x" * (PART // 2)]
    answers: list[Any] = []

    async def receive() -> Any:
        if len(blocks) == 1:
            arrived.set()
            await to_thread.run_sync(go_on.wait, PATIENCE_S)
        return {"type": "http.request", "body": blocks.pop(0), "more_body": bool(blocks)}

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": upload["urls"]["part"].replace("{number}", "2"),
        "query_string": b"",
        "headers": [(b"authorization", owner[1]["Authorization"].encode())],
    }
    late = app.state.portal.start_task_soon(app, scope, receive, send)
    assert arrived.wait(PATIENCE_S)
    sender.put(upload, 2)
    completed = sender.complete(upload)
    go_on.set()
    late.result(PATIENCE_S)
    assert json.loads(answers[1]["body"])["code"] == "upload_not_open"
    assert client.get(completed.json()["file"]["url"]).content == CONTENT


def test_a_completion_whose_process_died_goes_on_when_its_lease_is_over(
    app: FastAPI, client: Any, sender: Sender, owner: Any
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    services = app.state.services
    claimed = completion.claim(services, upload["id"], tenant_id=owner[0])
    assert claimed is not None
    assert sender.put(upload, 1).json()["upload_status"] == "completing"
    waiting = sender.complete(upload, Prefer="wait=0")
    assert (waiting.status_code, waiting.json()["status"]) == (202, "completing")
    assert waiting.headers["location"] == upload["urls"]["self"]
    services.parts.assemble(  # the process dies once the bytes have the name of the blob
        claimed.layout,
        upload["sha256"],
        on_chunk=lambda: None,
        on_verified=completion._Attempt(services, claimed)._on_verified,
    )
    lapse(services.database, upload["id"])
    answer = sender.complete(upload)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert client.get(answer.json()["file"]["url"]).content == CONTENT


def test_a_lease_from_before_the_clock_was_set_back_holds_nothing_up(
    app: FastAPI, sender: Sender, owner: Any
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    assert completion.claim(app.state.services, upload["id"], tenant_id=owner[0]) is not None
    lapse(app.state.services.database, upload["id"], days_ago=-1.0)
    assert sender.complete(upload, Prefer="wait=20").json()["status"] == "completed"


def lapse(database: Database, upload_id: str, *, days_ago: float = 0.0) -> None:
    """Let the lease of a completion end, or have ended, some days ago."""
    with database.writing() as session:
        end = database_now(session) - timedelta(days=days_ago)
        session.execute(update(Upload).where(Upload.id == upload_id).values(lease_expires_at=end))


def test_an_upload_that_is_cancelled_while_it_completes_is_no_file(
    app: FastAPI, client: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    cancelled: list[Any] = []

    def cancel(_attempt: completion._Attempt) -> None:
        if not cancelled:
            cancelled.append(client.post(upload["urls"]["cancel"]))

    monkeypatch.setattr(completion._Attempt, "_on_chunk", cancel)
    answer = sender.complete(upload)
    assert cancelled[0].json()["status"] == "cancelled"
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_not_open")
    assert client.get("/v1/files").json()["data"] == []
    assert names(app, "uploads/") == []


def test_a_part_that_is_refused_before_it_is_read_replaces_nothing(sender: Sender) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    assert sender.put(upload, 2, b"short").json()["code"] == "wrong_part_size"
    assert sender.look(upload)["missing_parts"] == []


def test_parts_whose_bytes_are_gone_are_asked_for_again(
    app: FastAPI, client: Any, sender: Sender
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    app.state.services.parts.discard(upload["id"])
    answer = sender.complete(upload)
    assert (answer.status_code, answer.json()["code"]) == (409, "parts_missing")
    assert answer.json()["missing_parts"] == list(range(1, COUNT + 1))
    sender.put_all(upload)
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT


def test_an_upload_that_is_cancelled_while_it_completes_is_no_failure(
    app: FastAPI, sender: Sender
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    parts = app.state.services.parts
    with pytest.raises(PartsLost):
        parts.assemble(
            completion.uploads.Layout(upload["id"], len(CONTENT), PART),
            upload["sha256"],
            on_chunk=lambda: parts.discard(upload["id"]),
            on_verified=lambda: None,
        )


def test_a_part_that_rotted_is_found_and_asked_for_again(
    app: FastAPI, client: Any, sender: Sender
) -> None:
    upload = sender.begin()
    sender.put_all(upload)
    parts = app.state.services.parts
    layout = completion.uploads.Layout(upload["id"], len(CONTENT), PART)
    with parts.write(layout, 3) as writer:  # past the row that tells of the part
        writer.write([b"rot" + sender.piece(3)[3:]])
        writer.commit()
    answer = sender.complete(upload)
    assert (answer.status_code, answer.json()["code"]) == (409, "parts_missing")
    assert answer.json()["missing_parts"] == [3]
    sender.put(upload, 3)
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT


@pytest.mark.parametrize("settings", ["s3"], indirect=True)
def test_the_store_itself_takes_parts_at_presigned_urls(client: Any, sender: Sender) -> None:
    upload = sender.begin()
    assert [part["number"] for part in upload["presigned_parts"]] == upload["missing_parts"]
    with httpx.Client(trust_env=False, timeout=60.0) as outside:
        for part in upload["presigned_parts"][1:]:
            answer = outside.put(part["url"], content=sender.piece(part["number"]))
            assert answer.status_code == 200
    found = sender.look(upload)
    assert found["missing_parts"] == [1]
    assert [part["number"] for part in found["presigned_parts"]] == [1]
    assert found["parts"][0]["sha256"] is None
    sender.put(upload, 1)
    assert client.get(sender.complete(upload).json()["file"]["url"]).content == CONTENT


@pytest.mark.parametrize("settings", ["s3"], indirect=True)
def test_what_a_client_gave_the_store_is_checked_like_all_else(
    app: FastAPI, sender: Sender
) -> None:
    upload = sender.begin()
    with httpx.Client(trust_env=False, timeout=60.0) as outside:
        outside.put(upload["presigned_parts"][0]["url"], content=b"too short")
        outside.put(upload["presigned_parts"][1]["url"], content=b"x" * PART)
    assert sender.look(upload)["missing_parts"] == [n for n in range(1, COUNT + 1) if n != 2]
    for number in [n for n in range(1, COUNT + 1) if n != 2]:
        sender.put(upload, number)
    assert sender.complete(upload).json()["code"] == "digest_mismatch"
    assert names(app, "sha256/") == []


def test_a_part_that_is_cut_short_in_the_store_is_asked_for_again(
    app: FastAPI, client: Any, sender: Sender, owner: Any
) -> None:
    """A client may still write to a presigned URL while its upload is being completed."""
    upload = sender.begin()
    presigned = {part["number"]: part["url"] for part in upload["presigned_parts"]}
    if not presigned:
        return  # a local disk takes nothing from clients
    sender.put_all(upload)
    services = app.state.services
    claimed = completion.claim(services, upload["id"], tenant_id=owner[0])
    assert claimed is not None
    assert httpx.put(presigned[2], content=b"", timeout=60.0).status_code == 200
    with pytest.raises(PartsMissing):
        completion.carry_out(services, claimed)
    assert sender.look(upload)["missing_parts"] == [2]
