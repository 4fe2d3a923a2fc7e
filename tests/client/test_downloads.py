"""Downloads through a connection that breaks, and after a process that was killed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cstar_client import Client
from cstar_client.documents import Artifact
from cstar_client.downloads import file_name
from store.states import JobState
from tests.api.world import World
from tests.client.conftest import QUICKLY, Access
from tests.support.breaking import breaking
from tests.support.scripted import Answer, scripted

SIZE = 3 << 20


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def artifact(client: Client, world: World, content: bytes) -> Artifact:
    job = client.jobs.create(world.job_body())
    lease = world.bring(job["id"], JobState.RUNNING)
    assert lease
    world.finish(lease, ("model.onnx", content))
    return client.jobs.artifacts(job)[0]


def test_a_download_goes_on_after_every_cut(
    access: Access, artifact: Artifact, content: bytes, tmp_path: Path
) -> None:
    told: list[int] = []
    with (
        breaking(access.url, every=SIZE // 3) as line,
        Client(line.url, access.api_key, retries=QUICKLY) as client,
    ):
        path = client.jobs.download(
            artifact, tmp_path, on_progress=lambda done, _: told.append(done)
        )

    assert path.read_bytes() == content
    assert line.cuts >= 2
    assert told == sorted(told), "something was fetched twice"


def test_what_an_earlier_process_left_is_not_fetched_again(
    client: Client, artifact: Artifact, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx.part").write_bytes(content[: SIZE // 2])
    told: list[int] = []
    path = client.jobs.download(artifact, tmp_path, on_progress=lambda done, _: told.append(done))

    assert told[0] == SIZE // 2
    assert path.read_bytes() == content


@pytest.mark.parametrize("left", [9, SIZE, SIZE + 1], ids=["shorter", "as long", "longer"])
def test_a_part_of_something_else_is_not_taken(
    client: Client, artifact: Artifact, content: bytes, tmp_path: Path, left: int
) -> None:
    (tmp_path / "model.onnx.part").write_bytes(os.urandom(left))

    assert client.jobs.download(artifact, tmp_path).read_bytes() == content
    assert not (tmp_path / "model.onnx.part").exists()


def test_what_lies_there_already_is_not_fetched_again(
    client: Client, artifact: Artifact, content: bytes, tmp_path: Path
) -> None:
    path = client.jobs.download(artifact, tmp_path)
    before = path.stat().st_mtime_ns
    again = client.jobs.download(artifact, tmp_path)
    assert (again, again.stat().st_mtime_ns) == (path, before)

    path.write_bytes(content[::-1])
    assert client.jobs.download(artifact, tmp_path).read_bytes() == content


def test_the_bytes_are_asked_for_as_they_are(artifact: Artifact, tmp_path: Path) -> None:
    small: Artifact = {**artifact, "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    with scripted(Answer()) as script, Client(script.url, "cst_key") as client:
        client.jobs.download(small, tmp_path)

    assert script.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("announced", "name"),
    [("../../x.pt", "x.pt"), ("/etc/x.pt", "x.pt"), ("..", "art_1"), ("", "art_1"), (".", "art_1")],
)
def test_a_name_leads_nowhere_else(announced: str, name: str) -> None:
    assert file_name(announced, "art_1") == name
