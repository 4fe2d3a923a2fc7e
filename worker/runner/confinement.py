"""What a runner does to itself before it touches an upload: limits, and dying with its parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

import torch

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
OPEN_FILES = 512
FILE_BYTES = 8 << 30


def die_with_supervisor() -> None:
    """Arrange to be killed when the supervisor dies (bubblewrap does the same for its child).

    SIGTERM ends the runner again, until somebody handles it: bubblewrap was started without.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    supervisor = os.environ.get("CSTAR_SUPERVISOR_PID")
    if supervisor is not None and os.getppid() != int(supervisor):
        raise SystemExit("the supervisor died before its runner had started")


def confine(*, memory_bytes: int, max_tasks: int, threads: int) -> None:
    """Set limits that cannot be raised again (address space only where CUDA is not used).

    `max_tasks` threads and processes may come to those that this user has; the kernel does not
    hold root to that. `threads` = 0 leaves the number of torch's to torch.
    """
    if threads:
        torch.set_num_threads(threads)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    tasks = _tasks_of_this_user() + max_tasks
    _, inherited = resource.getrlimit(resource.RLIMIT_NPROC)
    if inherited != resource.RLIM_INFINITY:  # a companion may not exceed what its runner has
        tasks = min(tasks, inherited)
    resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _tasks_of_this_user() -> int:
    """Count the threads of all processes of this user that can be seen."""
    tasks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if process.stat().st_uid == os.getuid():
                tasks += len(os.listdir(process / "task"))
    return tasks
