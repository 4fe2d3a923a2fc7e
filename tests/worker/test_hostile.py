"""Runners that have been hijacked: contained or killed, told by the right code, and the next
job runs; in bubblewrap and, where that makes sense, with rlimits alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from store.states import JobState
from store.tables import Job
from tests.support import rows
from tests.worker.fake_runner import DEAF, FOREVER, PRELUDE, say, say_bytes
from tests.worker.shop import UNDER_WAY, Shop
from worker import disk, executors
from worker.protocol import Event, Progress, Result

MIB = 1 << 20
LIMITS = {
    "runner_memory_bytes": 256 * MIB,
    "runner_disk_bytes": 64 * MIB,
    "runner_tasks": 100,
    "cancel_grace_s": 0.3,
}
FINE = say(Result(result={"fine": True}))


class Hijacked:
    """Starts what a script says as a runner is started, in the sandbox of this test."""

    def __init__(self) -> None:
        self.script = ""
        self.started: list[subprocess.Popen[bytes]] = []

    def does(self, *lines: str) -> None:
        self.script = "\n".join([PRELUDE, *lines])

    def __call__(self, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", self.script]
        self.started.append(executors.start_confined(command, folder, log))
        return self.started[-1]


@pytest.fixture
def hijacked(either: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hijacked]:
    made = Hijacked()
    monkeypatch.setattr("worker.supervisor.start_runner", made)
    monkeypatch.setattr("worker.supervisor.USAGE_INTERVAL_S", 0.05)
    monkeypatch.setattr("worker.supervisor.TICK_S", 0.02)
    yield made
    for process in made.started:
        assert process.returncode is not None, "the supervisor left its runner behind"


@pytest.fixture
def tight(shop: Shop, hijacked: Hijacked) -> Iterator[Shop]:
    """A shop with little room; in the end a well-behaved job must succeed in it."""
    made = shop.with_settings(**LIMITS)
    before = psutil.Process().children()
    yield made
    hijacked.does(FINE)
    job = made.work_on(made.add_job())
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"fine": True})
    assert list(made.work.iterdir()) == []
    assert psutil.Process().children() == before


def failed(job: Job) -> tuple[str, str]:
    """Return code and message of a job that has failed."""
    assert job.state == JobState.FAILED
    assert job.error is not None
    return job.error["code"], job.error["message"]


def test_memory_without_bound_is_out_of_memory(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does("held = []", "while True: held.append(b'x' * (16 << 20))")

    code, message = failed(tight.work_on(tight.add_job()))
    assert code == "out_of_memory"
    assert "268,435,456 bytes of memory" in message


def test_memory_of_many_processes_is_counted_together(tight: Shop, hijacked: Hijacked) -> None:
    share = "held = b'x' * (60 << 20)"
    hijacked.does("for _ in range(8):", f"    if os.fork() == 0: {share}; forever()", FOREVER)

    assert failed(tight.work_on(tight.add_job()))[0] == "out_of_memory"


def test_processes_without_bound_are_killed_all_of_them(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does("while True:", "    if os.fork() == 0: forever()")

    code, message = failed(tight.work_on(tight.add_job()))
    assert code == "internal"
    assert message.endswith("threads and processes")


def test_threads_are_counted_as_processes_are(tight: Shop, hijacked: Hijacked) -> None:
    start = "_thread.start_new_thread(lock.acquire, ())"
    hijacked.does(
        "import _thread", "lock = _thread.allocate_lock()", "lock.acquire()", f"while True: {start}"
    )

    assert failed(tight.work_on(tight.add_job()))[1].endswith("threads and processes")


def test_a_folder_filled_without_bound_is_a_storage_error(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does("file = open('output/filling', 'wb')", "while True: file.write(b'x' * (4 << 20))")

    code, message = failed(tight.work_on(tight.add_job()))
    assert code == "storage_error"
    assert "67,108,864 bytes" in message


def test_files_without_number_are_a_storage_error(
    tight: Shop, hijacked: Hijacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_FILES", 500)
    hijacked.does("n = 0", "while True: open(f'output/{n}', 'wb').close(); n += 1")

    assert failed(tight.work_on(tight.add_job()))[0] == "storage_error"


def test_folders_without_number_are_a_storage_error(
    tight: Shop, hijacked: Hijacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_FILES", 500)
    hijacked.does("n = 0", "while True: os.mkdir(f'output/{n}'); n += 1")

    assert failed(tight.work_on(tight.add_job()))[0] == "storage_error"


def test_a_folder_too_deep_to_be_counted_is_a_storage_error_and_is_removed(
    tight: Shop, hijacked: Hijacked
) -> None:
    hijacked.does("for _ in range(1500): os.mkdir('d'); os.chdir('d')", FOREVER)

    assert failed(tight.work_on(tight.add_job()))[0] == "storage_error"


def test_a_deep_folder_of_a_runner_that_ends_well_is_removed(
    tight: Shop, hijacked: Hijacked
) -> None:
    deep = f"for _ in range({disk.MAX_DEPTH - 1}): os.mkdir('d'); os.chdir('d')"
    hijacked.does(deep, FINE)

    assert tight.work_on(tight.add_job()).state == JobState.SUCCEEDED


def test_files_without_a_name_count_as_those_that_have_one(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does(
        "file = open('output/hidden', 'wb')",
        "os.unlink('output/hidden')",
        "while True: file.write(b'x' * (4 << 20))",
    )

    assert failed(tight.work_on(tight.add_job()))[0] == "storage_error"


@pytest.mark.parametrize(
    "memory",
    ["mmap.mmap(-1, 300 << 20)", "os.fdopen(os.memfd_create('hidden'), 'wb')"],
    ids=["mapped", "a file"],
)
def test_memory_that_could_be_shared_is_counted(
    tight: Shop, hijacked: Hijacked, memory: str
) -> None:
    hijacked.does(
        "import mmap",
        f"held = {memory}",
        "for _ in range(75): held.write(b'x' * (4 << 20)), held.flush()",
        FOREVER,
    )

    assert failed(tight.work_on(tight.add_job()))[0] == "out_of_memory"


def test_a_gigabyte_of_errors_is_a_storage_error_and_its_tail_is_kept(
    tight: Shop, hijacked: Hijacked
) -> None:
    hijacked.does("for _ in range(1024): os.write(2, b'x' * (1 << 20))", FOREVER)
    job = tight.work_on(tight.add_job())

    assert failed(job)[0] == "storage_error"
    assert rows.read_attempt(tight.database, job.id, 1).log == "x" * (64 << 10)


def test_a_gigabyte_on_the_pipe_breaks_the_protocol(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does("for _ in range(1024): os.write(1, b'x' * (1 << 20))", FINE)

    code, message = failed(tight.work_on(tight.add_job()))
    assert (code, message) == ("internal", f"runner protocol: a line longer than {MIB} bytes")


def test_a_flood_of_messages_breaks_the_protocol(tight: Shop, hijacked: Hijacked) -> None:
    flood = say_bytes(b'{"type":"progress","phase":"admm","progress":0.5}\n' * 1000)
    hijacked.does(f"while True: {flood}")

    code, message = failed(tight.work_on(tight.add_job()))
    assert (code, message) == ("internal", "runner protocol: more than 2000 lines a second")


@pytest.mark.parametrize("asked", [JobState.CANCELLING, JobState.PAUSING])
def test_a_runner_that_ignores_sigterm_is_killed(
    tight: Shop, hijacked: Hijacked, asked: JobState
) -> None:
    hijacked.does(DEAF, say(UNDER_WAY), FOREVER)
    job_id = tight.add_job()
    job = tight.work_on(job_id, draining=tight.once_under_way_move(job_id, asked))

    assert job.state in (JobState.CANCELLED, JobState.PAUSED)


def test_a_runner_past_its_time_is_a_timeout(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does(DEAF, "while True: pass")

    job = tight.work_on(tight.add_job(max_runtime_s=10, running_s=9.9))
    assert failed(job)[0] == "timeout"


def test_a_runner_that_says_nothing_is_stalled(tight: Shop, hijacked: Hijacked) -> None:
    hijacked.does(DEAF, "while True: pass")
    job = tight.with_settings(stall_timeout_s=0.2, max_attempts=1).work_on(tight.add_job())

    assert failed(job)[0] == "stalled"


def told(shop: Shop, hijacked: Hijacked, *lines: str) -> dict[str, object]:
    """Return what a runner found out by a script that sets `found`."""
    message = Event(name="found", data={}).model_dump_json().replace("{}", "%s")
    tell = f"os.write(1, ({message!r} % json.dumps(found)).encode() + b'\\n')"
    hijacked.does("import json", *lines, tell, say(Progress(phase="x", progress=0.5)), FINE)
    job = shop.work_on(shop.add_job())
    assert job.state == JobState.SUCCEEDED
    (event,) = [e for e in rows.events(shop.database, job.id) if e.type == "found"]
    return event.data


CONNECT = """
import socket
def connect(*address):
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as error:
        return type(error).__name__
    return 'connected'
"""


@pytest.mark.usefixtures("bubblewrap")
def test_no_server_of_the_host_can_be_reached_from_a_sandbox(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    hijacked = Hijacked()
    monkeypatch.setattr("worker.supervisor.start_runner", hijacked)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        found = told(shop, hijacked, CONNECT, f"found = {{'server': connect('127.0.0.1', {port})}}")

    assert found["server"] in ("ConnectionRefusedError", "OSError")


def test_no_credential_is_in_the_environment_or_in_that_of_a_parent(
    tight: Shop, hijacked: Hijacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSTAR_DATABASE_URL", "postgresql://secret@database")
    found = told(tight, hijacked, "found = {'mine': dict(os.environ)}")

    assert "secret" not in str(found["mine"])


WRITE = """
def attempt(path):
    try:
        open(path, 'w').close()
    except OSError as error:
        return type(error).__name__
    return 'written'
"""


@pytest.mark.usefixtures("bubblewrap")
def test_a_sandbox_has_little_room_outside_of_the_runners_folder_and_none_on_the_host(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hijacked = Hijacked()
    monkeypatch.setattr("worker.supervisor.start_runner", hijacked)
    room = "{p: os.statvfs(p).f_blocks * os.statvfs(p).f_frsize for p in ('/tmp', '/dev/shm')}"
    outside = f"{{p: attempt(p) for p in ({str(tmp_path / 'new')!r}, '/dev/new', '/etc/new')}}"
    found = told(shop, hijacked, WRITE, f"found = {{'room': {room}, 'outside': {outside}}}")

    assert found["room"] == dict.fromkeys(("/tmp", "/dev/shm"), int(executors.MEMORY_BYTES))
    assert "written" not in [*found["outside"].values()][1:]  # type: ignore[attr-defined]
    assert not (tmp_path / "new").exists()


def test_gpu_devices_are_passed_to_the_runners_of_a_worker_that_was_given_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("nvidia0", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.setattr(executors, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert str(tmp_path / "nvidia0") not in executors._system()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    found = " ".join(executors._system())
    for name in ("nvidia0", "nvidiactl"):
        assert f"--dev-bind {tmp_path / name} {tmp_path / name}" in found
