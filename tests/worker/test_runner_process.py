"""A real runner process: what it says when its work cannot be done."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cstar_core.errors import CstarError, Diverged, InvalidDataset, InvalidModel, TargetInfeasible
from store.contracts import CompressionTarget
from store.states import JobKind
from tests.worker.processes import finish
from worker import executors
from worker.protocol import MAX_MESSAGE, AnyMessage, Failure, Result, Spec, decode, encode
from worker.runner.__main__ import KINDS, judge
from worker.runner.voice import printable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a data set to be validated."""
    (tmp_path / "output").mkdir()
    images = np.zeros((12, 8, 8, 1), np.uint8)
    with (tmp_path / "upload").open("wb") as file:
        np.savez(file, images=images, labels=np.arange(12) % 3)
    return tmp_path


def run(
    folder: Path,
    *,
    request: dict[str, Any],
    kind: str = "validate_dataset",
    memory_bytes: int = 16 << 30,
) -> list[AnyMessage]:
    """Run a validation in a process and return what it said."""
    spec = Spec(
        kind=kind,
        request=request,
        threads=1,
        memory_bytes=memory_bytes,
        checkpoint_interval_s=1.0,
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    process = executors.start_runner(folder, folder / "runner.log")
    return [decode(line) for line in finish(process).splitlines()]


@pytest.mark.usefixtures("bubblewrap")
def test_a_runner_in_its_sandbox_does_its_work(folder: Path) -> None:
    (message,) = run(folder, request={"name": "small", "file_id": "file_1"})

    assert isinstance(message, Result)
    assert (message.result["reasons"], message.result["num_classes"]) == ([], 3)
    assert (folder / "output" / "dataset.npz").exists()


@pytest.mark.usefixtures("plain")
def test_an_unexpected_exception_is_internal_and_its_traceback_is_in_the_log(
    folder: Path,
) -> None:
    (message,) = run(folder, request={"nonsense": 1})

    assert isinstance(message, Failure)
    assert (message.code, message.retryable) == ("internal", True)
    assert message.message.startswith("ValidationError: ")
    assert "Traceback" in (folder / "runner.log").read_text()


SHORT_OF_MEMORY = """
import json, mmap, numpy, torch
from worker.runner.__main__ import judge
from worker.runner.confinement import confine
def judged(act):
    try:
        act()
    except Exception as error:
        return judge(error).code
confine(memory_bytes=1 << 20, max_tasks=100, threads=1)
acts = {
    "python": lambda: bytearray(1 << 30),
    "numpy": lambda: numpy.zeros(1 << 30),
    "torch": lambda: torch.zeros(1 << 30),
    "system": lambda: mmap.mmap(-1, 1 << 30),
}
print(json.dumps({name: judged(act) for name, act in acts.items()}))
"""


@pytest.mark.usefixtures("plain")
def test_memory_that_runs_out_is_out_of_memory_whoever_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    command = [sys.executable, "-c", SHORT_OF_MEMORY]
    process = executors.start_confined(command, folder, folder / "runner.log")
    found = json.loads(finish(process))

    assert found == dict.fromkeys(("python", "numpy", "torch", "system"), "out_of_memory")


LARGE = 64 << 20
MODEL = {
    "name": "large",
    "file_id": "file_1",
    "input": {"shape": [1, 8, 8], "mean": [0.5], "std": [0.25]},
    "num_classes": 3,
}


@pytest.mark.usefixtures("plain")
def test_a_shortage_of_memory_while_a_checkpoint_is_read_does_not_blame_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    save_file({"fc.weight": torch.zeros(LARGE // 4)}, folder / "upload")
    (message,) = run(folder, request=MODEL, kind="validate_model", memory_bytes=1 << 20)

    assert isinstance(message, Failure)
    assert (message.code, message.retryable) == ("out_of_memory", True)


@pytest.mark.usefixtures("plain")
def test_a_shortage_of_memory_while_a_data_set_is_read_does_not_blame_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    images = np.zeros((LARGE // 64, 8, 8, 1), np.uint8)
    with (folder / "upload").open("wb") as file:
        np.savez_compressed(file, images=images, labels=np.arange(len(images)) % 3)
    request = {"name": "large", "file_id": "file_1"}
    (message,) = run(folder, request=request, memory_bytes=1 << 20)

    assert isinstance(message, Failure)
    assert (message.code, message.retryable) == ("out_of_memory", True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_is_full_is_a_storage_error_that_may_pass(number: int) -> None:
    found = judge(OSError(number, "no room"))
    passes = number != errno.EFBIG  # a file may be no larger than the job's own limit

    assert (found.code, found.retryable) == ("storage_error", passes)


def test_a_text_that_python_cannot_parse_is_no_shortage_of_memory() -> None:
    error = InvalidDataset("no", code="damaged_array")
    error.__cause__ = MemoryError("Parser stack overflowed - Python source too complex to parse")

    assert judge(error).code == "invalid_dataset"


def test_every_kind_of_job_has_its_work() -> None:
    assert set(KINDS) == {kind.value for kind in JobKind}


@pytest.mark.parametrize(
    "error",
    [
        InvalidModel("no", code="unsupported_layer"),
        InvalidDataset("no"),
        Diverged("no"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_of_the_method_keeps_its_code(error: CstarError) -> None:
    assert judge(error) == Failure(code=error.code, message="no", retryable=False)


@pytest.mark.parametrize(
    ("unit", "best", "told"),
    [
        ("parameters", 7, {"max_params": 7}),
        ("macs", 7, {"max_macs": 7}),
        ("bytes", 7, {"max_bytes": 7}),
        ("latency", 1_234_567, {"max_latency_ms": 1.235}),  # ns, rounded up to what can be met
    ],
)
def test_a_target_out_of_reach_says_what_can_be_met_in_the_words_of_a_request(
    unit: str, best: int, told: dict[str, float]
) -> None:
    found = judge(TargetInfeasible("no", unit=unit, best=best))

    assert found == Failure(code="target_infeasible", message="no", best=told)
    assert set(told) < set(CompressionTarget.model_fields)


def test_a_finding_about_a_file_is_told_by_its_kind() -> None:
    error = InvalidDataset("no", code="too_few_examples")

    assert judge(error) == Failure(code="invalid_dataset", message="no", retryable=False)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")]
)
def test_out_of_memory_says_something_and_may_be_tried_again(error: Exception) -> None:
    found = judge(error)

    assert (found.code, found.retryable) == ("out_of_memory", True)
    assert found.message


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shape"), OSError(5, "broken")])
def test_any_other_error_is_internal_and_named(error: Exception) -> None:
    found = judge(error)

    assert found.code == "internal"
    assert found.message.startswith(type(error).__name__)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * (2 * MAX_MESSAGE)])
@pytest.mark.parametrize("kind", [ValueError, InvalidModel, MemoryError])
def test_any_text_of_an_error_can_be_said(kind: type[Exception], text: str) -> None:
    assert decode(encode(judge(kind(text)))).type == "failure"


def test_a_text_without_anything_odd_stays_as_it_is() -> None:
    assert printable("größer 🦊\n") == "größer 🦊\n"
