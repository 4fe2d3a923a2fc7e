"""The loss of one batch of clean and adversarial images, as small callables built from a config.

Each maps a network and a batch to its loss and the adversarial logits. Clean and adversarial
images pass the network one after the other, so that batch norm never mixes the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cstar_core.criteria import CraftingLoss, divergence
from cstar_core.training.config import TrainingConfig


@dataclass(frozen=True)
class AttackedBatch:
    """Images and what the attack made of them, (N, C, H, W) in [0, 1]; labels (N,) int64."""

    images: Tensor
    adversarial: Tensor
    labels: Tensor


Loss = Callable[[nn.Module, AttackedBatch], tuple[Tensor, Tensor]]


def make_objective(config: TrainingConfig, teacher: nn.Module | None = None) -> Loss:
    """The loss that `config` names. Raises ValueError unless teacher and distillation agree."""
    if (config.distillation is None) != (teacher is None):
        raise ValueError("give a teacher exactly when `distillation` is set")
    if teacher is not None and config.distillation is not None:
        return Distillation(teacher, alpha=config.distillation)
    match config.objective:
        case "ce":
            return CrossEntropy(config.label_smoothing)
        case "trades":
            return Trades(beta=config.beta, label_smoothing=config.label_smoothing)
        case "mart":
            return Mart(beta=config.beta)


def crafting_loss(config: TrainingConfig) -> CraftingLoss:
    """What the attack raises: TRADES attacks its own regulariser, all others cross-entropy."""
    return "kl" if config.objective == "trades" else "ce"


@dataclass(frozen=True)
class CrossEntropy:
    """CE(f(x'), y) (Madry et al. 2018, equation 2.1)."""

    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        """The loss and the adversarial logits (N, K)."""
        logits = model(batch.adversarial).float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return loss, logits


@dataclass(frozen=True)
class Trades:
    """CE(f(x), y) + beta KL(f(x) | f(x')) (TRADES, Zhang et al. 2019, Algorithm 1)."""

    beta: float
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        """The loss and the adversarial logits (N, K)."""
        clean, logits = model(batch.images).float(), model(batch.adversarial).float()
        natural = F.cross_entropy(clean, batch.labels, label_smoothing=self.label_smoothing)
        return natural + self.beta * divergence(clean, logits).mean(), logits


@dataclass(frozen=True)
class Mart:
    """BCE(f(x'), y) + beta KL(f(x) | f(x')) (1 - p_y(x)) (MART, Wang et al. 2020, section 3).

    BCE(f(x'), y) = -log p_y(x') - log(1 - max_{k != y} p_k(x')), the boosted cross-entropy.
    """

    beta: float

    def __call__(self, model: nn.Module, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        """The loss and the adversarial logits (N, K)."""
        clean, logits = model(batch.images).float(), model(batch.adversarial).float()
        label = batch.labels[:, None]
        doubt = -torch.expm1(clean.log_softmax(1).gather(1, label)[:, 0])  # 1 - p_y(x)
        regulariser = divergence(clean, logits) * doubt
        return _boosted_cross_entropy(logits, label) + self.beta * regulariser.mean(), logits


@dataclass(frozen=True)
class Distillation:
    """(1 - alpha) KL(T(x) | S(x)) + alpha KL(T(x) | S(x')), temperature 1.

    The robust soft labels of RSLAD (Zi et al. 2021, section 3.3; there alpha = 5/6), with x'
    crafted on the cross-entropy. The teacher is evaluated as it is, without gradients.
    """

    teacher: nn.Module
    alpha: float

    def __call__(self, model: nn.Module, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        """The loss and the adversarial logits (N, K)."""
        with torch.no_grad():
            target = self.teacher(batch.images)
        logits = model(batch.adversarial).float()
        loss = self.alpha * divergence(target, logits).mean()
        if self.alpha < 1:
            loss = loss + (1 - self.alpha) * divergence(target, model(batch.images)).mean()
        return loss, logits


def _boosted_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """The mean BCE of logits (N, K) and labels (N, 1); 1 - p_k as a sum, which loses no digits."""
    log_p = logits.log_softmax(1)
    rival = log_p.scatter(1, label, -math.inf).argmax(1, keepdim=True)
    not_rival = log_p.scatter(1, rival, -math.inf).logsumexp(1)
    return -(log_p.gather(1, label)[:, 0] + not_rival).mean()
