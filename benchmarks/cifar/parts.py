"""Folders carried in parts of limited size, as machines and repositories often ask for."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

PART_BYTES = 15 * 2**20  # below 16 MB in either reading of MB
LISTING = "parts.json"
PACKED = ".tar.tmp"


def split(folder: Path, parts: Path, *, part_bytes: int = PART_BYTES) -> list[Path]:
    """Pack `folder` into files of at most `part_bytes` below `parts`; returns them.

    `parts.json` lists them with the SHA-256 of the whole.
    """
    parts.mkdir(parents=True, exist_ok=True)
    packed = parts / PACKED
    with tarfile.open(packed, "w") as archive:
        archive.add(folder, arcname=".", filter=_carried)
    written = _cut(packed, parts, part_bytes)
    listing = {"sha256": _sha256(packed), "parts": [path.name for path in written]}
    (parts / LISTING).write_text(json.dumps(listing, indent=1) + "\n")
    packed.unlink()
    return written


def join(parts: Path, folder: Path) -> None:
    """Unpack what `split` wrote into `folder`; raises ValueError when a part is not as it was."""
    listing = json.loads((parts / LISTING).read_text())
    packed = parts / PACKED
    with packed.open("wb") as whole:
        for name in listing["parts"]:
            whole.write((parts / Path(name).name).read_bytes())
    if _sha256(packed) != listing["sha256"]:
        packed.unlink()
        raise ValueError(f"the parts in {parts} are not what was split; copy them again")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    packed.unlink()


def _carried(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out locks, and files that a crash left half written."""
    return None if Path(entry.name).name == "lock" or entry.name.endswith(".tmp") else entry


def _cut(packed: Path, parts: Path, part_bytes: int) -> list[Path]:
    written: list[Path] = []
    with packed.open("rb") as whole:
        while piece := whole.read(part_bytes):
            written.append(parts / f"part_{len(written):03d}")
            written[-1].write_bytes(piece)
    return written


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
