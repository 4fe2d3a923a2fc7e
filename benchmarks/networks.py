"""The networks that are measured: random weights from a seed, which is all that speed needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, build, stem_name
from cstar_core.layers import Layer, describe
from cstar_core.normalization import NormalizedModel
from cstar_core.ranks import Inventory

SHAPE = (3, 32, 32)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10


@dataclass(frozen=True)
class Subject:
    """A network for images of `SHAPE` in eval mode, its layers and its costs."""

    network: nn.Module
    layers: tuple[Layer, ...]
    inventory: Inventory

    @classmethod
    def of(cls, name: str, *, seed: int) -> Subject:
        """The network of the registry's `name` with weights drawn from `seed`."""
        architecture = Architecture(name)
        network = build(architecture, seed=seed).eval()
        layers = tuple(describe(network, SHAPE, stem=stem_name(architecture)))
        return cls(network, layers, Inventory.of(network, layers))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.inventory.dense("macs")

    def model(self) -> NormalizedModel:
        """The network as the service attacks and trains it: for images in [0, 1], eval mode."""
        return NormalizedModel(self.network, MEAN, STD).eval()


def random_batch(size: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Images uint8 (size, *SHAPE) and labels int64 of ten classes, from `seed`."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, *SHAPE), generator=source, dtype=torch.uint8)
    return images, torch.randint(0, 10, (size,), generator=source)
