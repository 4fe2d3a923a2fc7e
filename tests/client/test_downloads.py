"""Downloads through a connection that breaks, and after a process that was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cstar_client import Client
from cstar_client.documents import Artifact
from store.states import JobState
from tests.api.world import World
from tests.client.conftest import QUICKLY, Access
from tests.support.breaking import breaking

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


@pytest.mark.parametrize("left", [SIZE, SIZE + 1], ids=["as long", "longer"])
def test_a_part_of_something_else_is_not_taken(
    client: Client, artifact: Artifact, content: bytes, tmp_path: Path, left: int
) -> None:
    (tmp_path / "model.onnx.part").write_bytes(content[:left].ljust(left, b"x"))

    assert client.jobs.download(artifact, tmp_path).read_bytes() == content
    assert not (tmp_path / "model.onnx.part").exists()
