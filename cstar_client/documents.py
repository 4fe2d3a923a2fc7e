"""The documents of the API, as far as this package reads them; a newer service may add fields.

`openapi.json` describes every field; times are RFC 3339 text in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import quote

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


class Part(TypedDict):
    """A part that has arrived; parts are numbered from 1."""

    number: int
    bytes: int
    sha256: str | None


class PresignedPart(TypedDict):
    """Where the store itself takes a missing part."""

    number: int
    url: str


class Upload(TypedDict):
    """A file on its way in parts; all have `part_bytes` but the last."""

    id: str
    status: Literal["open", "completing", "completed", "cancelled", "expired"]
    filename: str
    purpose: Purpose
    bytes: int
    sha256: str
    part_bytes: int
    part_count: int
    file: File | None
    parts: list[Part]
    missing_parts: list[int]
    presigned_parts: list[PresignedPart]


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
    version: int
    aliases: list[str]
    parent_model_id: str | None
    job_id: str | None
    reasons: list[Reason]
    file_id: str | None
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


class Sweep(TypedDict):
    """Several compressions; its status is told by its jobs."""

    id: str
    status: Literal["running", "succeeded", "partly_failed", "failed", "cancelled"]
    progress: float
    counts: dict[str, int]
    model_id: str
    dataset_id: str
    ratios: list[float]
    profiles: list[str]
    seeds: list[int]
    jobs: list[dict[str, Any]]
    created_at: str
    finished_at: str | None


Axis = Literal["parameters", "macs", "bytes", "latency_ms", "clean_accuracy", "robust_accuracy"]


class Accuracy(TypedDict):
    """A fraction of `n` examples with its 95 % interval."""

    value: float
    n: int
    interval: list[float]


class ParetoPoint(TypedDict):
    """One network; `on_front` is null when an axis was not measured."""

    id: str
    kind: Literal["dense", "compressed"]
    job_id: str
    model_id: str | None
    dataset_id: str
    method: str | None
    profile: str | None
    seed: int | None
    ratio: float | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    latency_ms: float | None
    clean_accuracy: Accuracy | None
    robust_accuracy: Accuracy | None
    on_front: bool | None
    dominated_by: str | None


class Pareto(TypedDict):
    """The succeeded compressions of a model, or of a sweep, newest first."""

    model_id: str
    sweep_id: str | None
    axes: list[Axis]
    data: list[ParetoPoint]
    truncated: bool


class ApiKey(TypedDict):
    """A key without its text."""

    id: str
    name: str
    prefix: str | None
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class NewApiKey(ApiKey):
    """A key that was just made; `key` is null in a repeated answer."""

    key: str | None


class WebhookEndpoint(TypedDict):
    """An address that is told what happens; `notice` says what to do if it was disabled."""

    id: str
    url: str
    description: str
    events: list[str]
    enabled: bool
    failing_since: str | None
    notice: str | None
    created_at: str


class NewWebhookEndpoint(WebhookEndpoint):
    """An endpoint with a new secret; null in a repeated answer."""

    secret: str | None


class WebhookDelivery(TypedDict):
    """A message on its way to one endpoint."""

    id: str
    endpoint_id: str
    type: str
    status: str
    attempts: int
    response_status: int | None
    error: str | None
    next_attempt_at: str | None
    created_at: str


class Alias(TypedDict):
    """What `name@alias` stands for."""

    name: str
    alias: str
    model_id: str


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


class Architecture(TypedDict):
    """An architecture: `arguments` and their defaults, and the parameters it has with those."""

    name: str
    summary: str
    arguments: dict[str, int | bool | str]
    input_shape: list[int]
    parameters: int


class Amount(TypedDict):
    """How much there is of something, and of how much; without a limit, None."""

    used: int
    limit: int | None


class Usage(TypedDict):
    """What a tenant has of what is limited."""

    jobs: Amount
    bytes: Amount
    models: Amount
    datasets: Amount
    uploads: Amount
    webhook_endpoints: Amount
    keys: Amount


class AuditEvent(TypedDict):
    """A change; `key_id` is None for the operator, `created` is everything that was made."""

    id: str
    action: str
    key_id: str | None
    object_id: str | None
    created: list[str]
    request_id: str | None
    client_address: str | None
    created_at: str


Reference = str | Mapping[str, Any]
"""A document, or its id."""


def targets(
    norm: Norm, epsilon: float, min_accuracy: float | None, min_clean_accuracy: float | None
) -> Targets:
    """Return what a model must withstand and keep."""
    return {
        "robustness": {"norm": norm, "epsilon": epsilon, "min_accuracy": min_accuracy},
        "min_clean_accuracy": min_clean_accuracy,
    }


def identifier(reference: Reference) -> str:
    """Return the id of a document, or the id itself."""
    return reference if isinstance(reference, str) else str(reference["id"])


def segment(reference: Reference) -> str:
    """Return the id as a part of a path: it leads nowhere else, whatever is in it."""
    return quote(identifier(reference), safe="@")
