"""Bytes out: single ranges, conditions, digests (RFC 9110 section 14, RFC 9530)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from api.conditional import PreconditionFailed, match, none_match
from api.digests import field_value
from api.errors import ContentLost
from api.problems import HttpError, problem_responses
from store.blobs import BlobStore

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole content", "content": _BINARY},
    206: {"description": "The range asked for", "content": _BINARY},
    304: {"description": "The content is the one named in If-None-Match"},
    **problem_responses(
        "unauthenticated",
        "not_found",
        "precondition_failed",
        "range_not_satisfiable",
        "content_lost",
    ),
}


@dataclass(frozen=True)
class Content:
    """A stored blob with the name and type under which it is sent."""

    sha256: str
    bytes: int
    filename: str
    media_type: str

    @property
    def etag(self) -> str:
        """The strong entity tag: equal bytes, equal tag."""
        return f'"{self.sha256}"'


def send(request: Request, content: Content, blobs: BlobStore) -> Response:
    """Answer GET or HEAD for a blob; raises a 416 problem, PreconditionFailed, or ContentLost."""
    if not match(request.headers.get("if-match"), content.etag):
        raise PreconditionFailed("The content has other bytes than those named in If-Match.")
    if none_match(request.headers.get("if-none-match"), content.etag):
        return Response(status_code=304, headers=_validators(content))
    if not blobs.exists(content.sha256):
        raise ContentLost(
            "The bytes were found damaged or missing. Whoever has the file can upload it again, "
            "which mends it; tell the operator."
        )
    span = _span(request, content) if request.method == "GET" else None
    start, end = span or (0, content.bytes)
    headers = _headers(content) | {"Content-Length": str(end - start)}
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.bytes}"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=content.media_type)
    return StreamingResponse(
        blobs.read(content.sha256, start=start, end=end),
        status_code=206 if span else 200,
        headers=headers,
        media_type=content.media_type,
    )


def _span(request: Request, content: Content) -> tuple[int, int] | None:
    """Return start and end (exclusive) of the range to send, None for the whole content."""
    condition = request.headers.get("if-range")
    if condition is not None and condition != content.etag:
        return None
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or found.group(1) == found.group(2) == "":
        return None  # several ranges, another unit or nonsense: the whole (14.2 allows it)
    first, last = found.groups()
    start = int(first) if first else max(0, content.bytes - int(last))
    end = min(int(last) + 1, content.bytes) if first and last else content.bytes
    if first and last and int(last) < start:
        return None
    if start >= content.bytes:
        raise _unsatisfiable(content.bytes)
    return start, end


def _unsatisfiable(size: int) -> HttpError:
    detail = f"The content has {size} bytes; ask for a range that begins within them."
    return HttpError("range_not_satisfiable", detail, headers={"Content-Range": f"bytes */{size}"})


def _validators(content: Content) -> dict[str, str]:
    return {"ETag": content.etag, "Cache-Control": "private, no-transform"}


def _headers(content: Content) -> dict[str, str]:
    return {
        **_validators(content),
        "Accept-Ranges": "bytes",
        "Repr-Digest": field_value(content.sha256),
        "Content-Disposition": _disposition(content.filename),
    }


def _disposition(filename: str) -> str:
    """Return an attachment's Content-Disposition (RFC 6266): ASCII, and UTF-8 where it differs."""
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename
    )
    value = f'attachment; filename="{plain}"'
    return value if plain == filename else f"{value}; filename*=UTF-8''{quote(filename, safe='')}"
