"""Whether a job can be done at all: refused at once otherwise, with what could be."""

from __future__ import annotations

import math

from api.errors import (
    DatasetNotReady,
    DatasetRejected,
    DomainError,
    Fault,
    InvalidRequest,
    LabelsOutsideClasses,
    ModelNotReady,
    ModelRejected,
    NotCompressible,
    ShapeMismatch,
    TargetInfeasible,
    TooFewExamples,
)
from store.contracts import CompressionTarget, Evaluation, Method
from store.states import Status
from store.tables import Dataset, Model

_WITHOUT_RANKS: frozenset[Method] = frozenset({"filter_pruning", "small_dense"})
_ON_SOME = {"autoattack_examples": "AutoAttack runs", "probe_examples": "Probes run"}
_MINIMA = {"max_params": "min_parameters", "max_macs": "min_macs", "max_bytes": "min_bytes"}


def check_model_ready(model: Model, *, pointer: str = "/model_id") -> None:
    """Raise ModelNotReady or ModelRejected; `pointer` is where the body named the model."""
    if model.status == Status.VALIDATING:
        raise ModelNotReady(_wait_for(f"Model {model.id}", f"/v1/models/{model.id}"))
    if model.status == Status.REJECTED:
        raise _rejected(ModelRejected, model, pointer)


def check_compressible(model: Model) -> None:
    """Raise NotCompressible for a network whose layers are factors already."""
    if model.network_sha256 is not None:
        raise _refusal(
            NotCompressible,
            f"{model.id} is a compressed network and can be evaluated only; to compress further, "
            "start from its parent_model_id with a higher ratio.",
            "/model_id",
        )


def check_dataset_ready(dataset: Dataset) -> None:
    """Raise DatasetNotReady or DatasetRejected."""
    if dataset.status == Status.VALIDATING:
        raise DatasetNotReady(_wait_for(f"Data set {dataset.id}", f"/v1/datasets/{dataset.id}"))
    if dataset.status == Status.REJECTED:
        raise _rejected(DatasetRejected, dataset, "/dataset_id")


def check_fit(model: Model, dataset: Dataset) -> None:
    """Raise ShapeMismatch or LabelsOutsideClasses; both are ready."""
    taken, given = list(model.input["shape"]), list(dataset.shape or [])
    if taken != given:
        raise _refusal(
            ShapeMismatch,
            f"The model takes images of shape {taken} (C, H, W), the data set has {given}; "
            "send a data set of the model's shape.",
            "/dataset_id",
        )
    if (dataset.num_classes or 0) > model.num_classes:
        raise _refusal(
            LabelsOutsideClasses,
            f"The data set has {dataset.num_classes} classes, the model {model.num_classes}; "
            "send a data set whose labels are among the model's classes.",
            "/dataset_id",
        )


def check_baseline(baseline: Model, model: Model) -> None:
    """Raise unless `baseline` is ready and can be compared with `model` image by image.

    Raises ModelNotReady, ModelRejected or ShapeMismatch.
    """
    pointer = "/baseline_model_id"
    check_model_ready(baseline, pointer=pointer)
    for name, taken, other in (
        ("images of shape", model.input["shape"], baseline.input["shape"]),
        ("classes:", model.num_classes, baseline.num_classes),
    ):
        if taken != other:
            raise _refusal(
                ShapeMismatch,
                f"The model has {name} {taken}, the baseline {other}; compare networks that take "
                "the same images and know the same classes.",
                pointer,
            )


def check_method(method: Method, target: CompressionTarget, model: Model) -> None:
    """Raise what `check_feasible` raises, or InvalidRequest for a limit the method cannot meet.

    How small a method without ranks can become is found by the runner alone.
    """
    if method not in _WITHOUT_RANKS:
        check_feasible(target, model)
    elif target.max_latency_ms is not None:
        raise _refusal(
            InvalidRequest,
            f"{method} cannot aim at a latency; leave max_latency_ms out, or choose another "
            "method.",
            "/targets/compression/max_latency_ms",
        )


def check_feasible(target: CompressionTarget, model: Model) -> None:
    """Raise TargetInfeasible with the best that ranks can meet of everything asked for too much.

    Latency depends on the device, so the runner judges it.
    """
    limits, best = model.limits or {}, {}
    parameters, least = model.parameters or 0, limits.get("min_parameters", 1)
    if target.ratio is not None and target.ratio > parameters / least:
        best["ratio"] = math.floor(parameters * 100 / least) / 100
    for name, minimum in _MINIMA.items():
        asked, possible = getattr(target, name), limits.get(minimum, 0)
        if asked is not None and asked < possible:
            best[name] = possible
    if best:
        raise _infeasible(target, best)


def resolve_evaluation(evaluation: Evaluation, *, test_examples: int) -> Evaluation:
    """Return the evaluation to carry out: defaults shrink to the data, wishes do not.

    Raises TooFewExamples unless autoattack_examples, probe_examples <= examples <= test_examples.
    """
    examples = _examples(evaluation, "examples", at_most=test_examples)
    if examples > test_examples:
        detail = f"The data set has {test_examples} test examples, not {examples}; ask for fewer."
        raise _refusal(TooFewExamples, detail, "/evaluation/examples")
    some = {name: _examples(evaluation, name, at_most=examples) for name in _ON_SOME}
    for name, count in some.items():
        if count > examples:
            detail = f"{_ON_SOME[name]} on some of the {examples} examples, not {count}."
            raise _refusal(TooFewExamples, detail, f"/evaluation/{name}")
    return Evaluation(examples=examples, **some)


def _examples(evaluation: Evaluation, name: str, *, at_most: int) -> int:
    count: int = getattr(evaluation, name)
    return count if name in evaluation.model_fields_set else min(count, at_most)


def _infeasible(target: CompressionTarget, best: dict[str, float]) -> TargetInfeasible:
    faults = [
        Fault(
            f"{getattr(target, name):g} cannot be met; the best is {value:.15g}",
            pointer=f"/targets/compression/{name}",
        )
        for name, value in best.items()
    ]
    words = ", ".join(f"{name} {value:.15g}" for name, value in best.items())
    detail = f"No choice of ranks makes this model that small; the best that can be met: {words}."
    return TargetInfeasible(detail, faults=faults, members={"best": best})


def _rejected(error: type[DomainError], subject: Model | Dataset, pointer: str) -> DomainError:
    reasons = " ".join(str(reason["detail"]) for reason in subject.reasons)
    detail = f"{subject.id} was rejected: {reasons}"
    faults = [Fault(detail, pointer=pointer)]
    return error(detail, faults=faults, members={"reasons": subject.reasons})


def _refusal(error: type[DomainError], detail: str, pointer: str) -> DomainError:
    return error(detail, faults=[Fault(detail, pointer=pointer)])


def _wait_for(subject: str, path: str) -> str:
    return f"{subject} is still being validated; GET {path} with `Prefer: wait=60`, then try again."
