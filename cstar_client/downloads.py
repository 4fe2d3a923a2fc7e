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
    """Fetch `content` into `target` and return it; raises DigestError if the bytes are others.

    What lies there already is not fetched again.
    """
    tell = on_progress or _silent
    if target.is_file() and _is(content, target):
        tell(content.bytes, content.bytes)
        return target
    part = target.with_name(f"{target.name}.part")
    goes_on = _fetch(transport, content, part, tell)
    if goes_on and not _is(content, part):  # an earlier call left it, of something else
        part.unlink()
        _fetch(transport, content, part, tell)
    if not _is(content, part):
        part.unlink()
        raise DigestError(f"{target.name}: the bytes received are not those that were announced")
    return part.replace(target)


def file_name(announced: str, otherwise: str) -> str:
    """Return a name that leads nowhere else, whatever the service says."""
    name = Path(announced).name
    return otherwise if name in ("", "..") else name


def _is(content: Content, path: Path) -> bool:
    return path.stat().st_size == content.bytes and sha256(path).hex() == content.sha256


def _fetch(transport: Transport, content: Content, part: Path, on_progress: OnProgress) -> bool:
    """Complete `part`; says whether it had a beginning."""
    with part.open("a+b") as file:
        if file.tell() > content.bytes:  # of something else
            _empty(file)
        goes_on = file.tell() > 0
        _fill(transport, content, file, on_progress)
        file.flush()
        os.fsync(file.fileno())
    return goes_on


def _fill(transport: Transport, content: Content, file: BinaryIO, on_progress: OnProgress) -> None:
    """Append until all bytes are there; whatever arrived before a cut is kept."""
    patience = transport.patience()
    on_progress(file.tell(), content.bytes)
    while (start := file.tell()) < content.bytes:
        try:
            with transport.stream(content.path, headers=_wanted(start, content)) as answer:
                _append(answer, content, file, on_progress)
            if file.tell() == start:
                raise ConnectionFailed("the answer had no bytes", sent=True)
        except (ApiError, ConnectionFailed) as failure:
            if file.tell() > start:
                patience.renew()
            patience.endure(failure)


def _wanted(start: int, content: Content) -> dict[str, str]:
    """Ask for the rest, if it is still the same content (RFC 9110, 13.1.5), as it is.

    A proxy that compresses on the way would change what is counted and hashed.
    """
    rest = {"Range": f"bytes={start}-", "If-Range": f'"{content.sha256}"'} if start else {}
    return {"Accept-Encoding": "identity", **rest}


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
