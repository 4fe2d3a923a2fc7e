"""A tiny learnable problem, a tiny network and a trainer over both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.training.config import AttackConfig, TrainingConfig
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.progress import EpochEnd, Step

THREAT = ThreatModel("linf", 0.05)
CLASSES = 3


def dataset(n: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """uint8 images (n, 1, 8, 8): class k is bright in its third of the columns, plus noise."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = torch.randint(0, 90, (n, 1, 8, 8), generator=source, dtype=torch.uint8)
    for label in range(CLASSES):
        images[labels == label, :, :, 3 * label : 3 * label + 2] += 120
    return images, labels


def network(seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU, twice; mean over pixels; linear. Seeded weights."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 64, CLASSES),
    )
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=source) * 0.1)
            elif name.endswith("bias"):
                parameter.zero_()
    return model


def config(**changes: Any) -> TrainingConfig:
    usual: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.05,
        "attack": AttackConfig("fgsm-rs"),
    }
    return TrainingConfig(**usual | changes)


def trainer(
    settings: TrainingConfig | None = None, *, model: nn.Module | None = None, **changes: Any
) -> AdversarialTrainer:
    images, labels = dataset()
    usual: dict[str, Any] = {"threat": THREAT, "seed": 0, "phase": "test"}
    return AdversarialTrainer(
        network() if model is None else model,
        images,
        labels,
        config=settings or config(),
        **usual | changes,
    )


def finish(run: AdversarialTrainer) -> list[Step | EpochEnd]:
    return list(run.run())


def epoch_ends(run: AdversarialTrainer) -> list[EpochEnd]:
    return [event for event in run.run() if isinstance(event, EpochEnd)]


def flat(state: object, prefix: str = "") -> dict[str, object]:
    """Every leaf of nested dictionaries and lists, by its path."""
    if isinstance(state, dict):
        items = list(state.items())
    elif isinstance(state, list | tuple):
        items = list(enumerate(state))
    else:
        return {prefix: state}
    leaves: dict[str, object] = {}
    for key, value in items:
        leaves |= flat(value, f"{prefix}/{key}")
    return leaves


def differences(left: object, right: object) -> list[str]:
    """Paths of leaves that are not exactly equal."""
    first, second = flat(left), flat(right)
    assert first.keys() == second.keys()
    return [path for path, value in first.items() if not _same(value, second[path])]


def _same(left: object, right: object) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return torch.equal(left, right)
    return left == right
