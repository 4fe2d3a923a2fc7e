"""Starting a runner process: in bubblewrap where it works, else plain with rlimits.

The runner gets its own process group, no credentials in its environment, and one writable folder.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from store.settings import settings

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache")
MEMORY_FOLDERS = ("/tmp", "/dev/shm")  # noqa: S108  (they cost memory, so they are small)
MEMORY_BYTES = str(256 << 20)
DEVICES = Path("/dev")
LIBRARY_PACKAGES = ("cstar_core", "store", "worker")


class SandboxUnavailable(Exception):
    """`CSTAR_SANDBOX=required` but bubblewrap is missing or may not run here."""


def start_runner(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m worker.runner` in `folder`; its messages come over the returned stdout."""
    return start_confined([sys.executable, "-m", "worker.runner", str(folder)], folder, log)


def start_confined(command: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a command that may write `folder` only; its standard error goes to `log`."""
    environment = _environment(folder)
    if sandbox_name() == "bubblewrap":
        command = [*_bubblewrap(folder), *command]
    else:
        environment["CSTAR_SUPERVISOR_PID"] = str(os.getpid())
    with log.open("ab") as errors:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Say whether a runner has ended, without reaping it (see `end`)."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a runner and everything it started."""
    os.killpg(process.pid, signal.SIGTERM)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a runner that has not been reaped, and to everything it started."""
    os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[bytes], *, patience_s: float = 0.0) -> int:
    """Kill a runner and everything it started; returns its status as `subprocess` gives it.

    It has `patience_s` to end by itself. It is reaped last: its id names the group until then.
    """
    if process.returncode is None:
        await_exit(process.pid, patience_s)
        kill_group(process)
    return process.wait()


def await_exit(pid: int, patience_s: float) -> None:
    """Wait until a runner has ended, at most so long; it is not reaped."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(patience_s * 1000)
    finally:
        os.close(descriptor)


@lru_cache
def sandbox_name() -> str:
    """Return `bubblewrap` or `rlimits`, whichever this machine can do; raises by settings."""
    wanted = settings().sandbox
    if wanted == "off":
        return "rlimits"
    if _bubblewrap_works():
        return "bubblewrap"
    if wanted == "required":
        raise SandboxUnavailable(
            "CSTAR_SANDBOX=required, but bubblewrap (bwrap) is not installed or may not create "
            "namespaces here; install it or allow unprivileged user namespaces"
        )
    return "rlimits"


def _bubblewrap_works() -> bool:
    if shutil.which("bwrap") is None:
        return False
    probe = [*_namespaces(), *_system(), "/usr/bin/env", "true"]
    return subprocess.run(probe, capture_output=True, check=False, timeout=10).returncode == 0


def _bubblewrap(folder: Path) -> list[str]:
    readable = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)}
    readable |= {str(path) for path in _library_folders()}
    binds = [part for path in sorted(readable) for part in ("--ro-bind", path, path)]
    own = ["--bind", str(folder), str(folder), "--remount-ro", "/"]
    return [*_namespaces(), *_system(), *binds, *own]


def _namespaces() -> list[str]:
    """Return how bubblewrap begins: SIGTERM is for the runner, bubblewrap would die of it."""
    bubblewrap = shutil.which("bwrap") or "bwrap"  # the runner's own PATH need not have it
    return [
        "/usr/bin/env",
        "--ignore-signal=TERM",
        bubblewrap,
        "--unshare-all",
        "--die-with-parent",
    ]


def _system() -> list[str]:
    binds = [part for path in SYSTEM_FOLDERS for part in ("--ro-bind-try", path, path)]
    bounded = [
        part for path in MEMORY_FOLDERS for part in ("--size", MEMORY_BYTES, "--tmpfs", path)
    ]
    devices = ["--dev", "/dev", *_gpus()]
    return [*binds, *devices, "--proc", "/proc", *bounded, "--remount-ro", "/dev"]


def _gpus() -> list[str]:
    """Return how bubblewrap lets the devices of a driver in, for workers that were given some."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        return []
    devices = sorted(str(path) for path in DEVICES.glob("nvidia*"))
    return [part for path in devices for part in ("--dev-bind", path, path)]


def _library_folders() -> list[Path]:
    """Return where the packages a runner imports lie (the checkout, in an editable install)."""
    specs = [find_spec(name) for name in LIBRARY_PACKAGES]
    return [Path(spec.origin).parent for spec in specs if spec and spec.origin]


def _environment(folder: Path) -> dict[str, str]:
    """Return the whole environment of a runner: no credentials, no settings of the service."""
    paths = {str(path.parent) for path in _library_folders()}
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(sorted(paths)),
        "OMP_WAIT_POLICY": "PASSIVE",  # docs/decisions/0001: spinning threads on a busy machine
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),  # none unless given
    }
