"""Residual networks of basic blocks, under the key names of their published checkpoints.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), sections
3.3, 4.1 and 4.2. Three styles of names and shortcuts are in use:

- option A (github akamaster/pytorch_resnet_cifar10): three stages, shortcuts without parameters;
- CIFAR stem (github kuangliu/pytorch-cifar): four stages, `shortcut.0`, `shortcut.1`, `linear`;
- ImageNet stem (torchvision): 7x7 stem and max pooling, `downsample.0`, `downsample.1`, `fc`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from cstar_core.architectures.entry import Entry, common_arguments


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are missing (section 3.3).

    (N, in_channels, H, W) -> (N, channels, H / 2 rounded up, W / 2 rounded up).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        missing = channels - in_channels
        self.before, self.after = missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class ProjectionShortcut(nn.Sequential):
    """Option B: a strided 1x1 convolution and batch norm (section 3.3)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 1, stride=2, bias=False), nn.BatchNorm2d(channels)
        )


@dataclass(frozen=True)
class Style:
    """The names and choices in which published residual networks differ."""

    shortcut: str
    classifier: str
    make_shortcut: Callable[[int, int], nn.Module] = ProjectionShortcut
    large_images: bool = False


OPTION_A = Style(shortcut="shortcut", classifier="linear", make_shortcut=PaddedShortcut)
CIFAR = Style(shortcut="shortcut", classifier="linear")
IMAGENET = Style(shortcut="downsample", classifier="fc", large_images=True)


class BasicBlock(nn.Module):
    """y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)), figure 2 of the paper."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, style: Style) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut_name = style.shortcut
        shortcut = nn.Identity() if stride == 1 else style.make_shortcut(in_channels, channels)
        self.add_module(style.shortcut, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.relu2(y + self.get_submodule(self.shortcut_name)(x))
        return result


class ResNet(nn.Module):
    """Stem, stages of basic blocks that each halve the image but the first, mean, classifier.

    Stage s has `depths[s]` blocks of `width * 2**s` channels. (N, in_channels, H, W) ->
    (N, num_classes).
    """

    def __init__(
        self, *, depths: Sequence[int], style: Style, width: int, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if style.large_images else (3, 1)
        self.conv1 = nn.Conv2d(
            in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if style.large_images else nn.Identity()
        widths = [width * 2**stage for stage in range(len(depths))]
        incoming = [width, *widths[:-1]]
        stages = zip(depths, incoming, widths, strict=True)
        for number, (depth, before, channels) in enumerate(stages, start=1):
            first = BasicBlock(before, channels, stride=1 if number == 1 else 2, style=style)
            rest = [BasicBlock(channels, channels, stride=1, style=style) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.add_module(style.classifier, nn.Linear(widths[-1], num_classes))
        self.stage_names = [f"layer{number + 1}" for number in range(len(depths))]
        self.classifier_name = style.classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        x = self.flatten(self.avgpool(x))
        logits: Tensor = self.get_submodule(self.classifier_name)(x)
        return logits


def _entry(
    name: str, summary: str, *, depths: Sequence[int], style: Style, width: int, classes: int = 10
) -> Entry:
    side = 224 if style.large_images else 32
    return Entry(
        name=name,
        summary=summary,
        make=partial(ResNet, depths=tuple(depths), style=style),
        arguments=common_arguments(
            stem="conv1", classifier=style.classifier, width=width, classes=classes
        ),
        stem="conv1",
        classifier=style.classifier,
        input_shape=(3, side, side),
    )


def _option_a(depth: int) -> Entry:
    """The CIFAR network of section 4.2: 6n + 2 layers, n blocks in each of three stages."""
    return _entry(
        f"resnet{depth}_cifar",
        f"ResNet-{depth} for small images: three stages, parameter-free shortcuts (option A)",
        depths=[(depth - 2) // 6] * 3,
        style=OPTION_A,
        width=16,
    )


ENTRIES = (
    *(_option_a(depth) for depth in (8, 20, 32, 44, 56)),
    _entry(
        "resnet18_cifar",
        "ResNet-18 for small images: 3x3 stem, four stages, 1x1 projection shortcuts",
        depths=(2, 2, 2, 2),
        style=CIFAR,
        width=64,
    ),
    _entry(
        "resnet18_imagenet",
        "ResNet-18 for large images: 7x7 stem and max pooling, torchvision's names",
        depths=(2, 2, 2, 2),
        style=IMAGENET,
        width=64,
        classes=1000,
    ),
)
