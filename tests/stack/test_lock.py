"""One stack a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stack import lock


def test_who_runs_a_stack_is_known_while_it_runs(tmp_path: Path) -> None:
    assert lock.holder(tmp_path) is None
    with lock.held(tmp_path):
        assert lock.holder(tmp_path) == os.getpid()
    assert lock.holder(tmp_path) is None


def test_a_second_stack_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        lock.held(tmp_path),
        pytest.raises(lock.AlreadyRunning, match=str(os.getpid())),
        lock.held(tmp_path),
    ):
        pass
