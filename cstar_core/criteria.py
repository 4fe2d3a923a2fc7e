"""What an attack raises: functions of logits (N, K), with the labels or the reference inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AttackLoss = Literal["ce", "margin"]
CraftingLoss = Literal["ce", "margin", "kl"]
Criterion = Callable[[Tensor], Tensor]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y per example, (N,): positive exactly when y is not predicted."""
    label_logit = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -math.inf)
    return others.amax(1) - label_logit


def divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(reference) | softmax(logits)) per example, (N,), in float32."""
    target, guess = (values.float().log_softmax(1) for values in (reference, logits))
    return F.kl_div(guess, target, reduction="none", log_target=True).sum(1)


def criterion(loss: CraftingLoss, model: nn.Module, images: Tensor, labels: Tensor) -> Criterion:
    """The loss of that name, summed over the batch, as a function of the logits alone.

    `kl` is the divergence from the model's answer at `images`, which is evaluated here once
    (TRADES, Zhang et al. 2019, Algorithm 1). It is flat at `images`: start away from them.
    """
    match loss:
        case "ce":
            return lambda logits: F.cross_entropy(logits, labels, reduction="sum")
        case "margin":
            return lambda logits: margin(logits, labels).sum()
        case "kl":
            with torch.no_grad():
                reference = model(images)
            return lambda logits: divergence(reference, logits).sum()
