"""Child processes that are started again when they die, and never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
RESTART_DELAY_S = 1.0
SECRETS = {"CSTAR_SECRET_KEY", "CSTAR_METRICS_TOKEN"}


@dataclass
class Child:
    """A process with a name, a log file, and the settings it is started with."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restarts: int = 0

    def start(self) -> None:
        """Start the process; its output goes to its log."""
        self.started_at = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**_without_secrets(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self.inherited,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (one system call, no locks)
            )

    def revive(self) -> bool:
        """Start the process again if it has died; says whether it had."""
        if self.process is None or self.process.poll() is None:
            return False
        if time.monotonic() - self.started_at < RESTART_DELAY_S:
            return False
        self.restarts += 1
        self.start()
        return True

    def stop(self, *, grace_s: float) -> None:
        """Ask the process to end, and kill it when it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self, lines: int = 15) -> str:
        """Return the end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def _without_secrets() -> dict[str, str]:
    """Return this process's environment; what is secret is handed to those who need it only."""
    return {name: value for name, value in os.environ.items() if name not in SECRETS}


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
