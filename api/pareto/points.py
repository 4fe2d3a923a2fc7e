"""Points of a frontier: from the results of jobs, compared among those that can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from api.pareto.dominance import Costs, dominators
from api.pareto.schemas import Axis, PointDocument, ThreatDocument
from store.results import AccuracyResult, NetworkResult
from store.tables import Job

_MORE_IS_BETTER: frozenset[Axis] = frozenset({"clean_accuracy", "robust_accuracy"})
_HEADLINE = "autoattack"
_LATENCY = ("batch 1", "median_ms")


def compressed_point(job: Job, *, model_id: str | None) -> PointDocument:
    """Return the network a compression came to; `model_id` is what was registered of it."""
    ratio = _number((job.result or {}).get("ratio"))
    return _point(job, "after", id=job.id, kind="compressed", model_id=model_id, ratio=ratio)


def dense_points(jobs: Sequence[Job]) -> list[PointDocument]:
    """Return the network the jobs began with, once for each data set and attacker.

    `jobs` are the newest first.
    """
    newest: dict[tuple[str, str, float], PointDocument] = {}
    for job in jobs:
        model_id = str(job.model_id)
        point = _point(job, "before", id=model_id, kind="dense", model_id=model_id, ratio=1.0)
        newest.setdefault(_comparable(point), point)
    return list(newest.values())


def compare(points: Sequence[PointDocument], axes: Sequence[Axis]) -> None:
    """Write into each point whether it is on the front of those it can be compared with."""
    groups: dict[tuple[str, str, float], list[tuple[PointDocument, Costs]]] = {}
    for point in points:
        costs = _costs(point, axes)
        if costs is not None:
            groups.setdefault(_comparable(point), []).append((point, costs))
    for group in groups.values():
        for (point, _), by in zip(group, dominators([each[1] for each in group]), strict=True):
            point.on_front = by is None
            point.dominated_by = None if by is None else group[by][0].id


def _comparable(point: PointDocument) -> tuple[str, str, float]:
    return point.dataset_id, point.threat.norm, point.threat.epsilon


def _costs(point: PointDocument, axes: Sequence[Axis]) -> Costs | None:
    values = [_value(point, axis) for axis in axes]
    return None if None in values else tuple(value for value in values if value is not None)


def _value(point: PointDocument, axis: Axis) -> float | None:
    figure = getattr(point, axis)
    value = figure.value if isinstance(figure, AccuracyResult) else figure
    if value is None:
        return None
    return -float(value) if axis in _MORE_IS_BETTER else float(value)


def _point(job: Job, network: str, **identity: Any) -> PointDocument:
    robustness = job.request["targets"]["robustness"]
    trained = identity["kind"] == "compressed"
    return PointDocument.model_validate(
        identity
        | {"job_id": job.id, "dataset_id": job.dataset_id}
        | {"threat": ThreatDocument.model_validate(robustness)}
        | {name: job.request.get(name) if trained else None for name in _ASKED}
        | _figures((job.result or {}).get(network))
    )


_ASKED = ("method", "profile", "seed")


def _figures(network: object) -> dict[str, Any]:
    """Return what was measured; all of it null where the result of a job does not say."""
    try:
        found = NetworkResult.model_validate(network)
    except ValidationError:
        return dict.fromkeys(get_args(Axis))
    sizes = {name: getattr(found, name) for name in ("parameters", "macs", "bytes")}
    return sizes | {
        "latency_ms": _latency(found.latency_ms),
        "clean_accuracy": found.clean_accuracy,
        "robust_accuracy": _robust(found.robust_accuracy),
    }


def _robust(figures: Mapping[str, AccuracyResult]) -> AccuracyResult | None:
    lowest = min(figures.values(), key=lambda figure: figure.value, default=None)
    return figures.get(_HEADLINE, lowest)


def _latency(timed: Mapping[str, Mapping[str, Any]]) -> float | None:
    batch, statistic = _LATENCY
    return _number(timed.get(batch, {}).get(statistic))


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits: what a runner says is not trusted
        return None
    return number if math.isfinite(number) else None
