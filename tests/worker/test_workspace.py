"""The folder of an attempt: what is in it, and that it goes, whatever happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from store.states import JobKind, JobState
from store.tables import Job, Model
from tests.support import rows
from tests.worker.fake_runner import DEAF, FOREVER, FakeRunner, die, say, say_bytes
from tests.worker.shop import IMAGES, UNDER_WAY, UPLOAD, WEIGHTS, Shop
from worker.protocol import Failure, Result, Spec
from worker.workspace import sweep, tail, workspace

MAKE_A_MESS = "(output / 'deep').mkdir(); (output / 'deep' / 'file').touch(); os.mkfifo('pipe')"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_compression_finds_its_inputs_and_room_for_its_output(shop: Shop) -> None:
    attempt = shop.with_settings(runner_threads=2).attempt(shop.add_job(request={"seed": 3}))
    with workspace(attempt) as folder:
        found = files(folder)
        spec = Spec.model_validate_json(found.pop("spec.json"))

        assert found == {"weights.safetensors": WEIGHTS, "dataset.npz": IMAGES}
        assert list((folder / "output").iterdir()) == []
    assert (spec.kind, spec.request, spec.threads) == (JobKind.COMPRESS, {"seed": 3}, 2)
    assert spec.subject["job_id"] == attempt.lease.job_id
    assert (spec.subject["num_classes"], spec.subject["input"]) == (10, {"shape": [3, 32, 32]})


@pytest.mark.parametrize("kind", [JobKind.VALIDATE_MODEL, JobKind.VALIDATE_DATASET])
def test_a_validation_finds_the_upload_alone(shop: Shop, kind: JobKind) -> None:
    with workspace(shop.attempt(shop.add_validation(kind))) as folder:
        found = files(folder)
        spec = json.loads(found.pop("spec.json"))

        assert found == {"upload": UPLOAD}
    assert (spec["kind"], spec["subject"]) == (kind, {})


def test_a_plan_finds_the_weights_and_what_is_known_of_the_model(shop: Shop) -> None:
    with workspace(shop.attempt(shop.add_plan())) as folder:
        found = files(folder)
        spec = json.loads(found.pop("spec.json"))

        assert found == {"weights.safetensors": WEIGHTS}
    assert spec["kind"] == JobKind.PLAN
    assert spec["subject"]["input"] == {"shape": [3, 32, 32]}
    assert "dataset" not in spec["subject"]


def test_an_evaluation_finds_its_inputs_and_those_of_its_baseline(shop: Shop) -> None:
    attempt, other = shop.attempt(shop.add_evaluation()), shop.put(b"other weights")
    with shop.database.writing() as session:
        job = session.get_one(Job, attempt.lease.job_id)
        baseline = session.get_one(Model, rows.add_model(session, job.tenant_id))
        baseline.weights_sha256 = other
        job.request = {**job.request, "baseline_model_id": baseline.id}
    with workspace(attempt) as folder:
        found = files(folder)
        spec = json.loads(found.pop("spec.json"))

        assert found == {
            "weights.safetensors": WEIGHTS,
            "dataset.npz": IMAGES,
            "baseline.safetensors": b"other weights",
        }
    assert (spec["kind"], spec["subject"]["model"]["id"]) == (JobKind.EVALUATE, job.model_id)
    assert spec["subject"]["baseline"]["model"]["id"] == baseline.id
    assert spec["subject"]["dataset"]["id"] == job.dataset_id


def test_an_evaluation_of_a_compressed_network_finds_it_as_it_was_exported(shop: Shop) -> None:
    attempt, network = shop.attempt(shop.add_evaluation()), shop.put(b"{}")
    with shop.database.writing() as session:
        session.execute(update(Model).values(network_sha256=network))
        job = session.get_one(Job, attempt.lease.job_id)
        job.request = {**job.request, "baseline_model_id": job.model_id}
    with workspace(attempt) as folder:
        spec = json.loads((folder / "spec.json").read_text())

        assert set(files(folder)) == {"dataset.npz", "spec.json"}
        for name in ("network", "baseline"):
            exported = {"model.safetensors": WEIGHTS, "architecture.json": b"{}"}
            assert files(folder / name) == exported
    assert (spec["subject"]["exported"], spec["subject"]["baseline"]["exported"]) == (True, True)


def test_an_evaluation_without_a_baseline_finds_none(shop: Shop) -> None:
    with workspace(shop.attempt(shop.add_evaluation())) as folder:
        spec = json.loads((folder / "spec.json").read_text())

        assert set(files(folder)) == {"weights.safetensors", "dataset.npz", "spec.json"}
    assert "baseline" not in spec["subject"]


@pytest.mark.parametrize(
    "end",
    [
        say(Result(result={})),
        say(Failure(code="diverged", message="NaN")),
        say_bytes(b"garbage\n"),
        die(9),
    ],
    ids=["result", "failure", "garbage", "death"],
)
def test_the_folder_is_removed_however_the_runner_ends(
    shop: Shop, runner: FakeRunner, end: str
) -> None:
    runner.does(MAKE_A_MESS, end)
    shop.work_on(shop.add_job())

    assert list(shop.work.iterdir()) == []


def test_the_folder_is_removed_when_the_runner_has_to_be_killed(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(MAKE_A_MESS, DEAF, say(UNDER_WAY), FOREVER)
    job_id = shop.add_job()
    hook = shop.once_under_way_move(job_id, JobState.CANCELLING)
    shop.with_settings(cancel_grace_s=0.05).work_on(job_id, draining=hook)

    assert list(shop.work.iterdir()) == []


def test_the_folder_is_removed_when_no_runner_can_be_started(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path, log: Path) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr("worker.supervisor.start_runner", broken)
    job = shop.work_on(shop.add_job())

    assert list(shop.work.iterdir()) == []
    assert (job.state, job.lost_attempts) == (JobState.QUEUED, 1)


def test_what_workers_that_were_killed_have_left_is_removed_whatever_their_job(
    shop: Shop, runner: FakeRunner
) -> None:
    job_id = shop.add_job()
    for name in (f"{job_id}.0", f"{job_id}.1", "job_that_went_on_elsewhere.7"):
        (shop.work / name / "output").mkdir(parents=True)
    runner.does(say(Result(result={})))
    shop.work_on(job_id)

    assert list(shop.work.iterdir()) == []


def test_the_folder_of_an_attempt_that_lives_is_kept(shop: Shop, runner: FakeRunner) -> None:
    runner.does(say(Result(result={})))
    with workspace(shop.attempt(shop.add_job())) as living:
        shop.work_on(shop.add_job())
        sweep(shop.work)

        assert (living / "spec.json").exists()
        assert list(shop.work.iterdir()) == [living]


KILLED = """
import os
from pathlib import Path
from worker.workspace import _claimed
with _claimed(Path({work!r}), "job_1.1") as folder:
    (folder / "half").write_text("written")
    os.kill(os.getpid(), 9)
"""


def test_the_folder_of_a_worker_that_was_killed_goes_when_the_next_starts(tmp_path: Path) -> None:
    work = tmp_path / "work"
    ended = subprocess.run([sys.executable, "-c", KILLED.format(work=str(work))], check=False)
    assert (ended.returncode, (work / "job_1.1" / "half").exists()) == (-9, True)
    sweep(work)

    assert list(work.iterdir()) == []


def test_a_folder_that_is_nested_too_deeply_stops_no_sweep(tmp_path: Path) -> None:
    deep, other = tmp_path / "job_1.1", tmp_path / "job_2.1"
    deep.mkdir()
    other.mkdir()
    nest = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-I", "-S", "-c", nest], cwd=deep, check=True)
    sweep(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_an_input_that_is_missing_gives_the_job_back(shop: Shop, runner: FakeRunner) -> None:
    job_id = shop.add_job()
    shop.blobs.delete(shop.put(WEIGHTS))
    job = shop.work_on(job_id)

    assert (job.state, job.lost_attempts, job.lease_token) == (JobState.QUEUED, 1, None)
    event = rows.events(shop.database, job_id)[-1]
    assert event.data["reason"] == "storage_error"
    assert event.data["message"].startswith("storage failed (FileNotFoundError)")
    assert runner.started == []
    assert list(shop.work.iterdir()) == []


def test_an_input_whose_bytes_have_rotted_gives_the_job_back(
    shop: Shop, runner: FakeRunner
) -> None:
    job_id = shop.add_job()
    (name,) = [name for name in shop.blobs.names("sha256/") if shop.put(WEIGHTS) in name]
    (shop.settings.data_dir.parent / "blobs" / name).write_bytes(b"rotten!")
    job = shop.work_on(job_id)

    assert job.state == JobState.QUEUED
    assert rows.events(shop.database, job_id)[-1].data["reason"] == "storage_error"


def test_storage_that_fails_after_the_lease_was_lost_writes_nothing(
    shop: Shop, runner: FakeRunner
) -> None:
    job_id = shop.add_job()
    attempt = shop.attempt(job_id)
    rows.expire(shop.database, job_id)
    assert rows.reap(shop.database) == [job_id]
    before = rows.events(shop.database, job_id)
    shop.blobs.delete(shop.put(WEIGHTS))
    shop.make(attempt)

    assert len(rows.events(shop.database, job_id)) == len(before)


def test_the_tail_of_a_log_is_its_last_bytes_as_text(tmp_path: Path) -> None:
    log = tmp_path / "runner.log"
    log.write_bytes(b"lost " + b"\xff\0kept")

    assert tail(log, limit=6) == "\N{REPLACEMENT CHARACTER}kept"
    assert tail(log) == "lost \N{REPLACEMENT CHARACTER}kept"


def test_a_log_that_is_gone_says_so(tmp_path: Path) -> None:
    assert tail(tmp_path / "runner.log") == "(no log: No such file or directory)"
