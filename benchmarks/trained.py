"""Trained networks with their test images: what attacks find is only worth comparing on these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.cifar.data import load as load_cifar10
from benchmarks.harness import Settings
from benchmarks.networks import MEAN, STD
from cstar_core.architectures import Architecture, load, recognise
from cstar_core.attacks import ThreatModel
from cstar_core.files.checkpoints import read_checkpoint
from cstar_core.normalization import NormalizedModel
from stack.demo import digits

IMAGES = 500
DIGITS_EPSILON = 0.2  # twice the demo's: where about half of the images fall, as CIFAR-10's do
DIGITS = Path(digits.__file__).parent / "digits_resnet8.safetensors"
NATURAL, ROBUST = "resnet20-12fca82f.th", "eth_resnet_2b2_bn_mixup_adv_4.0.pth"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Trained:
    """A network for images (N, C, H, W) in [0, 1], with labels (N,), under a threat."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel


def robust_networks(settings: Settings) -> Iterator[Trained]:
    """Adversarially trained ones: the demo's, and of the data folder, at epsilons it resists."""
    if settings.data is None:
        yield _digits()
        return
    images, labels = _cifar10(settings.data)
    model = NormalizedModel(_published_robust(settings.data), MEAN, STD).eval()
    for grey_levels in (4, 8):
        threat = ThreatModel("linf", grey_levels / 255)
        yield Trained(f"robust ResNet of ETH, {grey_levels}/255", model, images, labels, threat)


def natural_networks(settings: Settings) -> Iterator[Trained]:
    """Published and trained without attacks: half of the images fall at a small epsilon."""
    if settings.data is None:
        return
    images, labels = _cifar10(settings.data)
    weights = read_checkpoint(settings.data / "checkpoints" / NATURAL)
    network = load(Architecture("resnet20_cifar"), weights)
    model = NormalizedModel(network, IMAGENET_MEAN, IMAGENET_STD).eval()
    threat = ThreatModel("linf", 0.5 / 255)
    yield Trained("published ResNet-20, 0.5/255", model, images, labels, threat)


def _digits() -> Trained:
    found = digits.load_digits()
    images = torch.from_numpy(found.test_images).permute(0, 3, 1, 2).float() / 255
    weights = read_checkpoint(DIGITS)
    network = load(
        Architecture("resnet8_cifar", {"width": 16, "in_channels": 1, "num_classes": 10}), weights
    )
    model = NormalizedModel(network, digits.MEAN, digits.STD).eval()
    labels = torch.from_numpy(found.test_labels)
    threat = ThreatModel("linf", DIGITS_EPSILON)
    return Trained(f"ResNet-8 of the demo, {DIGITS_EPSILON}", model, images, labels, threat)


def _cifar10(data: Path) -> tuple[Tensor, Tensor]:
    """The first `IMAGES` test images, and their labels."""
    arrays = load_cifar10(data / "cifar10")
    # In the order of (N, C, H, W) in memory too, by which generators fill a tensor.
    images = torch.from_numpy(arrays.test_images[:IMAGES]).permute(0, 3, 1, 2).contiguous()
    return images.float() / 255, torch.from_numpy(arrays.test_labels[:IMAGES])


def _published_robust(data: Path) -> nn.Module:
    """The network of github eth-sri/mn-bab whose weights are in the data folder."""
    weights = read_checkpoint(data / "checkpoints" / ROBUST)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    return load(recognise(shapes), weights).eval()
