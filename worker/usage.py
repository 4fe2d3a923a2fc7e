"""What a runner and everything it has started use of the machine, and how much they may.

Limits that a process sets itself hold for each process alone; these are for all of them together,
and for the job's folder. Read from /proc, as seen from outside of a sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.settings import Settings
from store.states import ErrorCode

MAX_FILES = 10_000
BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """How much one job may use: threads of all its processes, bytes of memory and of disk."""

    tasks: int
    memory_bytes: int
    disk_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits of a job; on several GPUs it has a process for each."""
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        memory = settings.runner_memory_bytes * len(devices)
        return cls(settings.runner_tasks, memory, settings.runner_disk_bytes)


@dataclass(frozen=True)
class Excess:
    """What was too much, as a job's error says it."""

    code: ErrorCode
    message: str


def excess(leader: int, folder: Path, limits: Limits) -> Excess | None:
    """Return what the runner that `leader` leads uses too much of, if anything."""
    processes = family(leader)
    tasks = sum(process.tasks for process in processes)
    if tasks > limits.tasks:
        return Excess(ErrorCode.INTERNAL, f"the runner had {tasks} threads and processes")
    if _take_more_than(limits.memory_bytes, processes):
        text = f"the job took more than {limits.memory_bytes:,} bytes of memory"
        return Excess(ErrorCode.OUT_OF_MEMORY, text)
    if _fills(folder, limits.disk_bytes):
        text = f"the job's folder held more than {limits.disk_bytes:,} bytes or {MAX_FILES} files"
        return Excess(ErrorCode.STORAGE_ERROR, text)
    return None


@dataclass(frozen=True)
class Process:
    """A process as /proc/PID/stat shows it; `tasks` counts its threads."""

    pid: int
    parent: int
    session: int
    tasks: int


def family(leader: int) -> list[Process]:
    """Return the processes below `leader` or in the session that it leads, itself among them."""
    processes = list(_processes())
    found = {process.pid for process in processes if leader in (process.pid, process.session)}
    below = found
    while below:
        below = {process.pid for process in processes if process.parent in below} - found
        found |= below
    return [process for process in processes if process.pid in found]


def _processes() -> Iterator[Process]:
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        with suppress(OSError):  # it has ended meanwhile
            # the name of a program may hold anything, a parenthesis too
            fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2]
            _, parent, _, session, *rest = fields.split()
            yield Process(int(name), int(parent), int(session), int(rest[13]))


def _take_more_than(limit: int, processes: list[Process]) -> bool:
    """Say whether processes take more memory; what they share counts once, which is slow to say."""
    return (
        sum(map(_resident_bytes, processes)) > limit
        and sum(map(_proportional_bytes, processes)) > limit
    )


def _proportional_bytes(process: Process) -> int:
    """Return a process's share of the memory it has resident (its PSS)."""
    with suppress(OSError):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return 0


def _resident_bytes(process: Process) -> int:
    """Return the resident memory of a process without the files that it maps."""
    with suppress(OSError, ValueError):
        _, resident, shared, *_ = Path(f"/proc/{process.pid}/statm").read_text().split()
        return (int(resident) - int(shared)) * PAGE_BYTES
    return 0


def _fills(folder: Path, limit: int) -> bool:
    """Say whether a folder is over its limits, without counting on once it is."""
    total = files = 0
    for _, _, names, descriptor in os.fwalk(folder):  # by descriptor: no link leads outside
        for name in names:
            with suppress(OSError):
                entry = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                total += entry.st_blocks * BLOCK_BYTES
            files += 1
            if total > limit or files > MAX_FILES:
                return True
    return False
