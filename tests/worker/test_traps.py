"""Files that a hijacked runner leaves to lead its supervisor out of the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.states import JobState
from store.tables import Artifact, Checkpoint
from tests.support import rows
from tests.worker.fake_runner import FakeRunner, die, say
from tests.worker.shop import Shop
from worker.protocol import CheckpointSaved, OutputFile, Result

SECRET = b"the key of another tenant"
REPORT = OutputFile(kind="report", filename="report.json", media_type="application/json")
DONE = say(Result(result={}, files=[REPORT]))
REMOVE_LOG = "os.unlink('runner.log')"
REMOVE_OUTPUT = "os.rmdir('output')"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that the worker may read, in a folder under the name of an output file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "report.json").write_bytes(SECRET)
    return folder / "report.json"


def stored(shop: Shop) -> list[bytes]:
    names = [name.rsplit("/", 1)[1] for name in shop.blobs.names("sha256/")]
    return [b"".join(shop.blobs.read(name)) for name in names]


def test_a_link_in_the_place_of_an_output_file_is_not_followed(
    shop: Shop, runner: FakeRunner, secret: Path
) -> None:
    runner.does(f"(output / 'report.json').symlink_to({str(secret)!r})", DONE)
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.QUEUED
    assert SECRET not in stored(shop)


def test_a_link_in_the_place_of_the_output_folder_is_not_followed(
    shop: Shop, runner: FakeRunner, secret: Path
) -> None:
    runner.does(REMOVE_OUTPUT, f"output.symlink_to({str(secret.parent)!r})", DONE)
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.QUEUED
    assert SECRET not in stored(shop)
    assert secret.exists()


def test_a_link_in_the_place_of_a_checkpoint_is_not_followed(
    shop: Shop, runner: FakeRunner, secret: Path
) -> None:
    link = f"Path('checkpoint.pt').symlink_to({str(secret)!r})"
    runner.does(link, say(CheckpointSaved(phase="admm")))
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.QUEUED
    assert rows.count(shop.database, Checkpoint) == 0
    assert SECRET not in stored(shop)


def test_a_link_in_the_place_of_the_log_is_not_followed(
    shop: Shop, runner: FakeRunner, secret: Path
) -> None:
    runner.does(REMOVE_LOG, f"Path('runner.log').symlink_to({str(secret)!r})", die(9))
    job = shop.work_on(shop.add_job())

    assert rows.read_attempt(shop.database, job.id, 1).log == (
        "(no log: Too many levels of symbolic links)"
    )


def test_a_pipe_in_the_place_of_the_log_does_not_hold_up_the_supervisor(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(REMOVE_LOG, "os.mkfifo('runner.log')", die(9))
    job = shop.work_on(shop.add_job())

    assert rows.read_attempt(shop.database, job.id, 1).log == "(no log: not a plain file)"


@pytest.mark.parametrize("make", ["os.mkfifo(place)", "place.mkdir()"], ids=["pipe", "folder"])
def test_something_other_than_a_file_in_the_place_of_an_output_file_is_refused(
    shop: Shop, runner: FakeRunner, make: str
) -> None:
    runner.does("place = output / 'report.json'", make, DONE)
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.QUEUED
    assert rows.count(shop.database, Artifact) == 0
    assert list(shop.work.iterdir()) == []
