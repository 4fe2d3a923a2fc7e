"""What a runner leaves on a disk: how much it is, and that it goes, however hostile its shape."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_FILES = 10_000  # folders among them
MAX_DEPTH = 64  # of folders: each that is open takes a descriptor
BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def fills(folder: Path, limit: int, *, unlinked: int = 0) -> bool:
    """Say whether a folder is over its limits, without counting on once it is.

    `unlinked`: bytes of files that have no name any more. What cannot be counted is too much.
    """
    total = unlinked
    try:
        for files, entry in enumerate(_below(os.fspath(folder)), start=1):
            total += entry.st_blocks * BLOCK_BYTES
            if total > limit or files > MAX_FILES:
                return True
    except OSError as error:
        logger.warning("%s cannot be counted: %s", folder, error)
        return True
    return total > limit


def remove(folder: Path) -> None:
    """Remove a folder, closed and deeply nested ones in it too; what stays is logged."""
    # the tools need neither a stack frame nor a descriptor a level, and follow no link
    for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        done = subprocess.run(
            [*command, "--", folder], capture_output=True, check=False, env={"PATH": os.defpath}
        )
    if done.returncode:
        logger.error("%s stays: %s", folder, done.stderr[:1000].decode(errors="replace"))


def _below(name: str, parent: int | None = None, depth: int = 0) -> Iterator[os.stat_result]:
    """Yield the status of everything below a folder; raises OSError where it cannot look."""
    if depth > MAX_DEPTH:
        raise OSError(f"folders are nested more than {MAX_DEPTH} deep")
    folder = os.open(name, _FOLDER, dir_fd=parent)  # by descriptor: no link leads outside
    try:
        for below in os.listdir(folder):
            with suppress(FileNotFoundError, NotADirectoryError):  # it has gone meanwhile
                entry = os.stat(below, dir_fd=folder, follow_symlinks=False)
                yield entry
                if stat.S_ISDIR(entry.st_mode):
                    yield from _below(below, folder, depth + 1)
    finally:
        os.close(folder)
