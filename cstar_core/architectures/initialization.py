"""Weights to start training from, drawn from a generator of their own."""

from __future__ import annotations

import math

import torch
from torch import nn


def initialise(network: nn.Module, *, seed: int) -> None:
    """Set every parameter and buffer of a CPU network in place.

    Convolutions: normal of variance 2 / fan_out (He et al. 2015, "Delving Deep into Rectifiers",
    section 2.2, backward case). Linear layers: uniform in +-1 / sqrt(fan_in). Batch norm: identity.
    Biases: zero.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
