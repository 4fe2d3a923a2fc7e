"""Things a tenant owns, put into the database as the service itself would leave them."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

from store import leases, records
from store.blobs import BlobStore, StoredBlob
from store.database import Database, database_now
from store.identifiers import new_id
from store.leases import Lease
from store.records import ArtifactFile
from store.states import ErrorCode, JobState, Status
from store.tables import Dataset, Model, Plan
from store.versions import next_version
from tests.support import rows

INPUT = {"shape": [3, 8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
MODEL = {"name": "small", "architecture": "auto", "input": INPUT, "num_classes": 10}
TARGETS = {
    "compression": {"ratio": 4.0},
    "robustness": {"norm": "linf", "epsilon": 0.03137},
}
BYTES = "application/octet-stream"
AS_CHECKPOINT = {"filename": "weights.pt", "purpose": "checkpoint"}
AS_DATASET = {"filename": "digits.npz", "purpose": "dataset"}


def archive(text: str = "weights") -> bytes:
    """Return the bytes of a small zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("data.pkl"), text)  # the same bytes whenever it is made
    return buffer.getvalue()


@dataclass(frozen=True)
class World:
    """What one tenant has; every method adds something."""

    database: Database
    blobs: BlobStore
    tenant_id: str

    def model(self, **columns: Any) -> str:
        """Add a model, ready unless `columns` says otherwise: 1000 parameters, at least 100."""
        with self.database.writing() as session:
            values = {
                "id": new_id("mdl"),
                "tenant_id": self.tenant_id,
                "name": "small",
                "file_id": rows.add_file(session, self.tenant_id, b"a checkpoint"),
                "requested": {},
                "status": Status.READY,
                "reasons": [],
                "architecture": {"name": "resnet8_cifar", "arguments": {}},
                "input": INPUT,
                "num_classes": 10,
                "parameters": 1000,
                "macs": 50_000,
                "limits": {"min_parameters": 100, "min_macs": 7000, "min_bytes": 480},
                "created_at": database_now(session),
            } | columns
            number = {"tenant_id": self.tenant_id, "name": values["name"]}
            values.setdefault("version", next_version(session, **number))
            model = Model(**values)
            session.add(model)
        return model.id

    def dataset(self, **columns: Any) -> str:
        """Add a data set, ready unless `columns` says otherwise: 50 test images, 10 classes."""
        with self.database.writing() as session:
            values = {
                "id": new_id("dts"),
                "tenant_id": self.tenant_id,
                "name": "digits",
                "file_id": rows.add_file(session, self.tenant_id, b"images"),
                "requested": {},
                "status": Status.READY,
                "reasons": [],
                "num_examples": {"train": 200, "test": 50},
                "shape": [3, 8, 8],
                "num_classes": 10,
                "class_names": [str(digit) for digit in range(10)],
                "content_sha256": "ab" * 32,
                "created_at": database_now(session),
            }
            dataset = Dataset(**(values | columns))
            session.add(dataset)
        return dataset.id

    def job_body(self, **fields: Any) -> dict[str, Any]:
        """Return the body of a job that can be carried out."""
        body: dict[str, Any] = {"targets": TARGETS} | fields
        body.setdefault("model_id", None)
        body["model_id"] = body["model_id"] or self.model()
        body["dataset_id"] = body.get("dataset_id") or self.dataset()
        return body

    def evaluation_body(self, **fields: Any) -> dict[str, Any]:
        """Return the body of an evaluation that can be carried out."""
        targets = {"robustness": TARGETS["robustness"]}
        return self.job_body(**({"kind": "evaluate", "targets": targets} | fields))

    def plan_body(self, **fields: Any) -> dict[str, Any]:
        """Return the body of a dry run that can be made."""
        body: dict[str, Any] = {"targets": {"compression": TARGETS["compression"]}} | fields
        if "model_id" not in body:
            body["model_id"] = self.model()
        return body

    def plan_job(self, plan_id: str) -> str:
        """Return the id of the job that makes a plan."""
        with self.database.reading() as session:
            return session.get_one(Plan, plan_id).job_id

    def finish_plan(self, plan_id: str) -> None:
        """Let the runner of a plan have found something."""
        lease = rows.claim(self.database, self.plan_job(plan_id))
        with self.database.writing() as session:
            records.finish(session, lease, result=rows.PLAN_RESULT, files=[])

    def fail_plan(self, plan_id: str, **details: Any) -> None:
        """Let the runner of a plan have failed."""
        lease = rows.claim(self.database, self.plan_job(plan_id))
        with self.database.writing() as session:
            code = ErrorCode.TARGET_INFEASIBLE
            values = {"code": code, "message": "too fast", "retryable": False}
            assert leases.fail(session, lease, details=details, **values)

    def bring(self, job_id: str, state: JobState) -> Lease | None:
        """Bring a queued job to `state` the way the service does."""
        if state is JobState.QUEUED:
            return None
        if state in (JobState.PAUSED, JobState.CANCELLED):
            assert rows.move(self.database, job_id, state)
            return None
        lease = rows.claim(self.database, job_id)
        if state in (JobState.PAUSING, JobState.CANCELLING):
            assert rows.move(self.database, job_id, state)
        if state is JobState.SUCCEEDED:
            self.finish(lease)
        if state is JobState.FAILED:
            with self.database.writing() as session:
                code = ErrorCode.DIVERGED
                assert leases.fail(session, lease, code=code, message="no", retryable=False)
        return lease

    def compress(self, client: Any, **fields: Any) -> str:
        """Ask for a compression and let it succeed; `result` has its figures (`rows.measured`)."""
        figures = fields.pop("result", {})
        response = client.post("/v1/jobs", json=self.job_body(**fields))
        assert response.status_code == 202, response.text
        self.succeed(response.json()["id"], **figures)
        return str(response.json()["id"])

    def succeed(self, job_id: str, **figures: Any) -> None:
        """Let a queued compression succeed with a network of these figures."""
        lease = rows.claim(self.database, job_id)
        files = [
            ArtifactFile("checkpoint", "model.safetensors", BYTES, self.blob(job_id.encode())),
            ArtifactFile("architecture", "architecture.json", BYTES, self.blob(b"{}")),
        ]
        with self.database.writing() as session:
            result = rows.compression_result(**figures)
            records.finish(session, lease, result=result, files=files)

    def finish(
        self, lease: Lease, *contents: tuple[str, bytes], result: dict[str, Any] | None = None
    ) -> None:
        """Let a running job succeed with artifacts of these names and bytes."""
        files = [
            ArtifactFile("checkpoint", name, BYTES, self.blob(content))
            for name, content in contents
        ]
        with self.database.writing() as session:
            records.finish(session, lease, result=result or {"ratio": 4.03}, files=files)

    def blob(self, content: bytes) -> StoredBlob:
        """Put bytes into the blob store."""
        with self.blobs.stage() as staging:
            if content:
                staging.write(content)
            return staging.commit()
