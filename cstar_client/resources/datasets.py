"""`client.datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from cstar_client import lists, waiting
from cstar_client.documents import Dataset, Reference, identifier, segment
from cstar_client.errors import Rejected
from cstar_client.resources.files import Files
from cstar_client.transport import Transport
from cstar_client.uploads import OnProgress

SETTLED = frozenset({"ready", "rejected"})


@dataclass(frozen=True)
class Datasets:
    """Data sets."""

    transport: Transport

    def upload(
        self, path: str | Path, *, name: str | None = None, on_progress: OnProgress | None = None
    ) -> Dataset:
        """Upload an `.npz`, or a zip of class folders, and return the ready data set.

        Raises Rejected with the reasons.
        """
        source = Path(path)
        form: Literal["npz", "image_folder"] = "image_folder" if source.suffix == ".zip" else "npz"
        file = Files(self.transport).upload(source, purpose="dataset", on_progress=on_progress)
        return self.wait(self.create(file, name=name or source.stem, format=form))

    def create(
        self,
        file: Reference,
        *,
        name: str,
        format: Literal["npz", "image_folder"] = "npz",
        seed: int = 0,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Make a data set of an uploaded file; it is validated next."""
        body = {"name": name, "file_id": identifier(file), "format": format, "seed": seed}
        made = self.transport.post("/v1/datasets", body, idempotency_key=idempotency_key)
        return cast(Dataset, made)

    def get(self, dataset: Reference) -> Dataset:
        """Return a data set."""
        return cast(Dataset, self.transport.get(f"/v1/datasets/{segment(dataset)}"))

    def list(self) -> Iterator[Dataset]:
        """Yield all data sets, newest first."""
        return lists.rows(self.transport, "/v1/datasets")

    def delete(self, dataset: Reference) -> None:
        """Delete a data set that nothing uses; raises Conflict, which says what does."""
        self.transport.send("DELETE", f"/v1/datasets/{segment(dataset)}")

    def wait(self, dataset: Reference, *, timeout_s: float | None = None) -> Dataset:
        """Return a data set once it is ready; raises Rejected or Timeout."""
        path = f"/v1/datasets/{segment(dataset)}"
        found = waiting.until(self.transport, path, SETTLED, timeout_s=timeout_s)
        if found["status"] == "rejected":
            raise Rejected(found)
        return cast(Dataset, found)
