"""SGD and its parameter groups: how much weight decay each kind of parameter gets."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from cstar_core.factors import factor_weights
from cstar_core.training.config import TrainingConfig


def sgd(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """SGD with momentum over all trainable parameters, one group per weight decay."""
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    factors = {id(weight) for weight in factor_weights(model)}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = _decay(parameter, config, is_factor=id(parameter) in factors)
            groups[decay].append(parameter)
    return torch.optim.SGD(
        [{"params": group, "weight_decay": decay} for decay, group in groups.items()],
        lr=config.learning_rate,
        momentum=config.momentum,
    )


def _decay(parameter: nn.Parameter, config: TrainingConfig, *, is_factor: bool) -> float:
    """Vectors (norm scales, biases) keep out of weight decay unless asked."""
    if parameter.dim() <= 1 and not config.weight_decay_on_norm:
        return 0.0
    if is_factor and config.factor_weight_decay is not None:
        return config.factor_weight_decay
    return config.weight_decay
