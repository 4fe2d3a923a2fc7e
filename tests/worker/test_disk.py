"""Folders that their owner closed: too much while a runner lives, and gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.disk import fills, remove

NOBODY = 65534


def as_nobody(folder: Path, ask: Callable[[Path], bool]) -> bool:
    """Return an answer about a folder as a user gets it whom modes bind; root they do not."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)  # its parents are closed to others
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        os._exit(0 if ask(Path("closed")) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A folder with a folder `closed`, in which there is a file in a folder without modes."""
    below = tmp_path / "closed" / "below"
    below.mkdir(parents=True)
    (below / "file").touch()
    if os.geteuid() == 0:
        for path in (tmp_path, below.parent, below, below / "file"):
            os.chown(path, NOBODY, NOBODY)
    below.chmod(0)
    return tmp_path


def test_a_closed_folder_cannot_be_counted_which_is_too_much(parent: Path) -> None:
    assert as_nobody(parent, lambda folder: fills(folder, 1 << 30))
    (parent / "closed" / "below").chmod(0o700)
    assert not as_nobody(parent, lambda folder: fills(folder, 1 << 30))


@pytest.mark.parametrize("closed", ["closed", "closed/below"])
def test_a_closed_folder_is_removed(parent: Path, closed: str) -> None:
    (parent / closed).chmod(0)
    as_nobody(parent, lambda folder: remove(folder) is None)

    assert list(parent.iterdir()) == []
