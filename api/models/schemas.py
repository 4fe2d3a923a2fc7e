"""What a client sees of a model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from api.reasons import Reason
from store.contracts import InputSpec
from store.states import Status
from store.tables import Model, ModelLineage


class Limits(BaseModel):
    """How small ranks can make the model: the least of each, all at rank 1.

    `min_bytes` counts its tensors; models validated by an earlier version lack it.
    """

    min_parameters: int
    min_macs: int
    min_bytes: int | None = None


Use = Literal["compress", "plan", "evaluate"]
_COLUMNS = (
    "id",
    "name",
    "version",
    "status",
    "architecture",
    "parameters",
    "macs",
    "limits",
    "input",
    "num_classes",
    "reasons",
    "file_id",
    "created_at",
)


class ModelDocument(BaseModel):
    """A model; `parameters`, `macs` and `limits` are known once it is ready.

    `version` counts the models of one name. `parent_model_id` and `job_id` say what a compressed
    model was made of and by which job; they are null for an upload, which has a `file_id` instead.
    `usable_for` lists the kinds of jobs, and `plan`, that take the model.
    """

    id: str
    object: Literal["model"] = "model"
    name: str
    version: int
    aliases: list[str]
    status: Status
    architecture: dict[str, Any] | None
    parameters: int | None
    macs: int | None
    limits: Limits | None
    input: InputSpec
    num_classes: int
    reasons: list[Reason]
    file_id: str | None
    parent_model_id: str | None
    job_id: str | None
    usable_for: list[Use]
    created_at: datetime


def model_document(
    model: Model, *, lineage: ModelLineage | None, aliases: Sequence[str]
) -> ModelDocument:
    """Return the document of a model; `lineage` is None for an upload."""
    return ModelDocument.model_validate(
        {name: getattr(model, name) for name in _COLUMNS}
        | {"parent_model_id": lineage.parent_model_id if lineage else None}
        | {"job_id": lineage.job_id if lineage else None}
        | {"aliases": aliases, "usable_for": usable_for(model)}
    )


def usable_for(model: Model) -> list[Use]:
    """Return what a model can be used for: nothing before it is ready.

    An exported network has factors in place of layers, so it is judged but not compressed again.
    """
    if model.status != Status.READY:
        return []
    return ["evaluate"] if model.network_sha256 is not None else ["compress", "plan", "evaluate"]
