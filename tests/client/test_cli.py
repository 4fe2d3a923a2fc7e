"""The `cstar` command: what it prints where, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cstar_client import Client
from cstar_client.cli.app import app
from store.states import JobState, Status
from tests.api.world import World, archive
from tests.client.conftest import Access, Run
from tests.support import rows
from tests.support.scripted import scripted

EPSILON = ("--epsilon", "8/255")


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def met(outcome: str) -> dict[str, Any]:
    result = json.loads(json.dumps(rows.EVALUATION_RESULT))
    result["targets"][0]["outcome"] = outcome
    return dict(result)


def ended_job(client: Client, world: World, outcome: str) -> str:
    """Return the id of an evaluation that has succeeded with this outcome."""
    job_id = client.jobs.create(world.evaluation_body())["id"]
    lease = world.bring(job_id, JobState.RUNNING)
    assert lease
    world.finish(lease, ("model.safetensors", b"weights"), result=met(outcome))
    return job_id


def test_an_upload_prints_its_id_and_nothing_else(cstar: Run, client: Client) -> None:
    Path("weights.pt").write_bytes(archive())
    result = cstar("upload", "weights.pt")

    assert result.exit_code == 0, result.output
    (file,) = client.files.list()
    assert result.stdout == f"{file['id']}\n"
    assert file["purpose"] == "checkpoint"


def test_with_json_every_answer_is_a_document(cstar: Run, world: World) -> None:
    model, dataset = world.model(), world.dataset()

    assert document(cstar("models", "get", model, "--json"))["id"] == model
    assert [one["id"] for one in document(cstar("models", "ls", "--json"))] == [model]
    assert [one["id"] for one in document(cstar("datasets", "ls", "--json"))] == [dataset]
    assert document(cstar("workers", "--json")) == []
    job = document(
        cstar("jobs", "submit", model, "--data", dataset, "--ratio", "4", *EPSILON, "--json")
    )
    assert job["targets"]["robustness"]["epsilon"] == 8 / 255
    assert document(cstar("jobs", "get", "latest", "--json"))["id"] == job["id"]
    assert document(cstar("jobs", "logs", job["id"], "--json"))["logs"] == ""
    assert document(cstar("jobs", "cancel", "latest", "--json"))["status"] == "cancelled"
    assert document(cstar("jobs", "retry", "latest", "--json"))["retried_from"] == job["id"]


def test_a_job_is_submitted_as_asked_and_its_id_printed(
    cstar: Run, client: Client, world: World
) -> None:
    words = ["--data", world.dataset(), "--ratio", "4", "--max-bytes", "9999", *EPSILON]
    words += ["--label", "team=vision", "--option", "admm_epochs=2", "--profile", "best"]
    words += ["--evaluation", "examples=40", "--min-accuracy", "0.3", "--seed", "7"]
    result = cstar("jobs", "submit", world.model(), *words)

    assert result.exit_code == 0, result.output
    job = client.jobs.get(result.stdout.strip())
    assert job["targets"]["compression"]["ratio"] == 4
    assert job["targets"]["compression"]["max_bytes"] == 9999
    assert job["targets"]["robustness"]["min_accuracy"] == 0.3
    assert (job["profile"], job["seed"], job["labels"]) == ("best", 7, {"team": "vision"})
    assert job["options"]
    assert job["options"]["admm_epochs"] == 2
    assert "cstar jobs watch" in result.stderr


def test_a_key_makes_a_command_repeatable(cstar: Run, world: World) -> None:
    words = ["jobs", "submit", world.model(), "--data", world.dataset(), "--ratio", "4", *EPSILON]
    first = cstar(*words, "--idempotency-key", "build-17")
    second = cstar(*words, "--idempotency-key", "build-17")

    assert first.stdout == second.stdout != ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--epsilon", "8/255"], "--ratio 4"),
        (["--ratio", "4", "--epsilon", "much"], "8/255"),
        (["--ratio", "4", "--epsilon", "8/0"], "8/255"),
        (["--ratio", "4", "--epsilon", "1e999"], "8/255"),
        (["--ratio", "nan", *EPSILON], "no number"),
        (["--ratio", "4", *EPSILON, "--min-accuracy", "inf"], "no number"),
        (["--ratio", "4", *EPSILON, "--label", "team"], "NAME=VALUE"),
        (["--ratio", "4", *EPSILON, "--profile", "slow"], "paper"),
    ],
    ids=[
        "no limit",
        "no number",
        "no fraction",
        "too large",
        "nan",
        "inf",
        "no pair",
        "no profile",
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_hint(
    cstar: Run, world: World, words: list[str], hint: str
) -> None:
    result = cstar("jobs", "submit", world.model(), "--data", world.dataset(), *words)

    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stdout == ""


def test_a_checkpoint_without_its_normalisation_is_not_guessed_about(
    cstar: Run, world: World, client: Client
) -> None:
    Path("weights.pt").write_bytes(archive())
    words = ["--data", world.dataset(), "--ratio", "4", *EPSILON]
    result = cstar("jobs", "submit", "weights.pt", *words)

    assert result.exit_code == 2
    assert "--mean" in result.stderr
    assert len(archive()) not in [file["bytes"] for file in client.files.list()]


def test_a_refusal_ends_with_1_and_points_at_the_field(cstar: Run, world: World) -> None:
    words = ["--data", world.dataset(), "--ratio", "4000", *EPSILON]
    result = cstar("jobs", "submit", world.model(), *words)

    assert result.exit_code == 1
    assert "target_infeasible" in result.stderr
    assert "/targets/compression/ratio" in result.stderr
    assert "req_" in result.stderr


def test_with_json_a_refusal_is_a_document_too(cstar: Run) -> None:
    result = cstar("jobs", "get", "job_none", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "not_found"


def test_without_a_service_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["jobs", "ls"])

    assert result.exit_code == 1
    assert "CSTAR_URL" in result.stderr


def test_flags_come_before_the_environment(cstar: Run, access: Access) -> None:
    refused = cstar("jobs", "ls", "--api-key", "cst_wrong")
    unreachable = cstar("jobs", "ls", "--url", "nonsense")

    assert "unauthenticated" in refused.stderr
    assert "nonsense" in unreachable.stderr


@pytest.mark.parametrize(
    "words",
    [("jobs", "ls", "--patience", "0.1"), ("jobs", "watch", "job_1", "--timeout", "0.1")],
    ids=["patience", "timeout"],
)
def test_a_service_that_is_away_is_tried_again_as_long_as_said_and_people_are_told(
    words: Sequence[str], cstar: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cstar_client.cli.session.MESSAGE_WAIT_S", 0.0)
    with scripted() as script:
        url = script.url
    result = cstar(*words, "--url", url)

    assert result.exit_code == 1
    assert "trying again" in result.stderr
    assert "0.1 s at most" in result.stderr
    assert "error: no answer from" in result.stderr


@pytest.mark.parametrize(("outcome", "code"), [("met", 0), ("missed", 4)])
def test_watching_ends_as_the_targets_came_out(
    cstar: Run, client: Client, world: World, outcome: str, code: int
) -> None:
    ended_job(client, world, outcome)
    result = cstar("jobs", "watch", "latest")

    assert result.exit_code == code
    assert f"robust_accuracy: asked 0.3, got 0.5 in [0.380, 0.620]: {outcome}" in result.stdout


@pytest.mark.parametrize(("state", "code"), [(JobState.FAILED, 3), (JobState.CANCELLED, 5)])
def test_watching_a_job_without_a_result_ends_with_its_code(
    cstar: Run, client: Client, world: World, state: JobState, code: int
) -> None:
    job = client.jobs.create(world.job_body())
    world.bring(job["id"], state)

    assert cstar("jobs", "watch", job["id"]).exit_code == code
    assert cstar("jobs", "watch", job["id"], "--json").exit_code == code


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_timeout_ends_with_6_and_leaves_the_job_alone(
    cstar: Run, client: Client, world: World, form: list[str]
) -> None:
    job = client.jobs.create(world.job_body())
    result = cstar("jobs", "watch", job["id"], "--timeout", "0.1", *form)

    assert result.exit_code == 6
    assert client.jobs.get(job)["status"] == "queued"


def test_ctrl_c_leaves_the_job_running_and_says_so(
    cstar: Run, client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    job = client.jobs.create(world.job_body())
    monkeypatch.setattr("cstar_client.cli.commands.jobs.watch", interrupted)
    result = cstar("jobs", "watch", job["id"])

    assert result.exit_code == 130
    assert f"{job['id']} keeps running" in result.stderr
    assert client.jobs.get(job)["status"] == "queued"


def test_with_json_a_watched_job_is_its_events_one_a_line(
    cstar: Run, client: Client, world: World
) -> None:
    job_id = ended_job(client, world, "met")
    result = cstar("jobs", "watch", job_id, "--json")

    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events == list(client.jobs.events(job_id, live=False))


def test_artifacts_are_downloaded_and_their_paths_printed(
    cstar: Run, client: Client, world: World
) -> None:
    job_id = ended_job(client, world, "met")
    result = cstar("download", "latest", "-o", "out")

    assert result.stdout == "out/model.safetensors\n"
    assert Path("out/model.safetensors").read_bytes() == b"weights"
    assert document(cstar("download", job_id, "--json"))["files"] == [f"{job_id}/model.safetensors"]


@pytest.mark.parametrize(("status", "code"), [("queued", 1), ("cancelled", 5)])
def test_a_job_that_left_nothing_is_an_error_that_says_why(
    cstar: Run, client: Client, world: World, status: str, code: int
) -> None:
    job = client.jobs.create(world.job_body())
    if status == "cancelled":
        client.jobs.cancel(job)
    result = cstar("download", job["id"])

    assert (result.exit_code, result.stdout) == (code, "")
    assert status in result.stderr
    assert not Path(job["id"]).exists()


def test_a_file_is_downloaded_into_a_folder_under_its_name(cstar: Run, client: Client) -> None:
    Path("weights.pt").write_bytes(archive())
    file = client.files.upload("weights.pt", purpose="checkpoint")
    Path("out").mkdir()

    assert cstar("download", file["id"], "-o", "out").stdout == "out/weights.pt\n"
    assert Path("out/weights.pt").read_bytes() == archive()


def test_a_file_that_cannot_be_written_is_an_error_and_no_traceback(
    cstar: Run, client: Client, world: World
) -> None:
    ended_job(client, world, "met")
    Path("taken").touch()
    result = cstar("download", "latest", "-o", "taken", "--json")

    assert result.exit_code == 1
    assert "taken" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "FileExistsError"


def test_a_kind_of_artifact_that_is_not_there_is_told_with_those_that_are(
    cstar: Run, client: Client, world: World
) -> None:
    ended_job(client, world, "met")
    result = cstar("download", "latest", "--only", "onnx")

    assert result.exit_code == 2
    assert "checkpoint" in result.stderr


def test_a_rejected_model_is_an_error_with_its_reasons(cstar: Run, world: World) -> None:
    reason = {"code": "no_labels", "title": "x", "type": "/x", "detail": "There are no labels."}
    dataset = world.dataset(status=Status.REJECTED, reasons=[reason])
    result = cstar("evaluate", world.model(), "--data", dataset, *EPSILON)

    assert result.exit_code == 1
    assert "There are no labels." in result.stderr


def test_help_teaches_by_examples_and_tells_the_exit_codes() -> None:
    root = CliRunner().invoke(app, ["--help"]).stdout
    submit = CliRunner().invoke(app, ["jobs", "submit", "--help"]).stdout

    assert "cstar download latest" in root
    assert "4  the job succeeded and misses a target" in root
    assert "--epsilon 8/255" in submit
    assert "--patience" in submit


def test_what_the_service_brings_is_told_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cstar_client.cli.commands.server.entry_points", lambda **_: [])
    result = CliRunner().invoke(app, ["up", "--detach"])

    assert result.exit_code == 1
    assert "make up" in result.stderr


def test_what_the_service_brings_gets_its_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def load(self) -> Callable[[list[str]], int]:
            return len

    monkeypatch.setattr("cstar_client.cli.commands.server.entry_points", lambda **_: [Entry()])

    assert CliRunner().invoke(app, ["doctor", "--json", "--help"]).exit_code == 2
