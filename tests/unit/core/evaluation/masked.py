"""A small real network, adversarially trained, and versions that hide its gradients."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, load
from cstar_core.attacks import ThreatModel
from cstar_core.files.checkpoints import read_checkpoint
from cstar_core.normalization import NormalizedModel
from stack.demo import digits
from stack.demo.__main__ import CHECKPOINT

THREAT = ThreatModel("linf", 0.1)


def honest() -> NormalizedModel:
    """Return the ResNet-8 of the demo, adversarially trained on handwritten digits."""
    shape = {"width": 16, "in_channels": 1, "num_classes": digits.CLASSES}
    network = load(Architecture("resnet8_cifar", shape), read_checkpoint(CHECKPOINT))
    return NormalizedModel(network, digits.MEAN, digits.STD).eval()


def examples(n: int) -> tuple[Tensor, Tensor]:
    """Return the first n test images, uint8 (n, 1, 8, 8), and their labels."""
    found = digits.load_digits()
    images = torch.from_numpy(found.test_images[:n]).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(found.test_labels[:n])


class Hot(nn.Module):
    """Logits times 10^6: the softmax is saturated, the cross-entropy flat."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return 1e6 * logits


class RoundedReLU(nn.Module):
    """ReLU, rounded to eighths: a staircase without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return (8 * x.relu()).round() / 8


class Noisy(nn.Module):
    """Noise on the logits, from a generator of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.source = model, torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits + torch.randn(logits.shape, generator=self.source)


def quantised(model: nn.Module) -> nn.Module:
    """Return a copy whose activations are rounded."""
    found = copy.deepcopy(model)
    for module in list(found.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, RoundedReLU())
    return found
