"""What is run at which scale: data, not code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cstar_core.architectures import Architecture
from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.pipeline.profiles import PROFILES, Profile
from cstar_core.training.admm import AdmmConfig
from cstar_core.training.config import AttackConfig, TrainingConfig

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images
THREAT = ThreatModel(norm="linf", epsilon=8 / 255)
METHODS = (
    "cstar",
    "uniform_ranks",
    "fixed_rank_admm",
    "one_shot_tucker",
    "filter_pruning",
    "small_dense",
)


@dataclass(frozen=True)
class Preset:
    """A scale of the grid: network, training, ratios, seeds, and how much is evaluated.

    `examples` test images are attacked by PGD-20, the first `autoattack_examples` of them by
    AutoAttack (0: not run).
    """

    name: str
    architecture: Architecture
    profile: Profile
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    examples: int
    autoattack_examples: int
    methods: tuple[str, ...] = METHODS

    def to_json(self) -> dict[str, Any]:
        """Return the preset as results state it."""
        return {
            "name": self.name,
            "architecture": self.architecture.to_json(),
            "profile": self.profile.to_json(),
            "threat": THREAT.to_json(),
            "ratios": list(self.ratios),
            "seeds": list(self.seeds),
            "methods": list(self.methods),
            "examples": self.examples,
            "autoattack_examples": self.autoattack_examples,
        }


# 64 steps an epoch. An image is seen three to four times in all, so this network underfits:
# without augmentation it learned faster (docs/decisions/0005-grid.md).
_RESNET8 = TrainingConfig(
    epochs=6,
    batch_size=64,
    learning_rate=0.05,
    factor_weight_decay=1e-4,
    gradient_clip=1.0,
    attack=AttackConfig(kind="n-fgsm"),
    augmentation="none",
    examples_per_epoch=4096,
)

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="resnet8",
            architecture=Architecture("resnet8_cifar"),
            profile=Profile(
                name="resnet8",
                note="single-step training of a small network on a CPU",
                dense=replace(_RESNET8, epochs=30, learning_rate=0.15, warmup_epochs=1),
                admm=_RESNET8,
                finetune=_RESNET8,
                admm_rho=AdmmConfig(epochs=_RESNET8.epochs),
                held_out=500,
                selection=PgdSettings(steps=5),
                robust_mark=0.0,  # every cell starts from the dense network of its seed as it is
            ),
            ratios=(4.0, 8.0),
            seeds=(0, 1, 2),
            examples=1000,
            autoattack_examples=0,
        ),
        Preset(
            name="resnet18",
            architecture=Architecture("resnet18_cifar"),
            profile=replace(PROFILES["best"], robust_mark=0.0),
            ratios=(4.0, 10.0, 16.0),
            seeds=(0,),
            examples=10_000,
            autoattack_examples=10_000,
        ),
    )
}
