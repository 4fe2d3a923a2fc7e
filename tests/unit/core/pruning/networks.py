"""Small networks of every kind that pruning must know, with statistics as training leaves them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, build

IMAGE = (3, 32, 32)

ARCHITECTURES = {
    "option A": Architecture("resnet8_cifar", {"width": 8}),
    "option B": Architecture("resnet18_cifar", {"width": 8}),
    "vgg": Architecture("vgg16_bn_cifar", {"width": 8}),
}


class Depthwise(nn.Module):
    """1x1, depthwise 3x3, 1x1 with a residual, then a flattened 4 x 4 map into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=8)
        self.expand = nn.Conv2d(8, 16, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.project = nn.Conv2d(16, 8, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(8)
        self.flatten = nn.Flatten(1)
        self.hidden = nn.Linear(8 * 16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 5)."""
        x = self.stem(x)
        y = self.relu(self.bn1(self.expand(x)))
        y = self.relu(self.bn2(self.depthwise(y)))
        x = x + self.bn3(self.project(y))
        logits: Tensor = self.head(self.relu(self.hidden(self.flatten(x))))
        return logits


class PreActivation(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))), then bn, relu, mean and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1, stride=2, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(8, 12, 1, stride=2, bias=False)
        self.bn3 = nn.BatchNorm2d(12)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 10)."""
        x = self.relu(self.bn1(self.stem(x)))
        y = self.conv2(self.relu(self.bn2(self.conv1(x))))
        x = self.relu(self.bn3(y + self.shortcut(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


KINDS = (*ARCHITECTURES, "depthwise", "pre-activation")


def network(kind: str) -> nn.Module:
    """A network of `KINDS` in eval mode whose norms and biases are not trivial."""
    source = torch.Generator().manual_seed(7)
    if kind in ARCHITECTURES:
        made = build(ARCHITECTURES[kind], seed=3)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            made = Depthwise() if kind == "depthwise" else PreActivation()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=source))
    return made.eval()
