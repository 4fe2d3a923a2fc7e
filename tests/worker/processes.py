"""Waiting for processes that were started as a runner is."""

from __future__ import annotations

import subprocess

from tests.worker.shop import PATIENCE_S
from worker import executors


def finish(process: subprocess.Popen[bytes]) -> bytes:
    """Return what a process has said once it has ended, which it must do well."""
    assert process.stdout is not None
    with process.stdout as pipe:
        said = pipe.read()
    assert executors.end(process, patience_s=PATIENCE_S) == 0
    return said
