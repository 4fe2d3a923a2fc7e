"""Files to read, made in a fresh folder by each test."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Zipped = Callable[..., Path]


@pytest.fixture
def zipped(tmp_path: Path) -> Zipped:
    """Write a zip archive of the given entries."""

    def write(entries: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "made.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return path

    return write


@pytest.fixture
def patched_directory() -> Callable[..., Path]:
    """Overwrite a field in the central directory record of one entry (APPNOTE 4.3.12)."""

    def patch(path: Path, entry: int, *, offset: int, layout: str, value: int) -> Path:
        content = bytearray(path.read_bytes())
        at = -1
        for _ in range(entry + 1):
            at = content.index(b"PK\x01\x02", at + 1)
        struct.pack_into(layout, content, at + offset, value)
        path.write_bytes(bytes(content))
        return path

    return patch
