"""`celery -A benchmarks.load.cheap_worker worker`: a real worker whose runners do little.

A runner says four phases, an event and a checkpoint, leaves one artifact, and ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from worker import supervisor
from worker.app import app
from worker.protocol import (
    CHECKPOINT_FILE,
    OUTPUT_FOLDER,
    CheckpointSaved,
    Event,
    OutputFile,
    Progress,
    Result,
    encode,
)

__all__ = ["app"]
PHASES = ("checking", "planning", "admm", "exporting")
FILE = OutputFile(kind="report", filename="report.json", media_type="application/json")
SCRIPT = """
import os, pathlib, sys
pathlib.Path(sys.argv[1]).write_bytes(os.urandom(64))
pathlib.Path(sys.argv[2]).write_text(sys.argv[3])
os.write(1, sys.stdin.buffer.read())
"""


def start_cheap_runner(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the script in the place of a runner (of `worker.executors.start_runner`)."""
    said = folder / "said"
    said.write_bytes(b"".join(map(encode, words())))
    output = str(folder / OUTPUT_FOLDER / FILE.filename)
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, CHECKPOINT_FILE, output, folder.name]
    with log.open("ab") as errors, said.open("rb") as text:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.defpath},
            stdin=text,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


def words() -> list[Progress | Event | CheckpointSaved | Result]:
    """Return what such a runner says."""
    said: list[Progress | Event | CheckpointSaved | Result] = [
        Progress(phase=phase, progress=index / len(PHASES)) for index, phase in enumerate(PHASES)
    ]
    said.insert(3, CheckpointSaved(phase="admm", finished=False))
    said.insert(2, Event(name="ranks.chosen", data={"layers": 3}))
    return [*said, Result(result={"ratio": 4.0}, files=[FILE])]


vars(supervisor)["start_runner"] = start_cheap_runner
