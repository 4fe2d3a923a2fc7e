"""`client.models`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from cstar_client import lists, waiting
from cstar_client.documents import (
    Alias,
    Axis,
    Dataset,
    InputSpec,
    Model,
    Pareto,
    Reference,
    identifier,
    segment,
)
from cstar_client.errors import Rejected
from cstar_client.resources.files import Files
from cstar_client.transport import Transport, document
from cstar_client.uploads import OnProgress

SETTLED = frozenset({"ready", "rejected"})
Architecture = Literal["auto"] | Mapping[str, Any]


@dataclass(frozen=True)
class Models:
    """Models: what was uploaded, and what jobs have made of it."""

    transport: Transport

    def upload(
        self,
        path: str | Path,
        dataset: Dataset,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        name: str | None = None,
        architecture: Architecture = "auto",
        on_progress: OnProgress | None = None,
    ) -> Model:
        """Upload a checkpoint for the images and classes of `dataset`; returns the ready model.

        `mean` and `std` have one value a channel: how the images in [0, 1] were normalised when
        the network was trained. Raises Rejected with the reasons.
        """
        source = Path(path)
        file = Files(self.transport).upload(source, purpose="checkpoint", on_progress=on_progress)
        made = self.create(
            file,
            name=name or source.stem,
            architecture=architecture,
            input={"shape": list(dataset["shape"] or ()), "mean": list(mean), "std": list(std)},
            num_classes=dataset["num_classes"] or 0,
        )
        return self.wait(made)

    def create(
        self,
        file: Reference,
        *,
        name: str,
        input: InputSpec,
        num_classes: int,
        architecture: Architecture = "auto",
        idempotency_key: str | None = None,
    ) -> Model:
        """Make a model of an uploaded checkpoint; it is validated next."""
        body = {
            "name": name,
            "file_id": identifier(file),
            "architecture": architecture,
            "input": input,
            "num_classes": num_classes,
        }
        made = self.transport.post("/v1/models", body, idempotency_key=idempotency_key)
        return cast(Model, made)

    def get(self, model: Reference) -> Model:
        """Return a model, by its id or as `name@alias`."""
        return cast(Model, self.transport.get(f"/v1/models/{segment(model)}"))

    def list(self, *, name: str | None = None, parent: Reference | None = None) -> Iterator[Model]:
        """Yield the models, newest first: all, or the versions of a name, or what one became."""
        parent_id = None if parent is None else identifier(parent)
        return lists.rows(self.transport, "/v1/models", name=name, parent_model_id=parent_id)

    def set_alias(self, model: Reference, alias: str) -> Alias:
        """Let `name@alias` stand for this model, wherever it pointed before."""
        path = f"/v1/models/{segment(model)}/aliases/{segment(alias)}"
        return cast(Alias, document(self.transport.send("PUT", path)))

    def delete_alias(self, model: Reference, alias: str) -> None:
        """Take an alias away."""
        self.transport.send("DELETE", f"/v1/models/{segment(model)}/aliases/{segment(alias)}")

    def pareto(self, model: Reference, *, axes: Sequence[Axis] = ()) -> Pareto:
        """Return what the compressions of a model came to, and which are on the front."""
        path = f"/v1/models/{segment(model)}/pareto"
        return cast(Pareto, self.transport.get(path, axes=",".join(axes) or None))

    def delete(self, model: Reference) -> None:
        """Delete a model that nothing uses; raises Conflict, which says what does."""
        self.transport.send("DELETE", f"/v1/models/{segment(model)}")

    def wait(self, model: Reference, *, timeout_s: float | None = None) -> Model:
        """Return a model once it is ready; raises Rejected or Timeout."""
        path = f"/v1/models/{segment(model)}"
        found = waiting.until(self.transport, path, SETTLED, timeout_s=timeout_s)
        if found["status"] == "rejected":
            raise Rejected(found)
        return cast(Model, found)
