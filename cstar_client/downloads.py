"""Downloads that go on where they broke off, and are what was announced or nothing.

The bytes go to `<name>.part`; a later call, also of another process, continues there. The file has
its name only once its SHA-256 is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from cstar_client.digests import CHUNK_BYTES, sha256
from cstar_client.errors import ApiError, ConnectionFailed, DigestError
from cstar_client.transport import Transport

OnProgress = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many."""


@dataclass(frozen=True)
class Content:
    """What is announced to lie at `path`; `sha256` is hexadecimal."""

    path: str
    bytes: int
    sha256: str


def save(
    transport: Transport, content: Content, target: Path, *, on_progress: OnProgress | None = None
) -> Path:
    """Fetch `content` into `target` and return it; raises DigestError if the bytes are others."""
    part = target.with_name(f"{target.name}.part")
    with part.open("a+b") as file:
        if file.tell() > content.bytes:  # of something else
            _empty(file)
        _fill(transport, content, file, on_progress or _silent)
        file.flush()
        os.fsync(file.fileno())
    if sha256(part).hex() != content.sha256:
        part.unlink()
        raise DigestError(f"{target.name}: the bytes received are not those that were announced")
    return part.replace(target)


def _fill(transport: Transport, content: Content, file: BinaryIO, on_progress: OnProgress) -> None:
    """Append until all bytes are there; whatever arrived before a cut is kept."""
    patience = transport.patience()
    on_progress(file.tell(), content.bytes)
    while (start := file.tell()) < content.bytes:
        try:
            with transport.stream(content.path, headers=_range(start, content)) as answer:
                _append(answer, content, file, on_progress)
            if file.tell() == start:
                raise ConnectionFailed("the answer had no bytes", sent=True)
        except (ApiError, ConnectionFailed) as failure:
            if file.tell() > start:
                patience.renew()
            patience.endure(failure)


def _range(start: int, content: Content) -> dict[str, str]:
    """Ask for the rest, if it is still the same content (RFC 9110, 13.1.5)."""
    return {"Range": f"bytes={start}-", "If-Range": f'"{content.sha256}"'} if start else {}


def _append(
    answer: httpx.Response, content: Content, file: BinaryIO, on_progress: OnProgress
) -> None:
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        _empty(file)
    for chunk in answer.iter_raw(CHUNK_BYTES):
        file.write(chunk)
        on_progress(file.tell(), content.bytes)
        if file.tell() > content.bytes:
            raise DigestError(f"more than the {content.bytes} bytes announced were sent")


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _silent(done: int, total: int) -> None:
    """Tell nobody."""
