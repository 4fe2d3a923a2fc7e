"""Processes as a runner is started: what they get, what they may do, and how they end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.processes import finish
from tests.worker.shop import PATIENCE_S
from worker import executors
from worker.executors import SandboxUnavailable

SECRETS = {
    "CSTAR_SECRET_KEY": "secret-0",
    "CSTAR_DATABASE_URL": "postgresql://secret-1@database",
    "CSTAR_BROKER_URL": "redis://:secret-2@broker",
    "DATABASE_URL": "postgresql://secret-3@database",
    "AWS_SECRET_ACCESS_KEY": "secret-4",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an attempt, beside other things that are none of its business."""
    made = tmp_path / "data" / "work" / "job_1.1"
    made.mkdir(parents=True)
    (tmp_path / "data" / "stack.json").write_text("secret-5")
    return made


def start(folder: Path, script: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-S", "-c", script]
    return executors.start_confined(command, folder, folder / "runner.log")


def found_by(folder: Path, script: str, **values: Any) -> Any:
    """Run a script that sets `found` within the sandbox, and return that."""
    given = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    code = f"import json, os, socket\n{given}\n{script}\nprint(json.dumps(found))"
    said = finish(start(folder, code))
    assert (folder / "runner.log").read_text() == ""
    return json.loads(said)


ATTEMPT = """
def attempt(act):
    try:
        return str(act())
    except OSError as error:
        return type(error).__name__
"""


@pytest.mark.usefixtures("either")
def test_the_environment_of_a_runner_has_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    found = found_by(folder, "found = dict(os.environ)")

    assert not set(SECRETS) & set(found)
    assert "secret" not in "".join(found.values())
    assert found["HOME"] == found["TMPDIR"] == str(folder)


@pytest.mark.usefixtures("either")
def test_a_runner_may_write_its_folder(folder: Path) -> None:
    found = found_by(folder, "found = open('output', 'w').write('done')")

    assert found == len("done")
    assert (folder / "output").read_text() == "done"


@pytest.mark.usefixtures("either")
def test_what_a_runner_says_of_its_errors_is_in_its_log(folder: Path) -> None:
    finish(start(folder, "import sys; sys.stderr.write('last words')"))

    assert (folder / "runner.log").read_text() == "last words"


@pytest.mark.usefixtures("bubblewrap")
def test_a_sandbox_has_no_network(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
        script = "found = attempt(lambda: socket.create_connection(('127.0.0.1', port)))"
        found = found_by(folder, ATTEMPT + script, port=port)

    assert found in ("ConnectionRefusedError", "OSError")


@pytest.mark.usefixtures("bubblewrap")
def test_a_sandbox_shows_nothing_of_the_data_folder_but_the_runners_own(folder: Path) -> None:
    script = """
found = {
    "secret": attempt(lambda: open(data + '/stack.json').read()),
    "beside": os.listdir(data) + os.listdir(data + '/work'),
    "processes": [name for name in os.listdir('/proc') if name.isdigit()],
}
"""
    found = found_by(folder, ATTEMPT + script, data=str(folder.parents[1]))

    assert found["secret"] == "FileNotFoundError"
    assert found["beside"] == ["work", "job_1.1"]
    assert str(os.getpid()) not in found["processes"]


@pytest.mark.usefixtures("bubblewrap")
def test_the_system_and_the_packages_are_read_only_in_a_sandbox(folder: Path) -> None:
    package = Path(executors.__file__).parent
    places = [str(package), sys.prefix, "/usr", "/"]
    script = "found = [attempt(lambda: open(place + '/new', 'w')) for place in places]"

    assert found_by(folder, ATTEMPT + script, places=places) == ["OSError"] * 4  # EROFS


@pytest.mark.usefixtures("bubblewrap")
def test_what_a_sandbox_writes_outside_the_runners_folder_never_arrives(folder: Path) -> None:
    places = [folder.parent, folder.parents[1], Path("/tmp"), Path("/dev/shm")]
    script = "found = [attempt(lambda: open(place + '/cstar-new', 'w')) for place in places]"
    found_by(folder, ATTEMPT + script, places=[str(place) for place in places])

    assert not any((place / "cstar-new").exists() for place in places)


@pytest.mark.usefixtures("bubblewrap")
def test_bubblewrap_is_found_where_the_runners_own_path_does_not_lead(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("bwrap")
    assert program is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bwrap").symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    assert found_by(folder, "found = os.environ['PATH']") == "/usr/bin:/bin"
    assert str(tmp_path / "bin" / "bwrap") in executors._namespaces()


HEED = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.write(1, b"ready")
signal.sigwait({signal.SIGTERM})
os.write(1, b" heard")
"""
SLEEP = "import signal, os\nos.fork()\nos.write(1, b'r')\nwhile True: signal.pause()"


@pytest.mark.usefixtures("either")
def test_a_runner_hears_sigterm_and_ends_by_itself(folder: Path) -> None:
    process = start(folder, HEED)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    executors.ask_to_stop(process)

    assert finish(process) == b" heard"


@pytest.mark.usefixtures("either")
def test_ending_a_runner_kills_everything_it_has_started(folder: Path) -> None:
    process = start(folder, SLEEP)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"rr"
    assert not executors.has_ended(process)

    assert executors.end(process) == -signal.SIGKILL
    with process.stdout as pipe:  # every process that could write has gone
        assert pipe.read() == b""


@pytest.mark.usefixtures("either")
def test_a_runner_that_has_ended_is_seen_without_being_reaped(folder: Path) -> None:
    process = start(folder, "raise SystemExit(7)")
    assert process.stdout is not None
    with process.stdout as pipe:
        pipe.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert executors.has_ended(process)
    assert process.returncode is None
    assert executors.end(process) == 7
    assert executors.end(process) == 7


SUPERVISOR = """
import sys
from pathlib import Path
from store.settings import Settings
from worker import executors
executors.settings = lambda: Settings(sandbox=sys.argv[1])
folder = Path(sys.argv[2])
process = executors.start_confined([sys.executable, "-c", sys.argv[3]], folder, folder / "log")
print(process.stdout.readline().decode().strip(), process.pid, flush=True)
sys.stdin.read()
"""
PLAIN = """
from worker.runner.confinement import die_with_supervisor
die_with_supervisor()
print("ready", flush=True)
import signal
while True: signal.pause()
"""
SANDBOXED = PLAIN.split("die_with_supervisor()", 1)[1]  # bubblewrap sees to it


@pytest.fixture
def supervisor(either: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has started a runner."""
    mode, script = ("off", PLAIN) if either == "plain" else ("required", SANDBOXED)
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, mode, str(folder), script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_a_runner_dies_with_its_supervisor(supervisor: subprocess.Popen[str]) -> None:
    assert supervisor.stdout is not None
    ready, pid = supervisor.stdout.readline().split()
    assert ready == "ready"
    runner = os.pidfd_open(int(pid))
    try:
        assert select.select([runner], [], [], 0.0)[0] == []
        supervisor.kill()
        assert select.select([runner], [], [], PATIENCE_S)[0] == [runner]
    finally:
        os.close(runner)


LIMITS = """
import json, resource
from worker.runner.confinement import confine
confine(memory_bytes=8 << 30, max_tasks=1000, threads=1)
names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC")
found = {name: resource.getrlimit(getattr(resource, name)) for name in names}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found["NoNewPrivs"] = int(status["NoNewPrivs"])
print(json.dumps(found))
"""


@pytest.mark.usefixtures("plain")
def test_a_runner_limits_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    command = [sys.executable, "-c", LIMITS]
    process = executors.start_confined(command, folder, folder / "runner.log")

    found = json.loads(finish(process))
    tasks, most = found.pop("RLIMIT_NPROC")  # beside those that this user has already
    assert 1000 < tasks == most
    assert found == {
        "RLIMIT_AS": [8 << 30, 8 << 30],
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_FSIZE": [8 << 30, 8 << 30],
        "RLIMIT_NOFILE": [512, 512],
        "NoNewPrivs": 1,
    }


def test_a_sandbox_that_is_required_but_missing_is_refused_with_the_next_step(
    choose_sandbox: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    choose_sandbox("required")

    with pytest.raises(SandboxUnavailable, match=r"CSTAR_SANDBOX=required.*install it or allow"):
        executors.start_runner(folder, folder / "runner.log")


def test_a_sandbox_that_is_missing_and_not_required_is_done_without(
    choose_sandbox: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    choose_sandbox("auto")

    assert executors.sandbox_name() == "rlimits"


def test_a_sandbox_that_does_not_work_here_is_done_without(
    choose_sandbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    choose_sandbox("auto")

    assert executors.sandbox_name() == "rlimits"
