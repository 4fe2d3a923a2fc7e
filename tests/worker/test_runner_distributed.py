"""A real runner that trains with a companion: two processes with Gloo on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cstar_core.architectures import Architecture, build
from cstar_core.files.checkpoints import write_weights
from cstar_core.files.datasets import DatasetArrays, write_dataset
from cstar_core.pipeline.state import State
from stack.demo.digits import MEAN, STD, load_digits
from tests.worker.conftest import Choose
from tests.worker.processes import disturbed
from tests.worker.shop import PATIENCE_S
from worker import executors
from worker.protocol import (
    CHECKPOINT_FILE,
    SPEC_FILE,
    AnyMessage,
    Event,
    Failure,
    Message,
    Metric,
    Result,
    Spec,
    Stopped,
    decode,
)
from worker.runner import companions
from worker.runner.companions import PROCESSES, Companion, CompanionLost, Companions
from worker.runner.voice import Voice

ARCHITECTURE = Architecture("resnet8_cifar", {"width": 8, "in_channels": 1, "num_classes": 10})
OPTIONS = {
    "dense_epochs": 0,
    "admm_epochs": 2,
    "finetune_epochs": 1,
    "examples_per_epoch": 128,
}
REQUEST = {
    "model_id": "model_1",
    "dataset_id": "dataset_1",
    "targets": {
        "compression": {"ratio": 3.0},
        "robustness": {"norm": "linf", "epsilon": 0.1},
    },
    "profile": "quick",
    "options": OPTIONS,
    "evaluation": {"examples": 16, "autoattack_examples": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a small compression."""
    (tmp_path / "output").mkdir()
    digits = load_digits()
    arrays = DatasetArrays(
        train_images=digits.train_images[:300],
        train_labels=digits.train_labels[:300],
        test_images=digits.test_images[:40],
        test_labels=digits.test_labels[:40],
        num_classes=10,
        class_names=None,
    )
    write_dataset(arrays, tmp_path / "dataset.npz")
    write_weights(dict(build(ARCHITECTURE, seed=1).state_dict()), tmp_path / "weights.safetensors")
    write_spec(tmp_path, REQUEST)
    return tmp_path


def write_spec(folder: Path, request: dict[str, Any]) -> None:
    spec = Spec(
        kind="compress",
        request=request,
        subject={
            "job_id": "job_1",
            "model": {"id": "model_1"},
            "dataset": {"id": "dataset_1"},
            "architecture": ARCHITECTURE.to_json(),
            "input": {"shape": [1, 8, 8], "mean": MEAN, "std": STD},
            "num_classes": 10,
        },
        threads=1,
        memory_bytes=16 << 30,
        checkpoint_interval_s=1e6,
    )
    (folder / SPEC_FILE).write_text(spec.model_dump_json())


def start(folder: Path, *runner: str) -> subprocess.Popen[bytes]:
    """Start a runner that trains in two processes."""
    usual = [sys.executable, "-m", "worker.runner", str(folder)]
    command = ["/usr/bin/env", f"{PROCESSES}=2", *(runner or usual)]
    return executors.start_confined(command, folder, folder / "runner.log")


def messages(process: subprocess.Popen[bytes]) -> Iterator[AnyMessage]:
    assert process.stdout is not None
    with process.stdout as pipe:
        yield from map(decode, pipe)
    assert executors.end(process, patience_s=PATIENCE_S) == 0


def after_an_epoch_of_admm(said: Iterator[AnyMessage]) -> Metric:
    return next(m for m in said if isinstance(m, Metric) and m.phase == "admm")


def together(said: list[AnyMessage]) -> list[str]:
    """The phases that two processes went through together."""
    events = [m.data for m in said if isinstance(m, Event) and m.name == "training.shared"]
    assert all(data["processes"] == 2 for data in events)
    return [str(data["phase"]) for data in events]


def test_a_job_of_two_processes_stops_at_sigterm_and_goes_on_to_its_result(
    folder: Path, choose_sandbox: Choose
) -> None:
    choose_sandbox("auto")
    an_epoch_is_over = "isinstance(message, Metric) and message.phase == 'admm'"
    asking_to_stop = "os.kill(0, signal.SIGTERM)"  # reaches the companion too
    runner = disturbed(folder, when=an_epoch_is_over, act=asking_to_stop)

    assert isinstance(list(messages(start(folder, *runner)))[-1], Stopped)
    assert State.load(folder / CHECKPOINT_FILE).training["position"]["epoch"] >= 1

    rest = list(messages(start(folder)))
    assert isinstance(rest[-1], Result), (folder / "runner.log").read_text()
    assert together(rest) == ["admm", "fine_tuning"]
    assert rest[-1].result["ratio"] >= 3.0
    assert all((folder / "output" / file.filename).exists() for file in rest[-1].files)
    assert not list(folder.glob("together.*"))


@pytest.mark.usefixtures("plain")
def test_a_job_that_loses_a_process_fails_and_says_so(folder: Path) -> None:
    write_spec(folder, REQUEST | {"options": OPTIONS | {"admm_epochs": 1000}})
    process = start(folder)
    said = messages(process)
    after_an_epoch_of_admm(said)
    (companion,) = psutil.Process(process.pid).children()
    companion.kill()

    last = list(said)[-1]
    assert isinstance(last, Failure)
    assert (last.code, last.retryable) == ("internal", True)
    assert last.message == "CompanionLost: process 1 of this job was ended by SIGKILL"


class Heard(Voice):
    """A voice into a list."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def say(self, message: Message) -> None:
        self.messages.append(message)


def companion(script: str) -> Companion:
    """A process in the place of a companion."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return Companion(1, process, process.stdin, process.stdout)


def test_a_runner_that_hangs_after_the_loss_of_a_companion_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard, ended = Heard(), threading.Event()
    monkeypatch.setattr(companions, "GRACE_S", 0.0)
    monkeypatch.setattr(os, "_exit", lambda _: ended.set())
    lost = companion("raise SystemExit(3)")
    group = Companions(tmp_path, size=2, voice=heard)
    group._apart.clear()
    group._watch(lost)
    lost.end()

    assert ended.is_set()
    (failure,) = heard.messages
    assert isinstance(failure, Failure)
    assert failure.message == "CompanionLost: process 1 of this job was ended with status 3"


def test_where_processes_met_is_removed_once_none_can_write_there(tmp_path: Path) -> None:
    room = tmp_path / "together.1"
    room.mkdir()
    writing = companion(
        "import itertools\n"
        f"for n in itertools.count(): open({str(room)!r} + f'/{{n % 500}}', 'w').close()"
    )
    while not any(room.iterdir()):
        assert writing.process.poll() is None
    with Companions(tmp_path, size=2, voice=Heard()) as group:
        group._companions.append(writing)
        group._rooms.append(room)
    assert not room.exists()


def test_what_a_companion_dies_of_before_it_answers_is_raised() -> None:
    failure = Failure(code="out_of_memory", message="no more", retryable=True)
    lost = companion(f"print({failure.model_dump_json()!r})")
    with pytest.raises(MemoryError, match="process 1 of this job failed: no more"):
        lost.await_answer()
    lost.end()


def test_a_companion_that_says_nothing_is_lost() -> None:
    lost = companion("")
    with pytest.raises(CompanionLost, match="ended with status 0"):
        lost.await_answer()
    lost.end()


@pytest.mark.parametrize(
    ("variable", "devices", "wanted"), [("", 0, 1), ("2", 0, 2), ("", 4, 4), ("2", 4, 2)]
)
def test_as_many_processes_as_gpus_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, variable: str, devices: int, wanted: int
) -> None:
    monkeypatch.setenv(PROCESSES, variable)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert companions.wanted_processes() == wanted


@pytest.mark.parametrize(("variable", "devices"), [("0", 0), ("-1", 2), ("3", 2)])
def test_a_number_of_processes_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, devices: int
) -> None:
    monkeypatch.setenv(PROCESSES, variable)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(ValueError, match=PROCESSES):
        companions.wanted_processes()
