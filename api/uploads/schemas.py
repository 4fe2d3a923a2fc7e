"""What a client sees of an upload in parts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.files.schemas import NAME_PATTERN, FileDocument, Purpose
from store.contracts import Contract
from store.states import UploadStatus

MIN_PART_BYTES = 1 << 16
MAX_PART_BYTES = 1 << 30
MAX_PARTS = 1000


class UploadRequest(Contract):
    """A file to be uploaded in parts; `sha256` is that of the whole, in hexadecimal."""

    filename: Annotated[str, Field(min_length=1, max_length=255, pattern=NAME_PATTERN)]
    purpose: Purpose
    bytes: Annotated[int, Field(gt=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    part_bytes: Annotated[int, Field(ge=MIN_PART_BYTES, le=MAX_PART_BYTES)] | None = None


class PartDocument(BaseModel):
    """A part that has arrived; `sha256` is unknown of one that a client gave to the store itself.

    Parts are numbered from 1.
    """

    model_config = ConfigDict(from_attributes=True)

    number: int
    bytes: int
    sha256: str | None
    arrived_at: datetime | None


class PresignedPart(BaseModel):
    """Where the store itself takes a missing part, by PUT and without a key."""

    number: int
    url: str
    expires_at: datetime


class Failure(BaseModel):
    """Why the last completion failed, as in its problem document."""

    code: str
    detail: str
    members: dict[str, Any] = {}


class UploadUrls(BaseModel):
    """Where to go on; in `part`, put the number of the part for `{number}`."""

    self: str
    part: str
    complete: str
    cancel: str


class UploadSummary(BaseModel):
    """An upload; every part has `part_bytes`, the last has what is left."""

    id: str
    object: Literal["upload"] = "upload"
    status: UploadStatus
    filename: str
    purpose: Purpose
    bytes: int
    sha256: str
    part_bytes: int
    part_count: int
    file: FileDocument | None
    failure: Failure | None
    created_at: datetime
    expires_at: datetime
    urls: UploadUrls


class UploadDocument(UploadSummary):
    """An upload with what has arrived of it and what has not.

    `presigned_parts` has the first missing parts, where the store takes them from clients.
    """

    parts: list[PartDocument]
    missing_parts: list[int]
    presigned_parts: list[PresignedPart]
