"""Bytes out: ranges, conditions and the headers that name the bytes."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from api.content import Content, send
from api.problems import HttpError
from store.states import JobState
from tests.api.test_files import upload
from tests.api.world import AS_CHECKPOINT, World, archive

CONTENT = archive("0123456789" * 30)
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'


@pytest.fixture(params=["file", "artifact"])
def url(request: pytest.FixtureRequest, client: Any, world: World) -> str:
    """Where the content lies, as a file and as an artifact."""
    if request.param == "file":
        params = {"filename": "réseau.pt", "purpose": "checkpoint"}
        return str(upload(client, CONTENT, params).json()["url"])
    job = client.post("/v1/jobs", json=world.job_body()).json()
    lease = world.bring(job["id"], JobState.RUNNING)
    assert lease is not None
    world.finish(lease, ("réseau.pt", CONTENT))
    (artifact,) = client.get(f"{job['urls']['self']}/artifacts").json()["data"]
    return str(artifact["url"])


def test_the_headers_name_the_bytes(client: Any, url: str) -> None:
    headers = client.get(url).headers
    assert headers["etag"] == ETAG
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-length"] == str(SIZE)
    expected = base64.b64encode(bytes.fromhex(SHA256)).decode()
    assert headers["repr-digest"] == f"sha-256=:{expected}:"


def test_a_filename_beyond_ascii_is_sent_in_both_forms(client: Any, url: str) -> None:
    disposition = client.get(url).headers["content-disposition"]
    assert disposition == "attachment; filename=\"r_seau.pt\"; filename*=UTF-8''r%C3%A9seau.pt"


def test_head_has_the_headers_of_get_and_no_body(client: Any, url: str) -> None:
    head, get = client.head(url), client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    same = ("content-length", "etag", "repr-digest", "content-type", "content-disposition")
    assert [head.headers[name] for name in same] == [get.headers[name] for name in same]


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=5-", 5, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=10-{SIZE * 9}", 10, SIZE),
        ("Bytes=5-9", 5, 10),
        (f"bytes={SIZE - 1}-{SIZE - 1}", SIZE - 1, SIZE),
    ],
)
def test_a_range_is_sent_alone(client: Any, url: str, header: str, start: int, end: int) -> None:
    response = client.get(url, headers={"Range": header})
    assert response.status_code == 206
    assert response.content == CONTENT[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=9-5", "bytes=0-1,3-4", "pages=1-2", "bytes=-", "bytes"])
def test_a_range_that_is_not_understood_is_ignored(client: Any, url: str, header: str) -> None:
    response = client.get(url, headers={"Range": header})
    assert (response.status_code, response.content) == (200, CONTENT)


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE}-{SIZE + 1}"])
def test_a_range_outside_is_a_416_with_the_size(client: Any, url: str, header: str) -> None:
    response = client.get(url, headers={"Range": header})
    assert response.json()["code"] == "range_not_satisfiable"
    assert response.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    ("condition", "status"), [(ETAG, 206), ('"else"', 200), (f"W/{ETAG}", 200)]
)
def test_if_range_sends_the_whole_when_the_bytes_are_others(
    client: Any, url: str, condition: str, status: int
) -> None:
    response = client.get(url, headers={"Range": "bytes=0-0", "If-Range": condition})
    assert response.status_code == status


@pytest.mark.parametrize("condition", [ETAG, f"W/{ETAG}", f'"else", {ETAG}', "*"])
def test_known_bytes_are_not_sent_again(client: Any, url: str, condition: str) -> None:
    response = client.get(url, headers={"If-None-Match": condition})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == ETAG


def test_known_bytes_are_not_described_again_either(client: Any, url: str) -> None:
    assert client.head(url, headers={"If-None-Match": ETAG}).status_code == 304


@pytest.mark.parametrize("condition", [ETAG, f'"else", {ETAG}', "*"])
def test_bytes_that_are_still_those_are_sent(client: Any, url: str, condition: str) -> None:
    headers = {"If-Match": condition, "Range": "bytes=0-3"}
    assert client.get(url, headers=headers).content == CONTENT[:4]


@pytest.mark.parametrize("condition", ['"else"', f"W/{ETAG}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bytes_that_are_no_longer_those_are_not_sent(
    client: Any, url: str, condition: str, method: str
) -> None:
    answer = client.request(method, url, headers={"If-Match": condition})
    assert answer.status_code == 412


def test_a_date_as_a_condition_of_a_range_sends_the_whole(client: Any, url: str) -> None:
    headers = {"Range": "bytes=0-0", "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert client.get(url, headers=headers).content == CONTENT


def test_a_range_of_head_is_ignored(client: Any, url: str) -> None:
    assert client.head(url, headers={"Range": "bytes=0-0"}).status_code == 200


class Bytes:
    """A blob store of one blob."""

    def exists(self, _sha256: str) -> bool:
        return True

    def read(self, _sha256: str, *, start: int, end: int) -> list[bytes]:
        return [b"x" * (end - start)]


@given(
    st.integers(0, 9),
    st.text(st.sampled_from("0123456789-,= "), max_size=9),
)
def test_no_range_header_breaks_the_arithmetic(size: int, spec: str) -> None:
    scope = {"type": "http", "method": "GET", "headers": [(b"range", f"bytes={spec}".encode())]}
    content = Content("ab" * 32, size, "x", "application/octet-stream")
    try:
        response = send(Request(scope), content, Bytes())  # type: ignore[arg-type]
    except HttpError:
        return  # a 416
    length = int(response.headers["content-length"])
    assert (length == size) if response.status_code == 200 else (0 < length <= size)


def test_bytes_that_are_lost_are_told_before_anything_is_sent(client: Any, world: World) -> None:
    body = client.put("/v1/files", params=AS_CHECKPOINT, content=archive()).json()
    world.blobs.delete(body["sha256"])
    response = client.get(body["url"])
    assert (response.status_code, response.json()["code"]) == (500, "content_lost")
    assert client.head(body["url"]).status_code == 500
    client.put("/v1/files", params=AS_CHECKPOINT, content=archive())
    assert client.get(body["url"]).content == archive()
