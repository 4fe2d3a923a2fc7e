"""Runs to be trained by one process and by several; `python -m ... FOLDER INDEX SIZE` is a member.

They are in float64, so that rounding stays far below what a wrong gradient would make of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.training.admm import Admm, AdmmConfig
from cstar_core.training.config import AttackConfig, AwpConfig
from cstar_core.training.distributed import World, joined
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.selection import HeldOutSelection

from .problems import THREAT, config, dataset, epoch_ends, network

INTERRUPTED_AFTER = 5  # of eight: two epochs of three steps and an end
PGD = AttackConfig("pgd", 3)


def double_trainer(
    *,
    threat: ThreatModel = THREAT,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    constrained: bool = False,
    selected: bool = False,
    **changes: Any,
) -> AdversarialTrainer:
    """A trainer over the tiny problem in float64."""
    images, labels = dataset()
    model = (network() if model is None else model).double()
    return AdversarialTrainer(
        model,
        images.double() / 255,
        labels,
        threat=threat,
        config=config(**{"epochs": 1, "augmentation": "crop_flip", "gradient_clip": 0.5} | changes),
        seed=0,
        phase="test",
        teacher=None if teacher is None else teacher.double(),
        constraint=_admm(model) if constrained else None,
        selection=_selection() if selected else None,
    )


def network_with_dropout() -> nn.Module:
    """The tiny network with a dropout before its last layer."""
    layers = list(network())
    return nn.Sequential(*layers[:-1], nn.Dropout(0.3), layers[-1])


def _selection() -> HeldOutSelection:
    images, labels = dataset(12, seed=9)
    settings = PgdSettings(steps=2)
    return HeldOutSelection(images.double() / 255, labels, THREAT, seed=1, settings=settings)


def _admm(model: nn.Module) -> Admm:
    weight = model.get_parameter("3.weight")
    return Admm({"3": weight}, {"3": _rank_one}, rho=0.5, config=AdmmConfig(epochs=2))


def _rank_one(weight: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    nearest: Tensor = (s[0] * torch.outer(u[:, 0], v[0])).view_as(weight)
    return nearest


def everything() -> AdversarialTrainer:
    """Moving average, ADMM, clipping, distillation, selection, a new subset each epoch."""
    return double_trainer(
        epochs=2,
        ema=0.9,
        distillation=0.8,
        teacher=network(seed=4),
        constrained=True,
        selected=True,
        examples_per_epoch=40,
        batch_size=12,
    )


CASES: dict[str, Callable[[], AdversarialTrainer]] = {
    "pgd": partial(double_trainer, attack=PGD, gradient_clip=None),
    "pgd in l2": partial(double_trainer, attack=PGD, threat=ThreatModel("l2", 0.5)),
    "n-fgsm": partial(double_trainer, attack=AttackConfig("n-fgsm")),
    "moving average": partial(double_trainer, ema=0.9),
    "gradient clip": partial(double_trainer, gradient_clip=0.01),
    "admm": partial(double_trainer, epochs=2, constrained=True, gradient_clip=0.01),
    "trades": partial(double_trainer, objective="trades", attack=PGD),
    "mart": partial(double_trainer, objective="mart", beta=2.0),
    "awp": partial(double_trainer, awp=AwpConfig(gamma=0.05, warmup_share=0.0)),
    "distillation": partial(double_trainer, distillation=0.8, teacher=network(seed=4)),
    "dropout": partial(double_trainer, model=network_with_dropout()),
    "uneven shares": partial(double_trainer, batch_size=13),
    "everything": everything,
}


def resumed(run: AdversarialTrainer, state: dict[str, Any]) -> AdversarialTrainer:
    """`run`, gone on from `state` to its end."""
    run.load_state_dict(state)
    list(run.run())
    return run


def interrupted(path: Path) -> dict[str, Any]:
    """The state of a run that was stopped in the middle, as a checkpoint gives it back."""
    run = everything()
    events = run.run()
    for _ in range(INTERRUPTED_AFTER):
        next(events)
    torch.save(run.state_dict(), path)
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def main() -> None:
    """Train every case as one of several processes; leaves what comes out of it in the folder."""
    folder, index, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    with joined(folder / "meeting", index=index, size=size, device=torch.device("cpu")) as world:
        for name, make in CASES.items():
            run = make()
            metrics = [end.metrics for end in epoch_ends(run)]
            assert not any(buffer.requires_grad for buffer in run.model.buffers())
            _leave(folder, world, name, {"metrics": metrics, "state": run.state_dict()})
        alone = torch.load(folder / "alone.pt", weights_only=True)
        _leave(folder, world, "notes", everything().effective["notes"])
        state = interrupted(folder / f"stopped.{index}.pt")
        _leave(folder, world, "resumed", resumed(everything(), state).state_dict())
        _leave(folder, world, "taken over", resumed(everything(), alone).state_dict())


def _leave(folder: Path, world: World, name: str, content: object) -> None:
    torch.save(content, folder / f"{name}.{world.index}.pt")


if __name__ == "__main__":
    main()
