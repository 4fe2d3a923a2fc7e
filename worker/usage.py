"""What a runner and everything it has started use of the machine, and how much they may.

Limits that a process sets itself hold for each process alone; these are for all of them together,
and for the job's folder. Read from /proc, as seen from outside of a sandbox.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from store.settings import Settings
from store.states import ErrorCode
from worker.disk import BLOCK_BYTES, MAX_FILES, fills


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
    unlinked = _unlinked(processes)
    if _take_more_than(limits.memory_bytes, processes, unlinked.pop(_memory_device(), 0)):
        text = f"the job took more than {limits.memory_bytes:,} bytes of memory"
        return Excess(ErrorCode.OUT_OF_MEMORY, text)
    if fills(folder, limits.disk_bytes, unlinked=sum(unlinked.values())):
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


def _unlinked(processes: list[Process]) -> dict[int, int]:
    """Return, by device, the bytes of the files without a name that processes hold open.

    Those of a process that hides its descriptors, as one can outside of a sandbox, are not seen.
    """
    sizes: dict[tuple[int, int], int] = {}
    for process in processes:
        for entry in _open_files(process):
            if stat.S_ISREG(entry.st_mode) and not entry.st_nlink:
                sizes[entry.st_dev, entry.st_ino] = entry.st_blocks * BLOCK_BYTES
    by_device: dict[int, int] = defaultdict(int)
    for (device, _), size in sizes.items():
        by_device[device] += size
    return by_device


def _open_files(process: Process) -> Iterator[os.stat_result]:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{process.pid}/fd"):
            with suppress(OSError):  # it has been closed meanwhile
                yield os.stat(f"/proc/{process.pid}/fd/{name}")


@lru_cache
def _memory_device() -> int:
    """Return the device of files that are memory alone (memfd_create)."""
    descriptor = os.memfd_create("device")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Memory:
    """Bytes that processes have resident, without the files that they map."""

    private: int
    shared: int


def _take_more_than(limit: int, processes: list[Process], memory_files: int) -> bool:
    """Say whether processes take more memory; what they share counts once, which is slow to say.

    `memory_files`: bytes of those files in memory that they hold open, mapped or not.
    """
    return all(
        _total([measure(process) for process in processes], memory_files) > limit
        for measure in (_resident, _proportional)
    )


def _total(parts: list[Memory], memory_files: int) -> int:
    shared = sum(part.shared for part in parts)
    return sum(part.private for part in parts) + max(shared, memory_files)


def _proportional(process: Process) -> Memory:
    """Return a process's share of its memory (its PSS), or all of it if it hides that."""
    found = _sizes(Path(f"/proc/{process.pid}/smaps_rollup"))
    if "Pss_Anon" not in found:
        return _resident(process)
    return Memory(found["Pss_Anon"], found["Pss_Shmem"])


def _resident(process: Process) -> Memory:
    found = _sizes(Path(f"/proc/{process.pid}/status"))
    return Memory(found.get("RssAnon", 0), found.get("RssShmem", 0))


def _sizes(path: Path) -> dict[str, int]:
    """Return the bytes that a file of /proc gives in kB, by name."""
    with suppress(OSError):
        fields = [line.split() for line in path.read_text(errors="replace").splitlines()]
        return {field[0][:-1]: int(field[1]) << 10 for field in fields if field[2:] == ["kB"]}
    return {}
