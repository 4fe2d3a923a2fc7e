"""Files in: digests, limits, formats, and what a refusal leaves behind."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from api.files.formats import check_format
from store.tables import Blob, File
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.api.world import AS_CHECKPOINT, AS_DATASET, World, archive
from tests.support import rows

SAFETENSORS = (2).to_bytes(8, "little") + b"{}" + b"\0" * 16
TORCH_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02M\xe9\x03."


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def upload(client: Any, content: Any, params: Any = AS_CHECKPOINT, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put("/v1/files", params=params, content=content, headers=named)


def test_an_uploaded_file_is_described_with_its_digest(client: Any) -> None:
    content = archive()
    response = upload(client, content, content_digest=digest(content))
    body = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/files/{body['id']}"
    assert response.headers["repr-digest"] == digest(content)
    assert body["sha256"] == hashlib.sha256(content).hexdigest()
    assert (body["bytes"], body["purpose"], body["filename"]) == (
        len(content),
        "checkpoint",
        "weights.pt",
    )
    assert client.get(response.headers["location"]).json() == body


def test_a_file_comes_back_byte_for_byte(client: Any) -> None:
    content = archive("x" * (2 << 20))
    body = upload(client, content).json()
    assert client.get(body["url"]).content == content


def test_the_same_bytes_are_stored_once(client: Any, world: World) -> None:
    first, second = upload(client, archive()).json(), upload(client, archive()).json()
    assert first["id"] != second["id"]
    assert rows.count(world.database, Blob) == 1


def test_files_are_listed_newest_first(client: Any) -> None:
    ids = [upload(client, archive(str(n))).json()["id"] for n in range(2)]
    assert {file["id"] for file in client.get("/v1/files").json()["data"]} == set(ids)


@pytest.mark.parametrize("content", [archive(), SAFETENSORS, TORCH_LEGACY])
def test_formats_of_checkpoints_are_let_through(client: Any, content: bytes) -> None:
    assert upload(client, content).status_code == 201


REFUSED = {
    "a wrong digest": (archive(), AS_CHECKPOINT, {"content_digest": digest(b"else")}, 422),
    "no bytes": (b"", AS_CHECKPOINT, {}, 422),
    "text as a checkpoint": (b"hello, world, 16", AS_CHECKPOINT, {}, 422),
    "one byte": (b"P", AS_CHECKPOINT, {}, 422),
    "a plain pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0", AS_CHECKPOINT, {}, 422),
    "safetensors as a data set": (SAFETENSORS, AS_DATASET, {}, 422),
    "too many bytes": (archive("x" * MAX_UPLOAD_BYTES), AS_CHECKPOINT, {}, 413),
    "gzip": (archive(), AS_CHECKPOINT, {"content_encoding": "gzip"}, 415),
    "another algorithm": (archive(), AS_CHECKPOINT, {"content_digest": "sha-512=:AA==:"}, 400),
    "no base64": (archive(), AS_CHECKPOINT, {"content_digest": "sha-256=:%%%:"}, 400),
    "a short digest": (archive(), AS_CHECKPOINT, {"content_digest": "sha-256=:AA==:"}, 400),
    "a bare digest": (archive(), AS_CHECKPOINT, {"content_digest": digest(b"")[:-1]}, 400),
    "an unknown purpose": (archive(), AS_CHECKPOINT | {"purpose": "fun"}, {}, 422),
    "a path": (archive(), AS_CHECKPOINT | {"filename": "../x"}, {}, 422),
    "a name with NUL": (archive(), AS_CHECKPOINT | {"filename": "x\0"}, {}, 422),
    "no name": (archive(), {"purpose": "checkpoint"}, {}, 422),
}


@pytest.mark.parametrize(("content", "params", "headers", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refused_upload_leaves_nothing(
    *,
    client: Any,
    world: World,
    leftovers: Any,
    content: bytes,
    params: Any,
    headers: dict[str, str],
    status: int,
) -> None:
    response = upload(client, content, params, **headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert (rows.count(world.database, File), rows.count(world.database, Blob)) == (0, 0)
    assert leftovers() == []


def test_a_wrong_digest_names_both(client: Any) -> None:
    problem = upload(client, archive(), content_digest=digest(b"else")).json()
    assert problem["code"] == "digest_mismatch"
    assert problem["expected_sha256"] == hashlib.sha256(b"else").hexdigest()
    assert problem["received_sha256"] == hashlib.sha256(archive()).hexdigest()


def test_an_empty_digest_field_is_none_at_all(client: Any) -> None:
    assert upload(client, archive(), content_digest="").status_code == 201


def test_one_digest_of_several_is_enough(client: Any) -> None:
    both = f"sha-512=:AA==:, {digest(archive())}"
    assert upload(client, archive(), content_digest=both).status_code == 201


def test_an_unknown_format_says_what_is_read(client: Any) -> None:
    problem = upload(client, b"hello, world, 16").json()
    assert problem["code"] == "unknown_format"
    assert "safetensors" in problem["detail"]


def test_a_body_of_unknown_length_is_limited_too(client: Any, world: World, leftovers: Any) -> None:
    content = archive("x" * MAX_UPLOAD_BYTES)
    response = upload(client, iter([content[:100], content[100:]]))
    assert (response.status_code, response.json()["limit"]) == (413, MAX_UPLOAD_BYTES)
    assert leftovers() == []


def test_a_client_that_goes_away_leaves_nothing(
    app: FastAPI, owner: Any, world: World, leftovers: Any
) -> None:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/v1/files",
        "query_string": b"filename=w.pt&purpose=checkpoint",
        "headers": [(b"authorization", owner[1]["Authorization"].encode())],
    }
    block = archive() + b"\0" * (2 << 20)
    messages: list[Any] = [
        {"type": "http.request", "body": block, "more_body": True},
        {"type": "http.disconnect"},
    ]
    seen_midway = []

    async def receive() -> Any:
        if len(messages) == 1:
            seen_midway.append(len(world.blobs.names("staging/")) + len(leftovers()))
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(_message: Any) -> None:
        pass

    anyio.run(app, scope, receive, send)
    assert seen_midway
    assert leftovers() == []
    assert rows.count(world.database, File) == 0


def test_an_absurd_header_length_is_no_safetensors() -> None:
    with pytest.raises(Exception, match="safetensors"):
        check_format("checkpoint", b"\xff" * 8 + b"{")


def test_a_file_that_is_not_there_is_a_404(client: Any, tmp_path: Path) -> None:
    for path in ("/v1/files/file_none", "/v1/files/file_none/content", "/v1/files/%00"):
        assert client.get(path).json()["code"] == "not_found"
