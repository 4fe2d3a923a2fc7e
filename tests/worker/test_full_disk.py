"""Jobs and full disks: a clear error, nothing lost, and on it goes when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from store import line
from store.blobs import BlobStore
from store.database import database_now
from store.states import JobState
from store.tables import Job
from tests.support import rows
from tests.support.disks import SmallDisk, small_disk
from tests.worker.fake_runner import FakeRunner, say
from tests.worker.shop import Shop
from worker.protocol import CheckpointSaved, Failure, OutputFile, Result
from worker.runner.__main__ import judge

REPORT = OutputFile(kind="report", filename="report.json", media_type="application/json")
WRITE_REPORT = "(output / 'report.json').write_bytes(bytes(1 << 20))"
WRITE_STATE = "Path('checkpoint').write_bytes(bytes(1 << 20))"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def working_on_disk(shop: Shop, disk: SmallDisk) -> Shop:
    """The folders of its attempts are on the small disk, its blobs are not."""
    return shop.with_settings(data_dir=disk.folder / "data")


@pytest.fixture
def storing_on_disk(shop: Shop, disk: SmallDisk) -> Shop:
    """Its blobs are on the small disk, the folders of its attempts are not."""
    return replace(shop, blobs=BlobStore((disk.folder / "blobs").as_uri()))


def assert_waits_for_room(shop: Shop, job: Job) -> None:
    assert (job.state, job.lost_attempts, job.lease_token) == (JobState.QUEUED, 0, None)
    event = rows.events(shop.database, job.id)[-1]
    assert event.data["reason"] == "storage_error"
    assert "no room" in event.data["message"]
    with shop.database.reading() as session:
        assert line.first(session, job.queue) == []


def let_time_pass(shop: Shop) -> None:
    with shop.database.writing() as session:
        past = database_now(session) - timedelta(seconds=1)
        session.execute(update(Job).values(available_at=past))


def test_a_job_whose_inputs_find_no_room_goes_on_when_there_is(
    working_on_disk: Shop, disk: SmallDisk, runner: FakeRunner
) -> None:
    shop = working_on_disk
    runner.does(say(Result(result={})))
    job_id = shop.add_job()
    disk.fill()
    for _ in range(4):  # more often than max_attempts
        job = shop.work_on(job_id)
        assert_waits_for_room(shop, job)
    assert runner.started == []

    disk.make_room()
    let_time_pass(shop)
    with shop.database.reading() as session:
        assert line.first(session, job.queue) == [job_id]
    assert shop.work_on(job_id).state == JobState.SUCCEEDED


def test_a_job_whose_artifacts_find_no_room_goes_on_when_there_is(
    storing_on_disk: Shop, disk: SmallDisk, runner: FakeRunner
) -> None:
    shop = storing_on_disk
    runner.does(WRITE_REPORT, say(Result(result={}, files=[REPORT])))
    job_id = shop.add_job()
    disk.fill()
    assert_waits_for_room(shop, shop.work_on(job_id))

    disk.make_room()
    job = shop.work_on(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(
    storing_on_disk: Shop, disk: SmallDisk, runner: FakeRunner
) -> None:
    shop = storing_on_disk
    runner.does(WRITE_STATE, say(CheckpointSaved(phase="admm")), say(Result(result={})))
    job_id = shop.add_job()
    kept = shop.put(b"the state of an earlier attempt")
    lease = rows.claim(shop.database, job_id)
    blob = rows.blob_of(b"the state of an earlier attempt")
    with shop.database.writing() as session:
        rows.records.record_checkpoint(session, lease, phase="dense", blob=blob)
        rows.leases.give_back(session, lease)
    disk.fill()
    assert_waits_for_room(shop, shop.work_on(job_id))
    checkpoint = rows.read_checkpoint(shop.database, job_id)
    assert checkpoint is not None
    assert (checkpoint.sha256, checkpoint.phase) == (kept, "dense")

    disk.make_room()
    assert shop.work_on(job_id).state == JobState.SUCCEEDED


def test_a_runner_that_finds_no_room_in_its_folder_is_tried_again(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(say(Failure(code="storage_error", message="no room", retryable=True)))
    assert_waits_for_room(shop, shop.work_on(shop.add_job()))


def test_a_runner_tells_a_full_disk_from_its_own_faults(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left") as full:
        (disk.folder / "state").write_bytes(bytes(1 << 20))
    assert judge(full.value).code == "storage_error"
    behind_another = RuntimeError("the writer failed")
    assert judge(behind_another).code == "internal"
    behind_another.__cause__ = full.value
    assert judge(behind_another).code == "storage_error"
