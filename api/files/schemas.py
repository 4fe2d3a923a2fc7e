"""What a client sees of a file."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel

from store.tables import File

Purpose = Literal["checkpoint", "dataset"]
NAME_PATTERN = r"^[^/\\\x00-\x1f\x7f]+$"
Filename = Annotated[
    str,
    Query(
        min_length=1,
        max_length=255,
        pattern=NAME_PATTERN,
        description="A name without a path, for people",
    ),
]


class FileDocument(BaseModel):
    """An uploaded file; `sha256` is hexadecimal."""

    id: str
    object: Literal["file"] = "file"
    filename: str
    purpose: Purpose
    bytes: int
    sha256: str
    created_at: datetime
    url: str


def file_document(file: File) -> FileDocument:
    """Return the document of a file."""
    return FileDocument.model_validate(
        {
            "id": file.id,
            "filename": file.filename,
            "purpose": file.purpose,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "created_at": file.created_at,
            "url": f"/v1/files/{file.id}/content",
        }
    )
