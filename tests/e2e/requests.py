"""What the end-to-end tests ask of the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cstar_client import Client
from cstar_client.documents import Dataset, InputSpec, Model
from stack.demo.digits import MEAN, SHAPE, STD

CHECKPOINT = Path("stack/demo/digits_resnet8.safetensors").resolve()
INPUT: InputSpec = {"shape": list(SHAPE), "mean": list(MEAN), "std": list(STD)}


@dataclass(frozen=True)
class Uploads:
    """A validated model and data set."""

    model: Model
    dataset: Dataset


def upload_digits(client: Client, digits_file: Path) -> Uploads:
    """Upload the demo's network and data and wait until both are ready."""
    dataset = client.datasets.upload(digits_file)
    model = client.models.upload(CHECKPOINT, dataset, mean=MEAN, std=STD)
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
