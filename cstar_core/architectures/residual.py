"""The blocks of residual networks, and the choices in which published ones differ.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), sections
3.3 and 4.1, figure 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that are missing (section 3.3).

    (N, in_channels, H, W) -> (N, channels, H / stride rounded up, W / stride rounded up).
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        missing = channels - in_channels
        self.before, self.after, self.stride = missing // 2, missing - missing // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad."""
        pixels = x[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, self.before, self.after))


class ProjectionShortcut(nn.Sequential):
    """Option B: a strided 1x1 convolution and batch norm (section 3.3)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(channels),
        )


@dataclass(frozen=True)
class Style:
    """The names and choices in which published residual networks differ."""

    shortcut: str
    classifier: str
    make_shortcut: Callable[[int, int, int], nn.Module] = ProjectionShortcut
    large_images: bool = False


def shortcut(in_channels: int, channels: int, *, stride: int, style: Style) -> nn.Module:
    """The identity between equal shapes, else the shortcut of the style."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return style.make_shortcut(in_channels, channels, stride)


class BasicBlock(nn.Module):
    """y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)), figure 5 left.

    (N, in_channels, H, W) -> (N, channels, H / stride, W / stride).
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int, style: Style) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut_name = style.shortcut
        self.add_module(style.shortcut, shortcut(in_channels, channels, stride=stride, style=style))

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.relu2(y + self.get_submodule(self.shortcut_name)(x))
        return result


class Bottleneck(nn.Module):
    """1x1 to `channels`, 3x3, 1x1 to 4 times as many, figure 5 right; the 3x3 has the stride.

    The paper strides the first 1x1; published weights (torchvision, kuangliu) were trained so.
    (N, in_channels, H, W) -> (N, 4 channels, H / stride, W / stride).
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int, style: Style) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu3 = nn.ReLU()
        self.shortcut_name = style.shortcut
        self.add_module(
            style.shortcut, shortcut(in_channels, out_channels, stride=stride, style=style)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        result: Tensor = self.relu3(y + self.get_submodule(self.shortcut_name)(x))
        return result
