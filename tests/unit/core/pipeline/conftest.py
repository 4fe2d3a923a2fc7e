"""A task small enough to run whole in seconds, and an observer that remembers and can interrupt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cstar_core.architectures import Architecture, build
from cstar_core.attacks import ThreatModel
from cstar_core.files.checkpoints import write_weights
from cstar_core.files.datasets import DatasetArrays, write_dataset
from cstar_core.pipeline import PROFILES, State, Task, Workbench
from cstar_core.pipeline.profiles import adapt
from cstar_core.pipeline.task import Limits
from stack.demo.digits import MEAN, STD, load_digits

ARCHITECTURE = Architecture("resnet8_cifar", {"width": 8, "in_channels": 1, "num_classes": 10})


class Memory:
    """Keeps what a run says; asks for a stop at the `stop_at`-th question, saves at every one."""

    def __init__(self, checkpoint: Path, *, stop_at: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.stop_at = stop_at
        self.questions = 0
        self.saved: list[tuple[str, bool]] = []
        self.progressed: list[tuple[str, float]] = []
        self.metrics: list[tuple[str, str, int]] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def progress(self, phase: str, fraction: float) -> None:
        self.progressed.append((phase, fraction))

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        assert isinstance(value, float)
        self.metrics.append((phase, name, step))

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        self.events.append((name, data))

    def save_due(self) -> bool:
        return False

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        self.saved.append((phase, finished))
        state.save(self.checkpoint)

    def stop_requested(self) -> bool:
        self.questions += 1
        return self.stop_at is not None and self.questions >= self.stop_at


@pytest.fixture(scope="session")
def digits() -> DatasetArrays:
    """A part of the digits."""
    all_of_them = load_digits()
    return DatasetArrays(
        train_images=all_of_them.train_images[:300],
        train_labels=all_of_them.train_labels[:300],
        test_images=all_of_them.test_images[:60],
        test_labels=all_of_them.test_labels[:60],
        num_classes=10,
        class_names=None,
    )


@pytest.fixture(scope="session")
def make_bench(digits: DatasetArrays) -> Callable[..., Workbench]:
    """Return a function that lays out a workbench in a folder; `changes` go to its task."""

    def make(folder: Path, **changes: Any) -> Workbench:
        folder.mkdir(exist_ok=True)
        weights = dict(build(ARCHITECTURE, seed=1).state_dict())
        write_weights(weights, folder / "weights.safetensors")
        write_dataset(digits, folder / "dataset.npz")
        task = replace(_task(), **changes)
        return Workbench(task, weights, digits, folder=folder, device=torch.device("cpu"))

    return make


def _task() -> Task:
    profile = adapt(
        PROFILES["quick"],
        dense_epochs=1,
        admm_epochs=2,
        finetune_epochs=1,
        examples_per_epoch=128,
    )
    return Task(
        architecture=ARCHITECTURE,
        input_shape=(1, 8, 8),
        mean=MEAN,
        std=STD,
        num_classes=10,
        limits=Limits(ratio=3.0),
        threat=ThreatModel("linf", 0.5),
        profile=profile,
        seed=0,
        examples=32,
        autoattack_examples=2,
        probe_examples=8,
        min_robust_accuracy=0.9,
    )
