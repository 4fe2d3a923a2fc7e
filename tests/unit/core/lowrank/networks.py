"""Small networks, shape lists and weights for the tests of the low-rank part."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cstar_core.layers import Layer
from cstar_core.ranks import EnergyTable, Inventory

INPUT = (3, 8, 8)


class ResidualNet(nn.Module):
    """A stem, a block with an option-A shortcut, one with a 1x1 shortcut, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.wide = nn.Conv2d(12, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(12, 16, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu(self.down(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        x = self.relu(self.wide(x) + self.shortcut(x))
        logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return logits


def residual_net(seed: int = 0) -> ResidualNet:
    """The same weights for the same seed; in eval mode with batch statistics that matter."""
    network = ResidualNet()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
        network.norm.get_buffer("running_mean").normal_(generator=generator)
        network.norm.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    return network.eval()


def random_weight(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian, with channels of unlike size, as trained weights have."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    for mode in (0, 1):
        scale = torch.exp(-2 * torch.rand(shape[mode], generator=generator, dtype=torch.float64))
        weight = weight * scale.view([-1 if d == mode else 1 for d in range(weight.dim())])
    return weight.to(dtype)


def conv(name: str, *, out: int, into: int, size: int, k: int = 3, stride: int = 1) -> Layer:
    """A convolution on inputs of `size` x `size`, padded to keep them."""
    return Layer(
        name=name,
        kind="conv" if k > 1 else "pointwise",
        O=out,
        I=into,
        kernel=(k, k),
        stride=(stride, stride),
        padding=(k // 2, k // 2),
        input_hw=(size, size),
        output_hw=(size // stride, size // stride),
        is_stem=name == "stem",
    )


def resnet18_cifar() -> Inventory:
    """ResNet-18 for 32x32 images by hand: 11,173,962 parameters."""
    layers = [conv("stem", out=64, into=3, size=32)]
    channels, size, normalised = 64, 32, 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            name = f"layer{stage + 1}.{block}"
            layers.append(conv(f"{name}.conv1", out=width, into=channels, size=size, stride=stride))
            if stride == 2:
                shortcut = conv(
                    f"{name}.shortcut", out=width, into=channels, size=size, k=1, stride=2
                )
                layers.append(shortcut)
                normalised += width
            size //= stride
            layers.append(conv(f"{name}.conv2", out=width, into=width, size=size))
            normalised += 2 * width
            channels = width
    layers.append(Layer(name="fc", kind="linear", O=10, I=512, bias=True))
    weights = sum(layer.dense_parameters for layer in layers)
    return Inventory(tuple(layers), weights + 2 * normalised + 10)


def tables_for(layers: Iterable[Layer], *, seed: int = 0) -> dict[str, EnergyTable]:
    """Energy tables with random decays, without weights behind them."""
    random = np.random.default_rng(seed)

    def kept(size: int) -> np.ndarray:
        return np.cumsum(np.sort(random.exponential(size=size) ** 2)[::-1])

    return {
        layer.name: EnergyTable(
            np.outer(kept(layer.O), kept(layer.I))
            if layer.kind == "conv"
            else kept(min(layer.O, layer.I))
        )
        for layer in layers
    }
