"""SHA-256 of files, and how HTTP writes it (RFC 9530)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cstar_client.parallel import side_by_side

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Digests:
    """The SHA-256 of a file, and those of its parts of `part_bytes`."""

    whole: bytes
    parts: Sequence[bytes]
    part_bytes: int

    @classmethod
    def of(cls, path: Path, part_bytes: int) -> Digests:
        """Hash a file both ways at once: a second processor has nothing else to do yet."""
        total = path.stat().st_size
        found: dict[int, list[bytes]] = {}

        def hash_pieces(size: int) -> None:
            starts = range(0, total, size)
            found[size] = [sha256(path, start=start, length=size) for start in starts]

        side_by_side(hash_pieces, [total, part_bytes], threads=2)
        return cls(found[total][0], found[part_bytes], part_bytes)


def sha256(path: Path, *, start: int = 0, length: int | None = None) -> bytes:
    """Return the digest of a file, or of `length` bytes of it from `start`."""
    digest = hashlib.sha256()
    for chunk in chunks(path, start=start, length=length):
        digest.update(chunk)
    return digest.digest()


def chunks(path: Path, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield a file's bytes in pieces of at most a mebibyte."""
    left = length
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
            yield chunk
            left = None if left is None else left - len(chunk)


def field_value(digest: bytes) -> str:
    """Return the value of a `Content-Digest` header."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
