"""What the end-to-end tests ask of the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cstar_client import Client
from stack.demo.digits import CLASSES, MEAN, SHAPE, STD

CHECKPOINT = Path("stack/demo/digits_resnet8.safetensors").resolve()
INPUT = {"shape": SHAPE, "mean": MEAN, "std": STD}


@dataclass(frozen=True)
class Uploads:
    """A validated model and data set."""

    model: dict[str, Any]
    dataset: dict[str, Any]


def model_body(file_id: str, **changes: Any) -> dict[str, Any]:
    """Return a request for a model of the digits."""
    body = {
        "name": "digits",
        "file_id": file_id,
        "architecture": "auto",
        "input": INPUT,
        "num_classes": CLASSES,
    }
    return {**body, **changes}


def upload_digits(client: Client, digits_file: Path) -> Uploads:
    """Upload the demo's network and data and wait until both are ready."""
    checkpoint = client.upload(CHECKPOINT, purpose="checkpoint")
    data = client.upload(digits_file, purpose="dataset")
    model = client.create("models", model_body(checkpoint["id"]))
    dataset = client.create("datasets", {"name": "digits", "file_id": data["id"]})
    model, dataset = client.wait("models", model["id"]), client.wait("datasets", dataset["id"])
    assert (model["status"], dataset["status"]) == ("ready", "ready"), (model, dataset)
    return Uploads(model, dataset)


def job_body(uploads: Uploads, **changes: Any) -> dict[str, Any]:
    """Return a request for the smallest job that goes through every phase with training."""
    body = {
        "model_id": uploads.model["id"],
        "dataset_id": uploads.dataset["id"],
        "profile": "quick",
        "seed": 3,
        "targets": {
            "compression": {"ratio": 4.5},
            # more than the uploaded network can do, so that it is trained first
            "robustness": {"norm": "linf", "epsilon": 0.1, "min_accuracy": 0.99},
        },
        "evaluation": {"examples": 64, "autoattack_examples": 4, "probe_examples": 8},
        "options": {
            "dense_epochs": 3,
            "admm_epochs": 8,
            "finetune_epochs": 8,
            "examples_per_epoch": 1024,
        },
    }
    return {**body, **changes}
