"""`manifest.json`: every file of an export with size and SHA-256, and the facts of its making."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def manifest(directory: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `manifest.json` over all other files in `directory`, and return its content.

    `facts` (seeds, versions, hardware, settings, hash of the split) are taken as they are and must
    be JSON values. Raises ValueError if they hold a key of the manifest's own or NaN.
    """
    own = {"format": "cstar-manifest", "version": 1, "files": _files(directory)}
    if clash := own.keys() & facts.keys():
        raise ValueError(f"facts may not name {sorted(clash)}: the manifest fills them in")
    content = own | dict(facts)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (directory / MANIFEST).write_text(text)
    return content


def _files(directory: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each file, by path relative to `directory`."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        for path in paths
        if path != directory / MANIFEST and "__pycache__" not in path.parts
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
