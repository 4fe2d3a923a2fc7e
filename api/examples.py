"""Bodies that the OpenAPI document shows: what a pipeline sends first, with ids to be replaced."""

from __future__ import annotations

from typing import Any

_MODEL = {
    "name": "resnet20",
    "file_id": "file_01k0c6z1v5f3w7q9n2m4b8x0ta",
    "architecture": "auto",
    "input": {"shape": [3, 32, 32], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "num_classes": 10,
}
_DATASET = {
    "name": "cifar10",
    "file_id": "file_01k0c6z3c2h8d4r6s0p1y5j7ge",
    "format": "npz",
}
_ROBUST = {"norm": "linf", "epsilon": 0.03137, "min_accuracy": 0.3}
_IDS = {
    "model_id": "mdl_01k0c6z5m9a2e8k4t6v0w3q7nb",
    "dataset_id": "dts_01k0c6z7x4g6f2j8y0c5r1p9sd",
}
_COMPRESSION = {
    **_IDS,
    "profile": "quick",
    "targets": {
        "compression": {"ratio": 4.0},
        "robustness": _ROBUST,
        "min_clean_accuracy": 0.6,
    },
    "labels": {"team": "vision"},
}
_EVALUATION = {**_IDS, "kind": "evaluate", "targets": {"robustness": _ROBUST}}
_SWEEP = {**_IDS, "ratios": [2.0, 4.0, 8.0], "targets": {"robustness": _ROBUST}}
_UPLOAD = {
    "filename": "resnet20.safetensors",
    "purpose": "checkpoint",
    "bytes": 1_079_000,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
_ENDPOINT = {
    "url": "https://ci.example.com/hooks/cstar",
    "events": ["job.succeeded", "job.failed"],
}
_KEY = {"name": "ci", "scopes": ["files:write", "jobs:read", "jobs:write"], "expires_in_s": 2592000}
_PLAN = {"model_id": _IDS["model_id"], "targets": {"compression": {"ratio": 4.0}}}

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "ModelRequest": [_MODEL],
    "DatasetRequest": [_DATASET],
    "PlanRequest": [_PLAN],
    "JobRequest": [_COMPRESSION, _EVALUATION],
    "SweepRequest": [_SWEEP],
    "UploadRequest": [_UPLOAD],
    "WebhookEndpointRequest": [_ENDPOINT],
    "KeyRequest": [_KEY],
}
