"""A compressed model arrives in a real MLflow tracking server, with what was found of it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from cstar_client import Client
from cstar_client.mlflow import MlflowMissing, NothingToRegister, register
from store.states import JobState
from tests.api.world import World
from tests.support import rows
from tests.support.tracking import tracking_server

FILES = {
    "model.safetensors": b"weights",
    "architecture.json": b"{}",
    "loader.py": b"def load(): ...",
    "model.onnx": b"a graph",
    "plan.json": b"{}",
    "report.json": b"{}",
    "report.html": b"<html>",
}
RESULT = rows.EVALUATION_RESULT | {
    "ratio": 4.03,
    "before": rows.EVALUATION_RESULT["after"] | {"parameters": 4030},
}


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking_server(tmp_path_factory.mktemp("tracking") / "mlflow") as address:
        yield address


@pytest.fixture
def tracking(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def finished(client: Client, world: World, files: dict[str, bytes], **fields: Any) -> str:
    job_id = client.jobs.create(world.job_body(**fields))["id"]
    lease = world.bring(job_id, JobState.RUNNING)
    assert lease is not None
    world.finish(lease, *files.items(), result=RESULT)
    return job_id


@pytest.fixture
def job_id(client: Client, world: World) -> str:
    return finished(client, world, FILES, seed=7, labels={"team": "vision"})


def test_a_model_is_registered_with_its_verdict_and_hash(
    client: Client, job_id: str, tracking: MlflowClient, tracking_uri: str
) -> None:
    made = register(client, job_id, "resnet20", tracking_uri=tracking_uri)

    version = tracking.get_model_version("resnet20", made.version)
    assert (made.created, made.uri) == (True, f"models:/resnet20/{version.version}")
    assert version.run_id == made.run_id
    assert version.tags == {
        "cstar.job_id": job_id,
        "cstar.sha256": hashlib.sha256(b"weights").hexdigest(),
        "cstar.verdict": "met",
        "cstar.reliability": "reliable",
    }


def test_the_run_has_the_request_and_what_was_measured(
    client: Client, job_id: str, tracking: MlflowClient, tracking_uri: str
) -> None:
    made = register(client, job_id, "figures", tracking_uri=tracking_uri)

    run = tracking.get_run(made.run_id)
    assert (run.info.status, run.data.tags["cstar.label.team"]) == ("FINISHED", "vision")
    assert run.data.params["seed"] == "7"
    assert run.data.params["targets.compression.ratio"] == "4.0"
    metrics = run.data.metrics
    assert (metrics["ratio"], metrics["before/parameters"], metrics["after/parameters"]) == (
        4.03,
        4030,
        1000,
    )
    assert metrics["after/robust_accuracy/autoattack"] == 0.5
    assert metrics["after/clean_accuracy/low"] == 0.38
    assert metrics["after/latency_ms/batch_1"] == 0.5


def test_the_files_come_back_byte_for_byte(
    client: Client, job_id: str, tracking_uri: str, tmp_path: Path
) -> None:
    made = register(client, job_id, "files", tracking_uri=tracking_uri)

    at = {"tracking_uri": tracking_uri, "dst_path": str(tmp_path)}
    folder = Path(download_artifacts(run_id=made.run_id, **at))
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in FILES.items() if name != "plan.json"}
    assert (folder / "model" / "loader.py").exists()
    assert (folder / "report" / "report.html").exists()


def test_a_job_is_registered_once_under_a_name(
    client: Client, job_id: str, tracking: MlflowClient, tracking_uri: str
) -> None:
    first = register(client, job_id, "once", tracking_uri=tracking_uri)
    again = register(client, job_id, "once", tracking_uri=tracking_uri)

    assert (again.version, again.run_id, again.created) == (first.version, first.run_id, False)
    assert len(tracking.search_model_versions("name = 'once'")) == 1


def test_what_compressed_nothing_is_refused(
    client: Client, world: World, tracking_uri: str
) -> None:
    queued = client.jobs.create(world.job_body())
    with pytest.raises(NothingToRegister, match="queued"):
        register(client, queued, "nothing", tracking_uri=tracking_uri)
    reports = finished(client, world, {"report.json": b"{}"})
    with pytest.raises(NothingToRegister, match=r"no model\.safetensors"):
        register(client, reports, "nothing", tracking_uri=tracking_uri)


def test_a_hand_over_that_breaks_off_leaves_a_failed_run_and_no_version(
    client: Client,
    job_id: str,
    tracking: MlflowClient,
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: Any, **named: Any) -> Path:
        raise ConnectionError("gone")

    monkeypatch.setattr(type(client.jobs), "download", broken)
    with pytest.raises(ConnectionError):
        register(client, job_id, "broken", tracking_uri=tracking_uri, experiment="broken")

    experiment = tracking.get_experiment_by_name("broken")
    (run,) = tracking.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert tracking.search_model_versions("name = 'broken'") == []


def test_without_the_extra_it_says_how_to_install_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MlflowMissing, match=r"cstar-service\[mlflow\]"):
        register(client, "job_1", "any")


def test_importing_the_module_imports_no_mlflow() -> None:
    code = "import sys, cstar_client.mlflow; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
