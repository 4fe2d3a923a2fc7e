"""Small processes in the place of a runner: each does just what its script says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from worker.protocol import Message, encode

PRELUDE = """
import os, signal, sys
from pathlib import Path
folder, output = Path.cwd(), Path("output")
def forever():
    while True: signal.pause()
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
FOREVER = "forever()"


def say(*messages: Message) -> str:
    """Return the line of a script that says messages in one go."""
    return say_bytes(b"".join(encode(message) for message in messages))


def say_bytes(data: bytes) -> str:
    """Return the line of a script that writes to its supervisor."""
    return f"os.write(1, {data!r})"


def die(number: int) -> str:
    """Return the line of a script that ends its process by a signal."""
    return f"os.kill(os.getpid(), {number})"


@dataclass
class FakeRunner:
    """Takes the place of `worker.executors.start_runner` and keeps what it has started."""

    script: str = ""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def does(self, *lines: str) -> None:
        """Set the script, line by line."""
        self.script = "\n".join([PRELUDE, *lines])

    def __call__(self, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", self.script],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def await_end(self) -> int:
        """Return the exit status of the only process once it has ended, without reaping it."""
        (process,) = self.started
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return -ended.si_status if ended.si_code == os.CLD_KILLED else ended.si_status

    @property
    def status(self) -> int | None:
        """The exit status of the only process; None when nobody has waited for its end."""
        (process,) = self.started
        return process.returncode
