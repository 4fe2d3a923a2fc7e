"""Entity tags and conditions (RFC 9110, sections 8.8 and 13)."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from api.errors import DomainError

_VERSION = re.compile(r'"(\d{1,9})(?:-[^"]*)?"')


class PreconditionFailed(DomainError):
    """What `If-Match` names is no longer what there is."""

    code = "precondition_failed"


def none_match(header: str | None, etag: str) -> bool:
    """Return whether `If-None-Match` lists `etag` (weak comparison): the answer is then a 304."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags


def match(header: str | None, etag: str) -> bool:
    """Return whether `If-Match` lists `etag` (strong comparison), or is not there."""
    if header is None:
        return True
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag in tags


def versions(header: str | None) -> list[int] | None:
    """Return the versions that `If-Match` lists; None for any, or without the header.

    Of the tag of a job only its version counts: a job is the same whatever its place in the queue.
    A weak tag matches nothing (strong comparison).
    """
    if header is None or header.strip() == "*":
        return None
    found = (_VERSION.fullmatch(tag.strip()) for tag in header.split(","))
    return [int(tag.group(1)) for tag in found if tag]


def tagged(request: Request, document: BaseModel, headers: dict[str, str]) -> Response:
    """Answer with a document and the hash of it as its tag, or a 304 to who has it already."""
    body = document.model_dump_json()
    etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, **headers}
    if none_match(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The document is the one that If-None-Match names"}
}
