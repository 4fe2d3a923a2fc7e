"""What a client sees of a frontier."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from store.results import AccuracyResult

Axis = Literal["parameters", "macs", "bytes", "latency_ms", "clean_accuracy", "robust_accuracy"]


class ThreatDocument(BaseModel):
    """Against whom a network was attacked; `epsilon` is in [0, 1] pixel space."""

    norm: str
    epsilon: float


class PointDocument(BaseModel):
    """One network on one data set against one attacker; points of others are not compared with it.

    `id` is that of the job, or of the model for the dense network, whose figures are those of its
    newest compression (`job_id`). `robust_accuracy` is AutoAttack's, as it is for targets, or the
    lowest there is. `on_front` is null when an axis was not measured, `dominated_by` a point on
    the front that is nowhere worse and somewhere better.
    """

    id: str
    kind: Literal["dense", "compressed"]
    job_id: str
    model_id: str | None
    dataset_id: str
    threat: ThreatDocument
    method: str | None
    profile: str | None
    seed: int | None
    ratio: float | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    latency_ms: float | None
    clean_accuracy: AccuracyResult | None
    robust_accuracy: AccuracyResult | None
    on_front: bool | None = None
    dominated_by: str | None = None


class ParetoDocument(BaseModel):
    """The succeeded compressions of a model, or of a sweep, newest first.

    `axes` are those on which points were compared. `truncated`: older ones were left out.
    """

    object: Literal["pareto"] = "pareto"
    model_id: str
    sweep_id: str | None
    axes: list[Axis]
    data: list[PointDocument]
    truncated: bool
