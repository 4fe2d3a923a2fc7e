"""A client that another tool writes from openapi.json works."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz.campaign import DOCUMENT
from tests.fuzz.service import Service, service

PACKAGE = "generated_from_openapi"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A function that imports a module of the client that was generated."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
    command += ["--path", str(DOCUMENT), "--config", str(folder / "config.yml")]
    command += ["--meta", "none", "--output-path", str(folder / PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    sys.path.remove(str(folder))


def test_a_generated_client_submits_a_job_and_reads_it(running: Service, generated: Any) -> None:
    models = generated("models")
    body = models.JobRequest(
        model_id=running.things.kept["model_id"][0],
        dataset_id=running.things.kept["dataset_id"][0],
        targets=models.Targets(
            compression=models.CompressionTarget(ratio=4.0),
            robustness=models.RobustnessTarget(epsilon=0.03137),
        ),
    )
    with generated("client").AuthenticatedClient(running.url, token=running.owner_key) as client:
        made = generated("api.jobs.create_job").sync(client=client, body=body)
        found = generated("api.jobs.get_job").sync(made.id, client=client)
        assert (found.id, found.state, found.targets.compression.ratio) == (made.id, "queued", 4.0)


def test_a_generated_client_reads_a_refusal(running: Service, generated: Any) -> None:
    with generated("client").AuthenticatedClient(running.url, token="cst_unknown") as client:
        problem = generated("api.jobs.list_jobs").sync(client=client)
    assert (problem.status, problem.code) == (401, "unauthenticated")
