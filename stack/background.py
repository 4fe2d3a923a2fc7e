"""`cstar up --detach` and `cstar down`: a stack that goes on without a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from stack import lock
from stack.credentials import stack_file
from stack.embedded import READY_WITHIN_S
from store.settings import Settings

LOG_FILE = "up.log"
LOOK_S = 0.1
SPARE_S = 30.0  # beyond what the stack itself allows for


def start(settings: Settings, *, port: int) -> int:
    """Start a stack in the background and return 0 once it is ready, or 1 with its last words.

    One that runs already, or is being started by somebody else, is waited for.
    """
    data_dir = settings.data_dir.resolve()
    log = data_dir / "logs" / LOG_FILE
    process = _spawn(data_dir, log, port) if lock.holder(data_dir) is None else None
    deadline = time.monotonic() + READY_WITHIN_S + SPARE_S
    while (url := _ready_at(data_dir)) is None:
        ended = process is None or process.poll() is not None
        if (ended and lock.holder(data_dir) is None) or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip() if process else ""
            print(said or f"not ready; see {log.parent}", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)
    print(f"ready: {url}   (`cstar down` stops it)")
    return 0


def stop(settings: Settings) -> int:
    """Stop the stack of this data folder; 1 when it does not end."""
    data_dir = settings.data_dir.resolve()
    process_id = lock.holder(data_dir)
    if process_id is None:
        print(f"no stack runs in {data_dir}")
        return 0
    os.kill(process_id, signal.SIGTERM)
    deadline = time.monotonic() + settings.cancel_grace_s + SPARE_S
    while lock.holder(data_dir) == process_id:
        if time.monotonic() > deadline:
            print(f"process {process_id} does not end", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)
    print("stopped")
    return 0


def _spawn(data_dir: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "stack", "up", "--port", str(port)]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it has the key
    with os.fdopen(descriptor, "wb") as output:
        return subprocess.Popen(
            [*command, "--data-dir", str(data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _ready_at(data_dir: Path) -> str | None:
    """Return the address of the stack that runs, once it is ready: its file has its process id."""
    running, said = lock.holder(data_dir), stack_file(data_dir)
    return str(said["url"]) if running is not None and said.get("pid") == running else None
