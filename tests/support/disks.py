"""A disk that is small enough to be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import require

SIZE_BYTES = 8 << 20
BALLAST = "ballast"


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own with room for 8 MiB."""

    folder: Path

    def fill(self) -> None:
        """Leave not a byte of room."""
        with (self.folder / BALLAST).open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 12))
            except OSError:
                return

    def make_room(self) -> None:
        """Give back what `fill` took."""
        (self.folder / BALLAST).unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a small disk at `folder`; without the right to, the test is reported as not run."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder)]
    root = os.geteuid() == 0
    works = root and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    why = "only root may mount a tmpfs, and not in every container"
    require("a small disk", works, why, installable=False)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
