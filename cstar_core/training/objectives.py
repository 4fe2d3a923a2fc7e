"""The loss of one batch of clean and adversarial images; each also returns adversarial logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def adversarial_cross_entropy(
    model: nn.Module, adversarial: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy on adversarial images (Madry et al. 2018, equation 2.1)."""
    logits = model(adversarial).float()
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits


def robust_distillation(
    student: nn.Module, teacher: nn.Module, images: Tensor, adversarial: Tensor, *, alpha: float
) -> tuple[Tensor, Tensor]:
    """(1 - alpha) KL(T(x) | S(x)) + alpha KL(T(x) | S(x')), temperature 1.

    The robust soft labels of RSLAD (Zi et al. 2021, section 3.3; there alpha = 5/6), with x'
    crafted on the cross-entropy. The teacher is evaluated as it is, without gradients.
    """
    with torch.no_grad():
        target = teacher(images).float().log_softmax(1)
    adversarial_logits = student(adversarial).float()
    loss = alpha * _divergence(target, adversarial_logits)
    if alpha < 1:
        loss = loss + (1 - alpha) * _divergence(target, student(images).float())
    return loss, adversarial_logits


def _divergence(target: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean", log_target=True)
