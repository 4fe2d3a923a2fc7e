"""What a job uses, counted over all of its processes and in its folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.settings import Settings
from store.states import ErrorCode
from worker import executors
from worker.usage import Limits, excess, family

MIB = 1 << 20


@contextmanager
def leading(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script as the leader of a session; it says a line when it is ready."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        executors.end(process)


FAMILY = """
import os, signal, time
def below(act, levels):
    reading, writing = os.pipe()
    if os.fork() == 0:
        act()
        if levels:
            below(act, levels - 1)
        os.write(writing, b"r")
        while True: signal.pause()
    os.read(reading, 1)
"""
READY = "os.write(1, b'ready\\n')\nwhile True: signal.pause()"


def test_a_family_has_children_and_theirs() -> None:
    with leading(f"{FAMILY}\nbelow(lambda: None, 2)\n{READY}") as leader:
        assert len(family(leader.pid)) == 4


def test_a_family_has_those_who_went_into_a_session_of_their_own() -> None:
    script = f"{FAMILY}\nbelow(os.setsid, 1)\n{READY}"
    with leading(script) as leader:
        found = family(leader.pid)
        for process in found[1:]:
            assert process.session != leader.pid
        assert len(found) == 3
        strays = [process.pid for process in found[1:]]
        subprocess.run(["kill", "-9", *map(str, strays)], check=True)


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    held = f"held = b'x' * {100 * MIB}\nfor _ in range(3): below(lambda: None, 0)"
    with leading(f"{FAMILY}\n{held}\n{READY}") as leader:
        room = Limits(tasks=1000, memory_bytes=200 * MIB, disk_bytes=MIB)
        tight = Limits(tasks=1000, memory_bytes=90 * MIB, disk_bytes=MIB)

        assert excess(leader.pid, tmp_path, room) is None
        found = excess(leader.pid, tmp_path, tight)
        assert found is not None
        assert found.code == ErrorCode.OUT_OF_MEMORY


def test_what_a_link_leads_to_is_not_in_the_folder(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for made in (elsewhere, folder / "output"):
        made.mkdir(parents=True)
    (elsewhere / "large").write_bytes(b"x" * 4 * MIB)
    (folder / "file").symlink_to(elsewhere / "large")
    (folder / "output" / "below").symlink_to(elsewhere)
    limits = Limits(tasks=1000, memory_bytes=1 << 40, disk_bytes=MIB)
    with leading(f"{FAMILY}\n{READY}") as leader:
        assert excess(leader.pid, folder, limits) is None
        (folder / "output" / "own").write_bytes(b"x" * 2 * MIB)
        found = excess(leader.pid, folder, limits)

    assert found is not None
    assert found.code == ErrorCode.STORAGE_ERROR


@pytest.mark.parametrize(("devices", "times"), [(None, 1), ("", 1), ("0", 1), ("0,1,2", 3)])
def test_a_job_on_several_gpus_has_as_much_memory_for_each(
    devices: str | None, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    limits = Limits.of(Settings(runner_memory_bytes=7))

    assert limits.memory_bytes == 7 * times
