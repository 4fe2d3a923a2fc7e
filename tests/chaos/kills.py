"""Whom a campaign kills, by SIGKILL, and how it finds them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import psutil

from stack.children import Child
from tests.chaos.stack import ChaosStack
from tests.e2e.watching import kill

Kill = Callable[[ChaosStack, random.Random], bool]


def worker_group(stack: ChaosStack, rng: random.Random) -> bool:
    """Kill a worker, its pool, its runners: as when the power of a machine fails."""
    family = _some_worker(stack, rng)
    kill(family)
    return bool(family)


def worker_parent(stack: ChaosStack, rng: random.Random) -> bool:
    """Kill the main process of a worker; what is below it must die of that."""
    family = _some_worker(stack, rng)
    kill(family[:1])
    return bool(family)


def pool_process(stack: ChaosStack, rng: random.Random) -> bool:
    """Kill the supervisor of a job under its worker."""
    family = _some_worker(stack, rng)
    below = [process for process in family[1:] if _parent(process) == family[0].pid]
    kill(below[:1])
    return bool(below)


def runner(stack: ChaosStack, rng: random.Random) -> bool:
    """Kill one of the processes that make up a runner (bubblewrap's among them)."""
    below = [process for process in _some_worker(stack, rng) if _is_runners(process)]
    if below:
        kill([rng.choice(below)])
    return bool(below)


def broker(stack: ChaosStack, _rng: random.Random) -> bool:
    """Kill the broker with everything in its queues."""
    with stack.broker_lock:
        stack.broker.kill()
    return True


def scheduler(stack: ChaosStack, _rng: random.Random) -> bool:
    """Kill the scheduler."""
    return _kill_child(stack, "scheduler")


def api(stack: ChaosStack, _rng: random.Random) -> bool:
    """Kill the API."""
    return _kill_child(stack, "api")


KILLS: dict[str, Kill] = {
    function.__name__: function
    for function in (worker_group, worker_parent, pool_process, runner, broker, scheduler, api)
}


def is_at_work(stack: ChaosStack) -> bool:
    """Say whether there is a runner."""
    return any(map(_is_busy, (_family(stack.children[name]) for name in stack.job_workers)))


def _some_worker(stack: ChaosStack, rng: random.Random) -> list[psutil.Process]:
    """Return a worker and everything below it, one that has a runner if there is any."""
    names = rng.sample(stack.job_workers, len(stack.job_workers))
    families = [_family(stack.children[name]) for name in names]
    return max(families, key=_is_busy)


def _is_busy(family: list[psutil.Process]) -> bool:
    return any(map(_is_runners, family))


def _kill_child(stack: ChaosStack, name: str) -> bool:
    family = _family(stack.children[name])
    kill(family)
    return bool(family)


def _family(child: Child) -> list[psutil.Process]:
    """Return a living child and everything below it; nothing where it has just died."""
    if child.process is None or child.process.poll() is not None:
        return []
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(child.process.pid)
        return [process, *process.children(recursive=True)]
    return []


def _parent(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.ppid())
    return -1


def _is_runners(process: psutil.Process) -> bool:
    """Say whether a process is of a runner: its last word is the folder of an attempt."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        words = process.cmdline()
        return bool(words) and "/work/job_" in words[-1]
    return False
