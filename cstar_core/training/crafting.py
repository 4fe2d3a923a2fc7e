"""Adversarial examples for training: the attack a config names, on the fastest copy there is."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from cstar_core.attacks import ThreatModel, fgsm_rs, n_fgsm, pgd
from cstar_core.criteria import CraftingLoss
from cstar_core.folding import FoldedCopy, attack_target
from cstar_core.training.config import AttackConfig
from cstar_core.training.execution import Execution


def attack_batch(
    config: AttackConfig,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    generator: Generator,
    loss: CraftingLoss = "ce",
) -> Tensor:
    """Adversarial training examples for one batch, crafted on `loss`."""
    match config.kind:
        case "none":
            return images
        case "fgsm-rs":
            return fgsm_rs(model, images, labels, threat, generator=generator, loss=loss)
        case "n-fgsm":
            return n_fgsm(model, images, labels, threat, generator=generator, loss=loss)
        case "pgd":
            return pgd(
                model,
                images,
                labels,
                threat,
                steps=config.steps,
                step_size=config.step_size * threat.epsilon,
                random_start=True,
                generator=generator,
                loss=loss,
            )


class Crafter:
    """Attacks a model that is being trained, on a folded copy of it where it can be traced."""

    def __init__(
        self, model: nn.Module, threat: ThreatModel, *, loss: CraftingLoss, execution: Execution
    ) -> None:
        self.threat, self.loss, self.execution = threat, loss, execution
        self.copy = attack_target(model)
        self._fast = execution.compiled_network(self.copy)

    def __call__(
        self, config: AttackConfig, images: Tensor, labels: Tensor, *, generator: Generator
    ) -> Tensor:
        """`images` (N, C, H, W) in [0, 1], attacked with the model's current weights."""
        if isinstance(self.copy, FoldedCopy):
            self.copy.refresh()
        with self.execution.autocast():
            return attack_batch(
                config, self._fast, images, labels, self.threat, generator=generator, loss=self.loss
            )
