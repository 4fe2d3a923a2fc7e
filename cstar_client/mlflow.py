"""Hands a compressed model over to an MLflow tracking server (extra `mlflow`).

    from cstar_client import Client
    from cstar_client.mlflow import register

    with Client.from_environment() as client:
        version = register(client, "job_...", "resnet20", tracking_uri="http://mlflow:5000")

MLflow is imported when it is needed: importing this module costs nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cstar_client.client import Client
from cstar_client.documents import Artifact, Job, Reference, identifier

MODEL = "model"
REPORT = "report"
_FOLDERS = {
    "model.safetensors": MODEL,
    "architecture.json": MODEL,
    "loader.py": MODEL,
    "model.onnx": MODEL,
    "manifest.json": MODEL,
    "report.json": REPORT,
    "report.html": REPORT,
    "report.md": REPORT,
}
_WEIGHTS = "model.safetensors"
_JOB_TAG = "cstar.job_id"
_COSTS = ("parameters", "macs", "bytes")


class MlflowMissing(ImportError):
    """The extra `mlflow` is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "MLflow is not installed. Add the extra `mlflow`: pip install 'cstar-service[mlflow]', "
            "or 'cstar-client[mlflow]' where only the client is"
        )


class NothingToRegister(ValueError):
    """The job left no compressed model: it has not succeeded, or it was an evaluation."""


@dataclass(frozen=True)
class Registered:
    """A model version in MLflow's registry; `created` is False where it was there before."""

    name: str
    version: str
    run_id: str
    created: bool

    @property
    def uri(self) -> str:
        """The address under which MLflow finds the version."""
        return f"models:/{self.name}/{self.version}"


def register(
    client: Client,
    job: Reference,
    name: str,
    *,
    tracking_uri: str | None = None,
    experiment: str = "cstar",
) -> Registered:
    """Log a succeeded compression as a run, and register its model as a version of `name`.

    The run has the request as parameters, before and after as metrics, and the files under
    `model/` and `report/`, each checked against its SHA-256. Called again for the same job and
    name, it returns the version there is. `tracking_uri` is by default what MLflow finds in its
    environment. Raises NothingToRegister, MlflowMissing, and what client and MLflow raise.
    """
    mlflow = _mlflow()
    tracking = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
    document = client.jobs.get(identifier(job))
    known = _known(tracking, name, document["id"])
    if known is not None:
        return known
    artifacts = _worth_keeping(document, client.jobs.artifacts(document))
    run_id = tracking.create_run(
        _experiment(mlflow, tracking, experiment), run_name=document["id"], tags=_run_tags(document)
    ).info.run_id
    try:
        _log_figures(mlflow, tracking, run_id, document)
        _log_files(client, tracking, run_id, artifacts)
        version = _register(mlflow, tracking, name, run_id, _version_tags(document, artifacts))
    except BaseException:
        tracking.set_terminated(run_id, "FAILED")
        raise
    tracking.set_terminated(run_id)
    return Registered(name, version, run_id, created=True)


def _mlflow() -> ModuleType:
    try:
        import mlflow  # noqa: PLC0415  (heavy, and an extra)
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise MlflowMissing from error
    return mlflow


def _known(tracking: Any, name: str, job_id: str) -> Registered | None:
    for found in tracking.search_model_versions(f"tags.`{_JOB_TAG}` = '{job_id}'"):
        if found.name == name:
            return Registered(name, str(found.version), str(found.run_id), created=False)
    return None


def _worth_keeping(job: Job, artifacts: Sequence[Artifact]) -> list[Artifact]:
    if job["status"] != "succeeded":
        raise NothingToRegister(f"{job['id']} is {job['status']}; wait until it has succeeded")
    kept = [artifact for artifact in artifacts if artifact["filename"] in _FOLDERS]
    if not any(artifact["filename"] == _WEIGHTS for artifact in kept):
        raise NothingToRegister(f"{job['id']} left no {_WEIGHTS}: it compressed nothing")
    return kept


def _experiment(mlflow: ModuleType, tracking: Any, name: str) -> str:
    _unless_there(mlflow, tracking.create_experiment, name)
    return str(tracking.get_experiment_by_name(name).experiment_id)


def _unless_there(mlflow: ModuleType, create: Callable[[str], Any], name: str) -> None:
    """Create something that another process may have created a moment before."""
    try:
        create(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _run_tags(job: Job) -> dict[str, str]:
    labels = {f"cstar.label.{name}": value for name, value in job["labels"].items()}
    return {_JOB_TAG: job["id"], **labels}


def _log_figures(mlflow: ModuleType, tracking: Any, run_id: str, job: Job) -> None:
    entities = mlflow.entities
    metrics = [entities.Metric(name, value, 0, 0) for name, value in _metrics(job["result"] or {})]
    params = [entities.Param(name, str(value)) for name, value in _parameters(job)]
    tracking.log_batch(run_id, metrics=metrics, params=params)


def _parameters(job: Job) -> Iterator[tuple[str, Any]]:
    """Yield what was asked for."""
    request: Mapping[str, Any] = job
    for name in ("model_id", "dataset_id", "method", "profile", "seed"):
        yield name, request[name]
    for group in ("targets", "options"):
        yield from _leaves(group, request[group])


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif value is not None:
        yield name, value


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the ratio, and costs and accuracies before and after."""
    if "ratio" in result:
        yield "ratio", float(result["ratio"])
    for moment in ("before", "after"):
        for name, value in _figures(result.get(moment) or {}):
            yield f"{moment}/{name}", value


def _figures(network: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from ((name, float(network[name])) for name in _COSTS if name in network)
    for batch, latency in network.get("latency_ms", {}).items():
        yield f"latency_ms/{batch.replace(' ', '_')}", float(latency["median_ms"])
    if "clean_accuracy" in network:
        yield from _with_interval("clean_accuracy", network["clean_accuracy"])
    for attack, figure in network.get("robust_accuracy", {}).items():
        yield from _with_interval(f"robust_accuracy/{attack}", figure)


def _with_interval(name: str, figure: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    low, high = figure["interval"]
    yield from ((name, figure["value"]), (f"{name}/low", low), (f"{name}/high", high))


def _log_files(client: Client, tracking: Any, run_id: str, artifacts: Sequence[Artifact]) -> None:
    """Pass the files on one by one, so that the disk holds one at a time."""
    for artifact in artifacts:
        with tempfile.TemporaryDirectory(prefix="cstar-") as folder:
            path: Path = client.jobs.download(artifact, folder)
            tracking.log_artifact(run_id, str(path), _FOLDERS[artifact["filename"]])


def _version_tags(job: Job, artifacts: Sequence[Artifact]) -> dict[str, str]:
    verdict = (job["result"] or {}).get("verdict", {})
    weights = next(artifact for artifact in artifacts if artifact["filename"] == _WEIGHTS)
    tags = {_JOB_TAG: job["id"], "cstar.sha256": weights["sha256"]}
    for tag, member in (("verdict", "targets"), ("reliability", "reliability")):
        if member in verdict:
            tags[f"cstar.{tag}"] = str(verdict[member])
    return tags


def _register(
    mlflow: ModuleType, tracking: Any, name: str, run_id: str, tags: Mapping[str, str]
) -> str:
    _unless_there(mlflow, tracking.create_registered_model, name)
    source = f"runs:/{run_id}/{MODEL}"
    return str(tracking.create_model_version(name, source, run_id, tags=dict(tags)).version)
