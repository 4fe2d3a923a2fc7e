"""The documents of the API, as far as this package reads them; a newer service may add fields.

`openapi.json` describes every field; times are RFC 3339 text in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

Purpose = Literal["checkpoint", "dataset"]
Norm = Literal["linf", "l2"]
Profile = Literal["quick", "paper", "best"]
Method = Literal[
    "cstar", "fixed_rank_admm", "uniform_ranks", "one_shot_tucker", "filter_pruning", "small_dense"
]
FINAL = frozenset({"succeeded", "failed", "cancelled"})
"""The states of a job that are never left."""


class Compression(TypedDict, total=False):
    """How small: at least one limit. Milliseconds are for one image on the worker's device."""

    ratio: float
    max_params: int
    max_macs: int
    max_bytes: int
    max_latency_ms: float


class Robustness(TypedDict):
    """Against whom: `epsilon` is in [0, 1] pixel space."""

    norm: Norm
    epsilon: float
    min_accuracy: NotRequired[float | None]


class Targets(TypedDict):
    """What the model must be; `compression` is for a compression, which cannot do without."""

    compression: NotRequired[Compression]
    robustness: Robustness
    min_clean_accuracy: NotRequired[float | None]


class JobFields(TypedDict, total=False):
    """What else a job can be told; docs/api.md explains each."""

    method: Method
    profile: Profile
    seed: int
    evaluation: Mapping[str, int]
    options: Mapping[str, Any]
    labels: Mapping[str, str]
    priority: int
    device: Literal["any", "cpu", "gpu"]
    max_runtime_s: int | None


class InputSpec(TypedDict):
    """What the network eats: (C, H, W) images in [0, 1], then (x - mean) / std per channel."""

    shape: list[int]
    mean: list[float]
    std: list[float]


class File(TypedDict):
    """An uploaded file; `sha256` is hexadecimal."""

    id: str
    filename: str
    purpose: Purpose
    bytes: int
    sha256: str
    created_at: str


class Reason(TypedDict):
    """Why a model or data set was rejected."""

    code: str
    detail: str


class Model(TypedDict):
    """A model; `parameters` and `macs` are known once it is ready."""

    id: str
    name: str
    status: Literal["validating", "ready", "rejected"]
    architecture: dict[str, Any] | None
    parameters: int | None
    macs: int | None
    input: InputSpec
    num_classes: int
    reasons: list[Reason]
    file_id: str
    created_at: str


class Dataset(TypedDict):
    """A data set; `shape` is [C, H, W] and known once it is ready."""

    id: str
    name: str
    status: Literal["validating", "ready", "rejected"]
    num_examples: dict[str, int] | None
    shape: list[int] | None
    num_classes: int | None
    sha256: str | None
    reasons: list[Reason]
    file_id: str
    created_at: str


class Failure(TypedDict):
    """Why a job or plan failed; `code` is one of those of docs/errors.md."""

    code: str
    message: str
    retryable: bool
    phase: str | None
    attempt: int


class Plan(TypedDict):
    """A dry run; once it is ready `plan` is the recommended one of `candidates`."""

    id: str
    status: Literal["planning", "ready", "failed"]
    model_id: str
    profile: str
    error: Failure | None
    cached: bool
    device: str | None
    plan: dict[str, Any] | None
    candidates: list[dict[str, Any]]
    created_at: str
    finished_at: str | None


class Job(TypedDict):
    """A job; `progress` is in 0..1, `eta_s` in seconds."""

    id: str
    kind: Literal["compress", "evaluate"]
    status: str
    phase: str | None
    progress: float
    eta_s: float | None
    queue_position: int | None
    notice: str | None
    attempt: int
    model_id: str
    dataset_id: str
    baseline_model_id: str | None
    method: str | None
    profile: str | None
    seed: int
    targets: Targets
    options: dict[str, Any] | None
    labels: dict[str, str]
    priority: int
    retried_from: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    error: Failure | None
    result: dict[str, Any] | None


class Event(TypedDict):
    """Something that happened to a job; `seq` counts from 1 without a gap."""

    seq: int
    type: str
    attempt: int
    data: dict[str, Any]
    created_at: str


class Metric(TypedDict):
    """A measured value; `step` counts the epochs of its phase."""

    seq: int
    phase: str
    name: str
    step: int
    value: float
    created_at: str


class Artifact(TypedDict):
    """A file that a succeeded job left; `sha256` is hexadecimal."""

    id: str
    kind: str
    filename: str
    bytes: int
    sha256: str
    media_type: str


class Worker(TypedDict):
    """A worker process; `facts` tell its device and sandbox."""

    id: str
    hostname: str
    pid: int
    queues: list[str]
    facts: dict[str, Any]
    started_at: str
    last_seen_at: str


Reference = str | Mapping[str, Any]
"""A document, or its id."""


def identifier(reference: Reference) -> str:
    """Return the id of a document, or the id itself."""
    return reference if isinstance(reference, str) else str(reference["id"])
