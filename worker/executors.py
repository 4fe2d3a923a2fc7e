"""Starting a runner process: in bubblewrap where it works, else plain with rlimits.

The runner gets its own process group, no credentials in its environment, and one writable folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from store.settings import settings

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache")
LIBRARY_PACKAGES = ("cstar_core", "store", "worker")


class SandboxUnavailable(Exception):
    """`CSTAR_SANDBOX=required` but bubblewrap is missing or may not run here."""


def start_runner(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m worker.runner` in `folder`; its messages come over the returned stdout."""
    command = [sys.executable, "-m", "worker.runner", str(folder)]
    environment = _environment(folder)
    if sandbox_name() == "bubblewrap":
        command = _bubblewrap(folder) + command
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


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a runner and everything it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)


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
    return [*_namespaces(), *_system(), *binds, "--bind", str(folder), str(folder)]


def _namespaces() -> list[str]:
    return ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]


def _system() -> list[str]:
    binds = [part for path in SYSTEM_FOLDERS for part in ("--ro-bind-try", path, path)]
    return [*binds, "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108


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
        **{name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ},
    }
