"""What an attempt writes while it works, and how it finishes."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select

from store import leases, records
from store.database import Database
from store.leases import Lease
from store.records import ArtifactFile, MetricPoint
from store.states import LEASED, ErrorCode, JobKind, JobState, Status
from store.tables import Artifact, Checkpoint, Dataset, Job, JobMetric, Model, Plan
from tests.support.databases import contents, interrupted
from tests.support.rows import (
    add_model,
    add_plan,
    add_validation,
    blob_of,
    claim,
    count,
    event_types,
    events,
    job_in,
    read_attempt,
    read_checkpoint,
    read_job,
    running_job,
)

FOUND_MODEL = {
    "reasons": [],
    "architecture": {"name": "resnet20_cifar"},
    "parameters": 269_722,
    "macs": 40_550_000,
    "limits": {"largest_ratio": 31.5},
}
FOUND_DATASET = {
    "reasons": [],
    "num_examples": {"train": 1200, "test": 300},
    "shape": [1, 8, 8],
    "num_classes": 10,
    "class_names": None,
    "content_sha256": "0" * 64,
}
REASONS = [{"code": "unknown_architecture", "detail": "name one of the registry"}]


def artifact(filename: str) -> ArtifactFile:
    return ArtifactFile("report", filename, "application/json", blob_of(filename.encode()))


def progress(database: Database, lease: Lease, phase: str, fraction: float) -> None:
    with database.writing() as session:
        records.record_progress(session, lease, phase=phase, progress=fraction, eta_s=60.0)


def save(database: Database, lease: Lease, phase: str, content: bytes) -> None:
    with database.writing() as session:
        records.record_checkpoint(session, lease, phase=phase, blob=blob_of(content))


def finish(database: Database, lease: Lease, *filenames: str) -> None:
    files = [artifact(filename) for filename in filenames]
    with database.writing() as session:
        records.finish(session, lease, result={"ratio": 4.03}, files=files)


def test_progress_is_shown_on_the_job(database: Database) -> None:
    lease = running_job(database)
    progress(database, lease, "admm", 0.25)
    job = read_job(database, lease.job_id)
    assert (job.phase, job.progress, job.eta_s) == ("admm", 0.25, 60.0)


def test_a_phase_leaves_one_event_however_often_it_reports(database: Database) -> None:
    lease = running_job(database)
    for phase, fraction in [("planning", 0.1), ("admm", 0.2), ("admm", 0.3)]:
        progress(database, lease, phase, fraction)
    assert event_types(database, lease.job_id) == ["job.running"] + 2 * ["phase.started"]
    assert events(database, lease.job_id)[-1].data == {"phase": "admm"}


def test_progress_raises_the_version(database: Database) -> None:
    lease = running_job(database)
    before = read_job(database, lease.job_id).version
    progress(database, lease, "admm", 0.5)
    assert read_job(database, lease.job_id).version > before


def test_metrics_are_numbered_over_all_attempts(database: Database) -> None:
    first = running_job(database)
    points = [MetricPoint("admm", "loss", step, 1.0 / step) for step in (1, 2)]
    with database.writing() as session:
        records.record_metrics(session, first, points)
        leases.give_back(session, first)
    second = claim(database, first.job_id)
    with database.writing() as session:
        records.record_metrics(session, second, points)
    with database.reading() as session:
        rows = session.scalars(select(JobMetric).order_by(JobMetric.seq)).all()
    assert [(row.seq, row.step, row.value) for row in rows] == [
        (1, 1, 1.0),
        (2, 2, 0.5),
        (3, 1, 1.0),
        (4, 2, 0.5),
    ]


def test_a_log_replaces_the_one_before_it(database: Database) -> None:
    lease = running_job(database)
    for text in ("first\n", "first\nsecond\n"):
        with database.writing() as session:
            records.record_log(session, lease, text)
    assert read_attempt(database, lease.job_id, 1).log == "first\nsecond\n"


def test_a_log_may_hold_any_character(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        records.record_log(session, lease, "epoch 1 \U0001f41f\x1b[0m\x00 end")
    log = read_attempt(database, lease.job_id, 1).log
    assert log is not None
    assert log.startswith("epoch 1 \U0001f41f\x1b[0m")
    assert log.endswith(" end")


def test_every_attempt_has_its_own_log(database: Database) -> None:
    first = running_job(database)
    with database.writing() as session:
        records.record_log(session, first, "one")
        leases.give_back(session, first)
    second = claim(database, first.job_id)
    with database.writing() as session:
        records.record_log(session, second, "two")
    assert read_attempt(database, first.job_id, 1).log == "one"
    assert read_attempt(database, first.job_id, 2).log == "two"


def test_a_checkpoint_replaces_the_one_before_it(database: Database) -> None:
    lease = running_job(database)
    save(database, lease, "admm", b"after epoch 1")
    save(database, lease, "finetuning", b"after epoch 2")
    assert count(database, Checkpoint) == 1
    checkpoint = read_checkpoint(database, lease.job_id)
    assert checkpoint is not None
    assert checkpoint.sha256 == blob_of(b"after epoch 2").sha256
    assert checkpoint.phase == "finetuning"


def test_a_checkpoint_of_an_earlier_attempt_is_there_for_the_next(database: Database) -> None:
    first = running_job(database)
    save(database, first, "admm", b"state")
    with database.writing() as session:
        leases.give_back(session, first)
    claim(database, first.job_id)
    checkpoint = read_checkpoint(database, first.job_id)
    assert checkpoint is not None
    assert checkpoint.attempt == 1


def test_a_checkpoint_leaves_an_event(database: Database) -> None:
    lease = running_job(database)
    save(database, lease, "admm", b"state")
    event = events(database, lease.job_id)[-1]
    assert (event.type, event.data) == ("checkpoint.saved", {"phase": "admm", "bytes": 5})


def test_a_finished_job_has_its_result_and_artifacts_and_no_checkpoint(database: Database) -> None:
    lease = running_job(database)
    save(database, lease, "admm", b"state")
    finish(database, lease, "report.json", "manifest.json")
    job = read_job(database, lease.job_id)
    assert (job.state, job.result, job.progress) == (JobState.SUCCEEDED, {"ratio": 4.03}, 1.0)
    assert read_checkpoint(database, lease.job_id) is None
    with database.reading() as session:
        rows = session.scalars(select(Artifact).order_by(Artifact.filename)).all()
    assert [(row.job_id, row.filename) for row in rows] == [
        (lease.job_id, "manifest.json"),
        (lease.job_id, "report.json"),
    ]
    assert events(database, lease.job_id)[-1].data == {
        "artifacts": ["report.json", "manifest.json"]
    }


@pytest.mark.parametrize("state", sorted(LEASED))
def test_work_that_is_done_before_it_was_stopped_counts(
    database: Database, state: JobState
) -> None:
    lease = job_in(database, state).lease
    assert lease is not None
    finish(database, lease, "report.json")
    assert read_job(database, lease.job_id).state == JobState.SUCCEEDED


def test_two_jobs_may_leave_the_same_bytes(database: Database) -> None:
    for _ in range(2):
        finish(database, running_job(database), "loader.py")
    assert count(database, Artifact) == 2


def test_a_finish_that_breaks_off_leaves_the_job_running_and_no_artifact(
    database: Database,
) -> None:
    lease = running_job(database)
    save(database, lease, "admm", b"state")
    before = contents(database)
    with interrupted(database) as session:
        records.finish(session, lease, result={}, files=[artifact("report.json")])
    assert contents(database) == before


def test_a_finish_whose_last_artifact_is_refused_leaves_nothing(database: Database) -> None:
    lease = running_job(database)
    before = contents(database)
    with pytest.raises(Exception, match=r"(?i)unique"):
        finish(database, lease, "report.json", "report.json")
    assert contents(database) == before
    assert read_job(database, lease.job_id).state == JobState.RUNNING


def test_a_finish_after_one_that_broke_off_succeeds(database: Database) -> None:
    lease = running_job(database)
    with pytest.raises(Exception, match=r"(?i)unique"):
        finish(database, lease, "report.json", "report.json")
    finish(database, lease, "report.json")
    assert count(database, Artifact) == 1


def test_a_model_that_was_found_good_is_ready_with_what_was_found(database: Database) -> None:
    job_id = add_validation(database, JobKind.VALIDATE_MODEL)
    weights = blob_of(b"safetensors")
    with database.writing() as session:
        lease = leases.claim(session, job_id, worker_id="io", lease_s=60)
        assert lease is not None
        records.finish_model_validation(session, lease, findings=FOUND_MODEL, weights=weights)
    model = the_model(database)
    assert model.status == Status.READY
    assert model.parameters == FOUND_MODEL["parameters"]
    assert model.weights_sha256 == weights.sha256
    assert read_job(database, job_id).state == JobState.SUCCEEDED


def test_a_data_set_that_was_found_good_is_ready_with_what_was_found(database: Database) -> None:
    lease = claim(database, add_validation(database, JobKind.VALIDATE_DATASET))
    blob = blob_of(b"canonical")
    with database.writing() as session:
        records.finish_dataset_validation(session, lease, findings=FOUND_DATASET, blob=blob)
    dataset = the_dataset(database)
    assert dataset.status == Status.READY
    assert dataset.num_examples == FOUND_DATASET["num_examples"]
    assert dataset.blob_sha256 == blob.sha256


def test_a_model_that_was_found_wanting_is_rejected_with_the_reasons(database: Database) -> None:
    lease = claim(database, add_validation(database, JobKind.VALIDATE_MODEL))
    with database.writing() as session:
        findings = {"reasons": REASONS}
        records.finish_model_validation(session, lease, findings=findings, weights=None)
    model = the_model(database)
    assert (model.status, model.reasons, model.weights_sha256) == (Status.REJECTED, REASONS, None)
    assert read_job(database, lease.job_id).state == JobState.SUCCEEDED


def test_a_data_set_that_was_found_wanting_is_rejected_with_the_reasons(
    database: Database,
) -> None:
    lease = claim(database, add_validation(database, JobKind.VALIDATE_DATASET))
    with database.writing() as session:
        findings = {"reasons": REASONS}
        records.finish_dataset_validation(session, lease, findings=findings, blob=None)
    dataset = the_dataset(database)
    assert (dataset.status, dataset.reasons) == (Status.REJECTED, REASONS)


@pytest.mark.parametrize("kind", [JobKind.VALIDATE_MODEL, JobKind.VALIDATE_DATASET])
def test_what_could_not_be_validated_is_rejected_with_the_error(
    database: Database, kind: JobKind
) -> None:
    lease = claim(database, add_validation(database, kind))
    with database.writing() as session:
        code = ErrorCode.OUT_OF_MEMORY
        job = leases.fail(session, lease, code=code, message="too large", retryable=True)
        assert job is not None
        records.fail_subject(session, job)
    subject = the_model(database) if kind is JobKind.VALIDATE_MODEL else the_dataset(database)
    assert subject.status == Status.REJECTED
    assert subject.reasons == [{"code": "out_of_memory", "detail": "too large"}]


def test_a_compression_that_failed_rejects_nothing(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        code = ErrorCode.DIVERGED
        job = leases.fail(session, lease, code=code, message="no", retryable=False)
        assert job is not None
        records.fail_subject(session, job)
    assert read_job(database, lease.job_id).state == JobState.FAILED


def test_a_plan_that_failed_rejects_no_model(database: Database) -> None:
    lease = claim(database, add_plan(database))
    with database.writing() as session:
        code = ErrorCode.TARGET_INFEASIBLE
        job = leases.fail(session, lease, code=code, message="too fast", retryable=False)
        assert job is not None
        records.fail_subject(session, job)
    assert (the_model(database).status, the_model(database).reasons) == (Status.VALIDATING, [])


def test_a_plan_goes_with_the_job_that_made_it(database: Database) -> None:
    job_id = add_plan(database)
    with database.writing() as session:
        session.execute(delete(Job).where(Job.id == job_id))
    assert count(database, Plan) == 0


def test_a_plan_goes_with_its_model_and_leaves_the_job_to_others(database: Database) -> None:
    job_id = add_plan(database)
    job = read_job(database, job_id)
    with database.writing() as session:
        twin = add_model(session, job.tenant_id)
        plan = {"tenant_id": job.tenant_id, "model_id": twin, "job_id": job_id, "key": "ab" * 32}
        session.add(Plan(id="plan_twin", created_at=job.created_at, **plan))
    with database.writing() as session:
        session.execute(delete(Model).where(Model.id == twin))
    assert count(database, Plan) == 1
    assert count(database, Job) == 1


def test_details_of_a_failure_hide_nothing_of_it(database: Database) -> None:
    lease = running_job(database)
    details = {"code": "internal", "attempt": 7, "best": {"max_macs": 3}}
    with database.writing() as session:
        code = ErrorCode.TARGET_INFEASIBLE
        leases.fail(session, lease, code=code, message="no", retryable=False, details=details)
    error = read_job(database, lease.job_id).error
    assert error is not None
    assert (error["code"], error["attempt"], error["best"]) == (code, 1, {"max_macs": 3})


def the_model(database: Database) -> Model:
    with database.reading() as session:
        return session.scalars(select(Model)).one()


def the_dataset(database: Database) -> Dataset:
    with database.reading() as session:
        return session.scalars(select(Dataset)).one()
