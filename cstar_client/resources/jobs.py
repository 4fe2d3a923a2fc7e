"""`client.jobs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from cstar_client import downloads, events, lists, waiting
from cstar_client.documents import (
    FINAL,
    Artifact,
    Compression,
    Event,
    Job,
    JobFields,
    Metric,
    Model,
    Norm,
    Reference,
    identifier,
    segment,
    targets,
)
from cstar_client.downloads import Content
from cstar_client.errors import JobCancelled, JobFailed
from cstar_client.transport import Transport, document
from cstar_client.uploads import OnProgress

HISTORY_ROWS = 1000  # of a page of events or metrics
Action = Literal["cancel", "pause", "resume"]


@dataclass(frozen=True)
class Jobs:
    """Compressions, and evaluations of a model as it is."""

    transport: Transport

    def submit(
        self,
        model: Reference,
        dataset: Reference,
        *,
        compression: Compression,
        epsilon: float,
        norm: Norm = "linf",
        min_accuracy: float | None = None,
        min_clean_accuracy: float | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Ask for a compression and return the queued job.

        `epsilon` is in [0, 1] pixel space; `min_accuracy` is to be kept under AutoAttack. Raises
        InvalidRequest, with `best` in its problem, for a target out of reach.
        """
        asked = targets(norm, epsilon, min_accuracy, min_clean_accuracy)
        body = {
            "model_id": identifier(model),
            "dataset_id": identifier(dataset),
            "targets": {**asked, "compression": compression},
        }
        return self.create({**body, **fields}, idempotency_key=idempotency_key)

    def evaluate(
        self,
        model: Reference,
        dataset: Reference,
        *,
        epsilon: float,
        norm: Norm = "linf",
        min_accuracy: float | None = None,
        min_clean_accuracy: float | None = None,
        baseline: Reference | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Start judging a model as it is, beside a baseline if one is named; returns the job."""
        body = {
            "kind": "evaluate",
            "model_id": identifier(model),
            "dataset_id": identifier(dataset),
            "baseline_model_id": None if baseline is None else identifier(baseline),
            "targets": targets(norm, epsilon, min_accuracy, min_clean_accuracy),
        }
        return self.create({**body, **fields}, idempotency_key=idempotency_key)

    def create(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Ask for what `body` says (docs/api.md)."""
        made = self.transport.post("/v1/jobs", dict(body), idempotency_key=idempotency_key)
        return cast(Job, made)

    def get(self, job: Reference) -> Job:
        """Return a job."""
        return cast(Job, self.transport.get(_path(job)))

    def list(
        self,
        *,
        state: str | None = None,
        model: Reference | None = None,
        kind: Literal["compress", "evaluate"] | None = None,
        sweep: Reference | None = None,
    ) -> Iterator[Job]:
        """Yield the jobs, newest first."""
        filters = {
            "state": state,
            "kind": kind,
            "model_id": None if model is None else identifier(model),
            "sweep_id": None if sweep is None else identifier(sweep),
        }
        return lists.rows(self.transport, "/v1/jobs", **filters)

    def wait(
        self,
        job: Reference,
        *,
        timeout_s: float | None = None,
        on_update: Callable[[Job], None] | None = None,
        check: bool = True,
    ) -> Job:
        """Return a job once it has ended; a paused one is waited for.

        Raises Timeout, and with `check` JobFailed or JobCancelled.
        """
        path = _path(job)
        found = waiting.until(self.transport, path, FINAL, timeout_s=timeout_s, on_update=on_update)
        if check and found["status"] == "cancelled":
            raise JobCancelled(found)
        if check and found["status"] == "failed":
            raise JobFailed(found)
        return cast(Job, found)

    def cancel(self, job: Reference) -> Job:
        """Cancel a job: at once if it waits, else it is `cancelling` until its worker stops."""
        return self._act(job, "cancel")

    def pause(self, job: Reference) -> Job:
        """Pause a job; a running one is `pausing` until it has saved where it is."""
        return self._act(job, "pause")

    def resume(self, job: Reference) -> Job:
        """Queue a paused job again; it goes on from where it was."""
        return self._act(job, "resume")

    def retry(self, job: Reference, *, idempotency_key: str | None = None) -> Job:
        """Make a new job of one that failed or was cancelled, and return it."""
        path = f"{_path(job)}/retry"
        return cast(Job, self.transport.post(path, idempotency_key=idempotency_key))

    def register(
        self, job: Reference, *, name: str | None = None, idempotency_key: str | None = None
    ) -> Model:
        """Make a model of what a compression left: the next version of its name."""
        path = f"{_path(job)}/model"
        made = self.transport.post(path, {"name": name}, idempotency_key=idempotency_key)
        return cast(Model, made)

    def delete(self, job: Reference) -> None:
        """Delete a job that has ended, and what it left."""
        self.transport.send("DELETE", _path(job))

    def events(self, job: Reference, *, after: int = 0, live: bool = True) -> Iterator[Event]:
        """Yield the events numbered above `after`: until the job ends, or only those there are."""
        if live:
            return events.follow(self.transport, identifier(job), after=after)
        return lists.rows(self.transport, f"{_path(job)}/events", after=after, limit=HISTORY_ROWS)

    def metrics(
        self,
        job: Reference,
        *,
        after: int = 0,
        name: str | None = None,
        phase: str | None = None,
    ) -> Iterator[Metric]:
        """Yield what was measured so far, oldest first."""
        path = f"{_path(job)}/metrics"
        bounds = {"after": after, "limit": HISTORY_ROWS}
        return lists.rows(self.transport, path, **bounds, name=name, phase=phase)

    def logs(self, job: Reference, *, tail: int | None = None) -> str:
        """Return the logs of all attempts, or their last `tail` lines."""
        return self.transport.send("GET", f"{_path(job)}/logs", params={"tail": tail}).text

    def artifacts(self, job: Reference) -> Sequence[Artifact]:
        """Return the files that a succeeded job left."""
        return cast("Sequence[Artifact]", self.transport.get(f"{_path(job)}/artifacts")["data"])

    def download(
        self, artifact: Artifact, folder: str | Path, *, on_progress: OnProgress | None = None
    ) -> Path:
        """Save an artifact under its name in `folder`; raises DigestError."""
        path = f"/v1/artifacts/{artifact['id']}/content"
        content = Content(path, artifact["bytes"], artifact["sha256"])
        target = Path(folder) / downloads.file_name(artifact["filename"], artifact["id"])
        return downloads.save(self.transport, content, target, on_progress=on_progress)

    def download_all(
        self,
        job: Reference,
        folder: str | Path,
        *,
        on_progress: Callable[[Artifact, int, int], None] | None = None,
    ) -> dict[str, Path]:
        """Save all artifacts in `folder`, which is made; returns their paths by file name."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        saved = {}
        for artifact in self.artifacts(job):
            tell = None if on_progress is None else _about(artifact, on_progress)
            saved[artifact["filename"]] = self.download(artifact, folder, on_progress=tell)
        return saved

    def _act(self, job: Reference, action: Action) -> Job:
        return cast(Job, document(self.transport.send("POST", f"{_path(job)}/{action}")))


def _about(artifact: Artifact, tell: Callable[[Artifact, int, int], None]) -> OnProgress:
    return lambda done, total: tell(artifact, done, total)


def _path(job: Reference) -> str:
    return f"/v1/jobs/{segment(job)}"
