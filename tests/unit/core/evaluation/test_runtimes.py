from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cstar_core.evaluation.latency.runtimes import (
    measure_runtimes,
    onnxruntime_session,
    openvino_model,
)
from cstar_core.evaluation.latency.timing import interleaved, random_images
from cstar_core.export import export_onnx
from tests.support.requirements import require

from .classifiers import convolutional

SHAPE = (1, 8, 8)
# Python's signal handlers run on the signal stack of their thread; faulthandler makes one.
STOPPED_AFTER_OPENVINO = """
import faulthandler, os, signal, sys
from pathlib import Path
from cstar_core.evaluation.latency.runtimes import openvino_model
faulthandler.enable()
signal.signal(signal.SIGTERM, lambda *_: print("stopping", flush=True))
first, second = (openvino_model(Path(sys.argv[1]), (n, 1, 8, 8)) for n in (1, 2))
del first
del second  # with a signal stack that went with the first
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def networks(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, nn.Module], dict[str, Path]]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = convolutional()
    export_onnx(model, SHAPE, path)
    return {"before": model, "after": model}, {"before": path, "after": path}


Networks = tuple[dict[str, nn.Module], dict[str, Path]]


def openvino_is_here() -> bool:
    return importlib.util.find_spec("openvino") is not None


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_every_model_is_timed_in_every_runtime_at_every_batch(networks: Networks) -> None:
    measured = measure_runtimes(*networks, SHAPE, batch_sizes=(1, 4), repeats=4, warmup=1)
    stored = json.loads(json.dumps(measured.to_json(smaller_by=2.0)))
    assert {"torch", "onnxruntime"} <= set(stored["runtimes"])
    for figures in stored["runtimes"].values():
        assert set(figures) == {"before", "after"}
        for batches in figures.values():
            assert [batches[f"batch {n}"]["batch_size"] for n in (1, 4)] == [1, 4]
            assert all(figure["repeats"] == 4 for figure in batches.values())
            assert all(figure["median_ms"] > 0 for figure in batches.values())
    assert stored["threads"] == torch.get_num_threads()
    assert ("openvino" in stored["runtimes"]) != ("openvino" in stored["skipped"])


def test_the_models_are_timed_in_eval_mode_and_given_back_as_they_were(networks: Networks) -> None:
    model = convolutional().train()
    modes: list[bool] = []
    model.register_forward_hook(lambda module, _inputs, _output: modes.append(module.training))
    measure_runtimes({"before": model}, {}, SHAPE, batch_sizes=(1,), repeats=2, warmup=0)
    assert modes == [False, False]
    assert model.training


def test_without_the_files_of_both_networks_only_torch_is_timed(networks: Networks) -> None:
    models, files = networks
    measured = measure_runtimes(
        models, {"before": files["before"]}, SHAPE, batch_sizes=(1,), repeats=2, warmup=0
    )
    assert set(measured.runtimes) == {"torch"}
    assert measured.skipped == {
        "onnxruntime": "no ONNX file of after",
        "openvino": "no ONNX file of after",
    }


def test_a_runtime_that_is_not_installed_is_skipped_with_the_reason(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    measured = measure_runtimes(*networks, SHAPE, batch_sizes=(1,), repeats=2, warmup=0)
    assert set(measured.runtimes) == {"torch", "onnxruntime"}
    assert measured.skipped == {"openvino": "the package openvino is not installed"}


def test_onnx_runtime_computes_the_same_with_the_threads_of_torch(networks: Networks) -> None:
    models, files = networks
    images = random_images(5, SHAPE)
    with threads(2):
        session = onnxruntime_session(files["after"])
    (found,) = session.run(None, {"images": images.numpy()})
    assert_equal_logits(found, models["after"](images))
    assert session.get_session_options().intra_op_num_threads == 2


def test_openvino_computes_the_same_with_the_threads_of_torch(networks: Networks) -> None:
    require("OpenVINO", openvino_is_here(), "pip install openvino (extra bench)")
    models, files = networks
    images = random_images(5, SHAPE)
    with threads(2):
        compiled = openvino_model(files["after"], images.shape)
    (found,) = compiled([images.numpy()]).values()
    assert_equal_logits(found, models["after"](images))
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2


def assert_equal_logits(found: NDArray[np.float32], expected: Tensor) -> None:
    torch.testing.assert_close(
        torch.from_numpy(np.array(found)), expected.detach(), rtol=1e-4, atol=1e-5
    )


def test_calls_take_turns_and_warming_up_does_not_count() -> None:
    log: list[str] = []
    calls = {name: (lambda name=name: log.append(name)) for name in ("dense", "compressed")}
    times = interleaved(calls, repeats=3, warmup=2)
    assert log == ["dense", "compressed"] * 5
    assert {name: len(seconds) for name, seconds in times.items()} == {"dense": 3, "compressed": 3}


def test_out_of_time_each_call_is_still_warmed_up_once_and_timed_five_times() -> None:
    log: list[None] = []
    times = interleaved({"slow": lambda: log.append(None)}, repeats=50, warmup=5, seconds=0.0)
    assert len(times["slow"]) == 5
    assert len(log) == 6


def test_a_process_that_has_used_openvino_outlives_a_signal(networks: Networks) -> None:
    require("OpenVINO", openvino_is_here(), "pip install openvino (extra bench)")
    command = [sys.executable, "-c", STOPPED_AFTER_OPENVINO, str(networks[1]["before"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "stopping\n")
