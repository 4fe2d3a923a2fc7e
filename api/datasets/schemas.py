"""What a client sees of a data set."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.reasons import Reason
from store.states import Status


class ExampleCounts(BaseModel):
    """How many images each side of the split has."""

    train: int
    test: int


class DatasetDocument(BaseModel):
    """A data set; `shape` is [C, H, W], `sha256` names its content and split."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    status: Status
    num_examples: ExampleCounts | None
    shape: list[int] | None
    num_classes: int | None
    class_names: list[str] | None
    sha256: str | None = Field(validation_alias="content_sha256")
    reasons: list[Reason]
    file_id: str | None
    created_at: datetime
