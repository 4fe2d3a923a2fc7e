"""How a runner ends, and what that makes of its job."""

from __future__ import annotations

import subprocess

import pytest
from sqlalchemy import select

from store.blobs import BlobStore
from store.states import JobKind, JobState, Status
from store.tables import Artifact, Checkpoint, Model
from tests.support import rows
from tests.worker.fake_runner import FOREVER, FakeRunner, die, say, say_bytes
from tests.worker.shop import Shop
from worker import executors
from worker.deadman import Deadman
from worker.protocol import (
    CheckpointSaved,
    Event,
    Failure,
    Metric,
    OutputFile,
    Progress,
    Result,
    Stopped,
)

REPORT = OutputFile(kind="report", filename="report.json", media_type="application/json")
WEIGHTS = OutputFile(kind="checkpoint", filename="weights", media_type="application/octet-stream")
DONE = Result(result={"ratio": 4.5}, files=[REPORT, WEIGHTS])
WRITE_FILES = "(output / 'report.json').write_bytes(b'{}'); (output / 'weights').write_bytes(b'w')"
LAST_WORDS = "sys.stderr.write('one\\ntwo\\nthree\\nfour\\n'); sys.stderr.flush()"


def content(blobs: BlobStore, sha256: str) -> bytes:
    return b"".join(blobs.read(sha256))


def artifacts(shop: Shop, job_id: str) -> dict[str, bytes]:
    """Return the bytes of a job's artifacts by filename."""
    with shop.database.reading() as session:
        found = session.scalars(select(Artifact).where(Artifact.job_id == job_id))
        return {artifact.filename: content(shop.blobs, artifact.sha256) for artifact in found}


def last_event(shop: Shop, job_id: str) -> tuple[str, dict[str, object]]:
    event = rows.events(shop.database, job_id)[-1]
    return event.type, event.data


def test_a_result_makes_the_job_succeed_with_its_artifacts(shop: Shop, runner: FakeRunner) -> None:
    runner.does(WRITE_FILES, say(DONE))
    job = shop.work_on(shop.add_job())

    assert (job.state, job.result, job.progress) == (JobState.SUCCEEDED, {"ratio": 4.5}, 1.0)
    assert artifacts(shop, job.id) == {"report.json": b"{}", "weights": b"w"}
    assert last_event(shop, job.id) == (
        "job.succeeded",
        {"artifacts": ["report.json", "weights"]},
    )


def test_a_finish_that_breaks_off_leaves_neither_state_nor_artifacts(
    shop: Shop, runner: FakeRunner
) -> None:
    # the second file of that name breaks a constraint after the state and the first were written
    runner.does(WRITE_FILES, say(Result(result={}, files=[REPORT, WEIGHTS, REPORT])))
    job = shop.work_on(shop.add_job())

    assert (job.state, job.result, job.lost_attempts) == (JobState.QUEUED, None, 1)
    assert rows.count(shop.database, Artifact) == 0
    assert last_event(shop, job.id)[1]["reason"] == "internal"


def test_what_a_runner_says_is_in_the_database_in_its_order(shop: Shop, runner: FakeRunner) -> None:
    runner.does(
        say(
            Progress(phase="planning", progress=0.1),
            Metric(phase="planning", name="loss", step=1, value=0.5),
            Event(name="ranks.planned", data={"layers": 3}),
            Progress(phase="admm", progress=0.3, eta_s=7.0),
            Metric(phase="admm", name="gap", step=1, value=0.25),
        ),
        die(9),
    )
    job = shop.work_on(shop.add_job())

    assert (job.phase, job.progress, job.metric_count) == ("admm", 0.3, 2)
    assert rows.event_types(shop.database, job.id) == [
        "job.running",
        "phase.started",
        "ranks.planned",
        "phase.started",
        "job.queued",
    ]


def test_a_checkpoint_is_kept_and_handed_to_the_next_attempt(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does("Path('checkpoint.pt').write_bytes(b'half')", say(CheckpointSaved(phase="admm")))
    job_id = shop.add_job()
    shop.work_on(job_id)
    kept = rows.read_checkpoint(shop.database, job_id)
    assert kept is not None
    assert (kept.phase, content(shop.blobs, kept.sha256)) == ("admm", b"half")

    runner.does(
        "(output / 'weights').write_bytes(Path('checkpoint.pt').read_bytes() + b' and half')",
        say(Result(result={}, files=[WEIGHTS])),
    )
    shop.work_on(job_id)
    assert artifacts(shop, job_id) == {"weights": b"half and half"}
    assert rows.count(shop.database, Checkpoint) == 0


def test_a_phase_that_is_over_is_told_with_its_checkpoint(shop: Shop, runner: FakeRunner) -> None:
    saved = (CheckpointSaved(phase="admm"), CheckpointSaved(phase="admm", finished=True))
    runner.does("Path('checkpoint.pt').touch()", say(*saved), die(9))
    job = shop.work_on(shop.add_job())

    told = [(event.type, event.data.get("phase")) for event in rows.events(shop.database, job.id)]
    assert told[1:-1] == [
        ("checkpoint.saved", "admm"),
        ("checkpoint.saved", "admm"),
        ("phase.finished", "admm"),
    ]


def test_a_failure_fails_the_job_with_its_code(shop: Shop, runner: FakeRunner) -> None:
    runner.does(say(Progress(phase="admm", progress=0.3), Failure(code="diverged", message="NaN")))
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.FAILED
    assert job.error == {
        "code": "diverged",
        "message": "NaN",
        "retryable": False,
        "phase": "admm",
        "attempt": 1,
    }


def test_what_could_be_met_of_a_target_is_in_the_error(shop: Shop, runner: FakeRunner) -> None:
    best: dict[str, int | float] = {"max_latency_ms": 0.25}
    runner.does(say(Failure(code="target_infeasible", message="too fast", best=best)))
    job = shop.work_on(shop.add_job())

    assert job.error is not None
    assert (job.error["code"], job.error["best"]) == ("target_infeasible", best)


def test_a_plan_is_kept_as_it_was_found_with_the_job_and_no_artifact(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(say(Result(result=rows.PLAN_RESULT)))
    job = shop.work_on(shop.add_plan())

    assert (job.state, job.result) == (JobState.SUCCEEDED, rows.PLAN_RESULT)
    assert rows.count(shop.database, Artifact) == 0


@pytest.mark.parametrize(
    "nonsense",
    [{}, {**rows.PLAN_RESULT, "candidates": []}, {**rows.PLAN_RESULT, "recommended": "another"}],
    ids=["nothing", "no candidate", "another recommended"],
)
def test_a_plan_that_makes_no_sense_is_an_internal_error(
    shop: Shop, runner: FakeRunner, nonsense: dict[str, object]
) -> None:
    runner.does(say(Result(result=nonsense)))
    job = shop.work_on(shop.add_plan())

    assert (job.state, last_event(shop, job.id)[1]["reason"]) == (JobState.QUEUED, "internal")


def test_an_evaluation_ends_with_its_result_and_its_artifacts(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(WRITE_FILES, say(Result(result=rows.EVALUATION_RESULT, files=[REPORT])))
    job = shop.work_on(shop.add_evaluation())

    assert (job.state, job.result) == (JobState.SUCCEEDED, rows.EVALUATION_RESULT)
    assert artifacts(shop, job.id) == {"report.json": b"{}"}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"after": None},
        {"verdict": {**rows.EVALUATION_RESULT["verdict"], "reliability": "trust me"}},
        {"targets": [{**rows.EVALUATION_RESULT["targets"][0], "interval": [0.4, 1.2]}]},
    ],
    ids=["no network", "unknown reliability", "an accuracy above 1"],
)
def test_an_evaluation_that_makes_no_sense_is_an_internal_error(
    shop: Shop, runner: FakeRunner, nonsense: dict[str, object]
) -> None:
    runner.does(WRITE_FILES, say(Result(result=rows.EVALUATION_RESULT | nonsense, files=[REPORT])))
    job = shop.work_on(shop.add_evaluation())

    assert (job.state, last_event(shop, job.id)[1]["reason"]) == (JobState.QUEUED, "internal")
    assert rows.count(shop.database, Artifact) == 0


def test_a_failure_with_an_unknown_code_is_internal(shop: Shop, runner: FakeRunner) -> None:
    runner.does(say(Failure(code="bad_luck", message="no")))
    job = shop.work_on(shop.add_job())

    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "internal")


def test_a_killed_runner_gives_its_job_back_with_the_last_lines_of_its_log(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(LAST_WORDS, say(Progress(phase="admm", progress=0.3)), die(9))
    job = shop.work_on(shop.add_job())

    assert (job.state, job.lost_attempts, job.lease_token) == (JobState.QUEUED, 1, None)
    assert last_event(shop, job.id) == (
        "job.queued",
        {
            "reason": "worker_lost",
            "message": "runner ended by SIGKILL; its last words: two\nthree\nfour",
        },
    )
    attempt = rows.read_attempt(shop.database, job.id, 1)
    assert (attempt.outcome, attempt.log) == ("worker_lost", "one\ntwo\nthree\nfour\n")


@pytest.mark.parametrize(
    ("end", "described"),
    [
        ("sys.exit(0)", "runner ended with status 0"),
        ("sys.exit(7)", "runner ended with status 7"),
        ("sys.exit(137)", "runner ended by SIGKILL"),  # as bubblewrap says it
        (die(6), "runner ended by SIGABRT"),
        (die(40), "runner ended with status -40"),  # a signal without a name
    ],
)
def test_a_runner_that_ends_without_a_word_is_lost(
    shop: Shop, runner: FakeRunner, end: str, described: str
) -> None:
    runner.does(end)
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.QUEUED
    assert last_event(shop, job.id)[1]["message"] == f"{described}; its last words: none"


def test_a_job_fails_when_its_last_attempt_is_lost(shop: Shop, runner: FakeRunner) -> None:
    runner.does(die(9))
    job = shop.with_settings(max_attempts=1).work_on(shop.add_job())

    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "worker_lost")
    assert job.error["retryable"]


def test_a_runner_that_leaves_a_child_behind_is_not_waited_for(
    shop: Shop, runner: FakeRunner
) -> None:
    """The child holds the pipe open; it is killed together with its group."""
    runner.does("pid = os.fork()", f"pid or {FOREVER}", say(Event(name="x", data={})), die(9))
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.QUEUED
    assert last_event(shop, job.id)[1]["reason"] == "worker_lost"


def test_a_runner_that_hangs_up_but_lives_on_is_killed(
    shop: Shop, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.supervisor.LAST_BREATH_S", 0.05)
    runner.does("os.close(1)", FOREVER)
    job = shop.work_on(shop.add_job())

    assert (job.state, runner.status) == (JobState.QUEUED, -9)


def test_a_runner_that_does_not_end_after_its_result_is_not_waited_for(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(say(Result(result={})), FOREVER)
    job = shop.work_on(shop.add_job())

    assert (job.state, runner.status) == (JobState.SUCCEEDED, -9)


def test_garbage_on_the_pipe_fails_the_job(shop: Shop, runner: FakeRunner) -> None:
    runner.does(say_bytes(b"Epoch 1: loss 0.3\n"), FOREVER)
    job = shop.work_on(shop.add_job())

    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "internal")
    assert job.error["message"].startswith("runner protocol: not a message")
    assert runner.status == -9


def test_a_result_after_garbage_counts_for_nothing(shop: Shop, runner: FakeRunner) -> None:
    filling = say(Event(name="x", data={"text": "y" * 70_000}))  # more than is read at once
    runner.does(say_bytes(b"garbage\n"), filling, say(Result(result={})))
    job = shop.work_on(shop.add_job())

    assert job.state == JobState.FAILED


def test_a_silent_runner_is_stalled(shop: Shop, runner: FakeRunner) -> None:
    runner.does(FOREVER)
    job = shop.with_settings(stall_timeout_s=0.1).work_on(shop.add_job())

    assert (job.state, runner.status) == (JobState.QUEUED, -9)
    assert last_event(shop, job.id)[1]["reason"] == "stalled"


def test_a_runner_past_the_jobs_max_runtime_is_a_timeout(shop: Shop, runner: FakeRunner) -> None:
    runner.does(FOREVER)
    job = shop.work_on(shop.add_job(max_runtime_s=10, running_s=9.9))

    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "timeout")
    assert runner.status == -9


def test_a_runner_that_says_it_has_stopped_unasked_is_lost(shop: Shop, runner: FakeRunner) -> None:
    """Whoever stops a machine may send SIGTERM to every process on it; once is no harm."""
    runner.does(say(Stopped()))
    job = shop.work_on(shop.add_job())

    assert (job.state, job.lost_attempts) == (JobState.QUEUED, 1)
    assert last_event(shop, job.id)[1]["reason"] == "worker_lost"


@pytest.mark.parametrize("watching", ["Channel", "Deadman"])
def test_a_runner_that_cannot_be_watched_is_ended(
    shop: Shop, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, watching: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(f"worker.supervisor.{watching}", fail)
    runner.does(FOREVER)
    job = shop.work_on(shop.add_job())

    assert (job.state, runner.status) == (JobState.QUEUED, -9)


def test_a_runner_that_died_is_reaped_when_no_deadman_can_meet_it(
    shop: Shop, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    call_off, end = Deadman.call_off, executors.end

    def note_end(process: subprocess.Popen[bytes], **patience: float) -> int:
        called.append("end")
        return end(process, **patience)

    def note_call_off(deadman: Deadman) -> None:
        called.append("call off")
        call_off(deadman)

    monkeypatch.setattr("worker.supervisor.end", note_end)
    monkeypatch.setattr(Deadman, "call_off", note_call_off)
    runner.does(die(9))
    shop.work_on(shop.add_job())

    assert called[:2] == ["call off", "end"]


def test_a_validation_that_fails_rejects_its_model(shop: Shop, runner: FakeRunner) -> None:
    runner.does(say(Failure(code="out_of_memory", message="too large", retryable=True)))
    job = shop.work_on(shop.add_validation(JobKind.VALIDATE_MODEL))

    with shop.database.reading() as session:
        model = session.get_one(Model, job.model_id)
    assert (job.state, model.status) == (JobState.FAILED, Status.REJECTED)
    assert model.reasons == [{"code": "out_of_memory", "detail": "too large"}]


def test_findings_that_make_no_sense_are_an_internal_error(shop: Shop, runner: FakeRunner) -> None:
    runner.does(say(Result(result={"architecture": None})))
    job = shop.work_on(shop.add_validation(JobKind.VALIDATE_MODEL))

    assert (job.state, last_event(shop, job.id)[1]["reason"]) == (JobState.QUEUED, "internal")
