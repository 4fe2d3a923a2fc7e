"""A network that somebody else trained and published, uploaded as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cstar_client import Client
from cstar_client.documents import Job
from tests.support import cifar10

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ACCURACY = 0.9173  # measured by others on the same 10,000 images


@pytest.fixture(scope="module")
def job(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = cifar10.data_folder()
    packed = cifar10.pack(folder, tmp_path_factory.mktemp("cifar10") / "cifar10.npz")
    checkpoint = folder / "checkpoints" / "resnet20-12fca82f.th"
    dataset = client.datasets.upload(packed)
    packed.unlink()
    model = client.models.upload(checkpoint, dataset, mean=MEAN, std=STD)
    created = client.jobs.create(_body(model["id"], dataset["id"]))
    return client.jobs.wait(created, check=False)


def _body(model_id: str, dataset_id: str) -> dict[str, Any]:
    return {
        "model_id": model_id,
        "dataset_id": dataset_id,
        "profile": "quick",
        "targets": {
            "compression": {"ratio": 4.0},
            "robustness": {"norm": "linf", "epsilon": 8 / 255},
        },
        "evaluation": {"examples": 128, "autoattack_examples": 4, "probe_examples": 8},
        # the profile's stages at a size for a test
        "options": {
            "dense_epochs": 1,
            "admm_epochs": 2,
            "finetune_epochs": 2,
            "examples_per_epoch": 512,
        },
    }


def test_a_quick_job_at_4x_succeeds(job: Job) -> None:
    assert job["status"] == "succeeded", job["error"]
    assert job["result"]
    assert job["result"]["ratio"] >= 4.0


def test_the_report_gives_the_published_accuracy_of_the_uploaded_network(
    client: Client, job: Job, tmp_path: Path
) -> None:
    artifacts = client.jobs.artifacts(job)
    (report,) = [artifact for artifact in artifacts if artifact["kind"] == "report"]
    content = json.loads(client.jobs.download(report, tmp_path).read_text())
    clean = content["evaluation"]["before"]["clean"]

    assert (clean["n"], clean["value"]) == (10_000, ACCURACY)
