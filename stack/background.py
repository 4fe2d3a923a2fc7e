"""`cstar up --detach` and `cstar down`: a stack that goes on without a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from stack import lock
from stack.credentials import STACK_FILE
from stack.embedded import READY_WITHIN_S
from store.settings import Settings

LOG_FILE = "up.log"
READY = "ready:"
LOOK_S = 0.1
SPARE_S = 30.0  # beyond what the stack itself allows for


def start(settings: Settings, *, port: int) -> int:
    """Start a stack in the background and return 0 once it is ready, or 1 with its last words."""
    data_dir = settings.data_dir.resolve()
    if lock.holder(data_dir) is None and not _spawn(data_dir, port):
        return 1
    url = json.loads((data_dir / STACK_FILE).read_text())["url"]
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


def _spawn(data_dir: Path, port: int) -> bool:
    """Start the process and say whether its stack became ready."""
    log = data_dir / "logs" / LOG_FILE
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "stack", "up", "--port", str(port)]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it has the key
    with os.fdopen(descriptor, "wb") as output:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_WITHIN_S + SPARE_S
    while READY not in (said := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            print(said.strip() or f"not ready; see {log}", file=sys.stderr)
            return False
        time.sleep(LOOK_S)
    return True
