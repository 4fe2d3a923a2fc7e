"""The Celery app of the service, whose workers give small models to the small runner.

`celery -A tests.support.small_app worker ...`; all else is what a worker of the service does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.small import SMALL, STAMPS
from worker import executors, supervisor
from worker.app import app
from worker.workspace import WEIGHTS_FILE

__all__ = ["app"]
SCRIPT = Path(__file__).with_name("small_runner.py").read_text()


def start_runner(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the small runner for a small model, with its stamps in place of a log."""
    weights = folder / WEIGHTS_FILE
    if not weights.exists() or weights.read_bytes() != SMALL:
        return executors.start_runner(folder, log)
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, str(folder)]
    return executors.start_confined(command, folder, Path(os.environ[STAMPS]))


supervisor.start_runner = start_runner
