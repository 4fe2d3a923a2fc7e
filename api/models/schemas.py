"""What a client sees of a model."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.reasons import Reason
from store.contracts import InputSpec
from store.states import Status


class Limits(BaseModel):
    """How small ranks can make the model: the least of each, all at rank 1.

    `min_bytes` counts its tensors; models validated by an earlier version lack it.
    """

    min_parameters: int
    min_macs: int
    min_bytes: int | None = None


class ModelDocument(BaseModel):
    """A model; `parameters`, `macs` and `limits` are known once it is ready."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["model"] = "model"
    name: str
    status: Status
    architecture: dict[str, Any] | None
    parameters: int | None
    macs: int | None
    limits: Limits | None
    input: InputSpec
    num_classes: int
    reasons: list[Reason]
    file_id: str
    created_at: datetime
