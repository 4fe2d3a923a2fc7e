"""Tiny classifiers of 1 x 4 x 4 images for attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = (1, 4, 4)
PIXELS = 16


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """Logits W x + b of flattened images; weight (classes, pixels)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer)


def convolutional(seed: int = 0, classes: int = 4) -> nn.Module:
    """A convolution, batch norm, ReLU, dropout and a classifier with seeded weights."""
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * PIXELS, classes),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def images(n: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def labels(n: int, seed: int = 0, classes: int = 4) -> Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
