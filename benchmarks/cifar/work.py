"""The units of work: the dense robust network of a seed, and one cell of the grid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.cifar.evaluate import autoattack, figures
from benchmarks.cifar.presets import MEAN, STD, THREAT, Preset
from benchmarks.cifar.stage import PROJECTED, Clock, StageObserver, load_state
from cstar_core.architectures import build
from cstar_core.architectures.initialization import initialise
from cstar_core.environment import environment
from cstar_core.files.arrays import DatasetArrays
from cstar_core.layers import count_macs, count_parameters
from cstar_core.normalization import NormalizedModel
from cstar_core.pipeline import Interrupted, State, Task, Workbench, run
from cstar_core.pipeline.task import Limits
from cstar_core.pipeline.training_phase import train
from cstar_core.training.randomness import derive_seed

RESULT = "result.json"
WEIGHTS = "weights.safetensors"
DENSE = "dense"
DENSE_TRAINING = "dense_training"
FROM_SCRATCH = ("small_dense",)


@dataclass(frozen=True)
class Unit:
    """The dense network of a seed (`method` "dense", ratio 1) or a cell of the grid."""

    seed: int
    method: str
    ratio: float = 1.0

    @property
    def path(self) -> Path:
        """Where it is kept below the state folder."""
        name = DENSE if self.method == DENSE else f"{self.method}_{self.ratio:g}x"
        return Path(f"seed{self.seed}") / name


@dataclass(frozen=True)
class Bench:
    """What every unit works with; `code` says which version of the code computes."""

    preset: Preset
    data: DatasetArrays
    folder: Path
    device: torch.device
    code: str

    def finished(self, unit: Unit) -> bool:
        """Whether the unit's result is there."""
        return (self.folder / unit.path / RESULT).exists()

    def ready(self, unit: Unit) -> bool:
        """Whether what the unit starts from is there."""
        return unit.method in (DENSE, *FROM_SCRATCH) or self.finished(Unit(unit.seed, DENSE))


def units(preset: Preset) -> Iterator[Unit]:
    """All units, seed after seed, so that a grid cut short still has whole rows."""
    for seed in preset.seeds:
        yield Unit(seed, DENSE)
        for ratio in preset.ratios:
            for method in preset.methods:
                yield Unit(seed, method, ratio)


def work(bench: Bench, unit: Unit, clock: Clock) -> bool:
    """Do the unit, or as much of it as the clock lets; returns whether it is finished."""
    folder = bench.folder / unit.path
    workbench = _workbench(bench, unit)
    observer = StageObserver(folder, clock, workbench.method)
    state = load_state(folder)
    before = state.findings.setdefault("bench", {"seconds": 0.0})["seconds"]
    try:
        _train(workbench, unit, state, observer)
        model = _model(workbench, unit, state)
        tested = _test(workbench, unit, state, observer)
    except Interrupted:
        state.findings["bench"]["seconds"] = before + observer.seconds
        observer.save("interrupted", state)
        return False
    tensors = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    result = _facts(bench, unit) | {"seconds": round(before + observer.seconds, 1)}
    result |= _size(workbench, model.network) | tested | {"phases": _phases(state)}
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n")
    return True


def _train(workbench: Workbench, unit: Unit, state: State, observer: StageObserver) -> None:
    """Train what is not trained yet; raises Interrupted when the clock runs out."""
    if unit.method == DENSE:
        if DENSE_TRAINING not in state.finished:
            _train_dense(workbench, state, observer)
    elif workbench.method.last_training not in state.finished:
        try:
            run(workbench, state, observer)
        except Interrupted:
            if not observer.trained:
                raise


def _train_dense(workbench: Workbench, state: State, observer: StageObserver) -> None:
    model = workbench.dense_model(workbench.uploaded)
    trainer = workbench.trainer(model, workbench.task.profile.dense, phase=DENSE_TRAINING)
    train(trainer, state, observer, phase=DENSE_TRAINING)
    trainer.load_best()
    state.dense = dict(model.network.state_dict())
    state.finished.append(DENSE_TRAINING)
    observer.save(DENSE_TRAINING, state, finished=True)


def _test(
    workbench: Workbench, unit: Unit, state: State, observer: StageObserver
) -> dict[str, Any]:
    """Figures on the test images: of the final network, and as it was right after projection."""
    keep = partial(observer.keep, state)
    model = _model(workbench, unit, state)
    tested = {"test": figures(workbench, model, state, keep, name="final")}
    if unit.method not in (DENSE, *FROM_SCRATCH):
        projected = _model(workbench, unit, State.load(observer.folder / PROJECTED))
        name = "test_after_projection"
        tested[name] = figures(workbench, projected, state, keep, name="projected")
    if workbench.task.autoattack_examples:
        tested["autoattack"] = autoattack(workbench, model, state, keep)
    return tested


def _model(workbench: Workbench, unit: Unit, state: State) -> NormalizedModel:
    if unit.method == DENSE:
        return workbench.dense_model(state.dense)
    return workbench.compressed_model(state)


def _workbench(bench: Bench, unit: Unit) -> Workbench:
    preset = bench.preset
    task = Task(
        architecture=preset.architecture,
        input_shape=bench.data.shape,
        mean=MEAN,
        std=STD,
        num_classes=bench.data.num_classes,
        limits=Limits(ratio=unit.ratio),
        threat=THREAT,
        profile=preset.profile,
        seed=unit.seed,
        examples=preset.examples,
        autoattack_examples=preset.autoattack_examples,
        method="cstar" if unit.method == DENSE else unit.method,
    )
    folder = bench.folder / unit.path
    return Workbench(task, _start(bench, unit), bench.data, folder=folder, device=bench.device)


def _start(bench: Bench, unit: Unit) -> dict[str, Tensor]:
    """Weights to start from: random ones, or those of the seed's dense network."""
    dense = bench.folder / Unit(unit.seed, DENSE).path / WEIGHTS
    if unit.method not in (DENSE, *FROM_SCRATCH):
        return load_file(dense)
    network = build(bench.preset.architecture)
    initialise(network, seed=derive_seed(unit.seed, "initialisation"))
    return dict(network.state_dict())


def _facts(bench: Bench, unit: Unit) -> dict[str, Any]:
    return {
        "seed": unit.seed,
        "method": unit.method,
        "ratio_wanted": unit.ratio,
        "code": bench.code,
        "device": bench.device.type,
        "environment": environment(torch.get_num_threads()),
        "split_sha256": bench.data.sha256,
        "preset": bench.preset.to_json(),
    }


def _size(workbench: Workbench, network: nn.Module) -> dict[str, Any]:
    parameters = count_parameters(network)
    return {
        "parameters": parameters,
        "macs": count_macs(network, workbench.task.input_shape),
        "ratio": workbench.inventory.parameters / parameters,
    }


def _phases(state: State) -> dict[str, Any]:
    """What the pipeline found, phase by phase, with the metrics of every epoch."""
    return {name: value for name, value in state.findings.items() if name != "bench"}
