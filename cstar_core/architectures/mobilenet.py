"""MobileNetV2 under torchvision's key names.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks" (CVPR 2018), table 2 and figure 4.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from cstar_core.architectures.entry import Entry, common_arguments

# Table 2: expansion, channels at stem width 32, blocks, stride of the first.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM_WIDTH, _LAST = 32, 1280


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise 3x3, linear 1x1; x added between equals.

    (N, in_channels, H, W) -> (N, channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [] if expansion == 1 else [_normalised(in_channels, hidden, kernel=1)]
        self.conv = nn.Sequential(
            *expand,
            _normalised(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.adds = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """The bottleneck, and x where it fits."""
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Stem, 17 inverted residuals, a 1x1 to 1,280 channels, mean, classifier.

    `width` is the channels of the stem, 32 times the width multiplier of the paper; torchvision's
    networks of multipliers whose stem is no multiple of 8 round it and are not matched.
    (N, in_channels, H, W) -> (N, num_classes); H and W are divided by 32.
    """

    def __init__(self, *, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        last = max(_LAST, _scaled(_LAST, width))
        self.features = nn.Sequential(
            _normalised(in_channels, width, kernel=3, stride=2),
            *_blocks(width),
            _normalised(_scaled(_STAGES[-1][1], width), last, kernel=1),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(x))))
        return logits


def _normalised(
    in_channels: int, channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6())


def _blocks(width: int) -> Iterator[InvertedResidual]:
    incoming = width
    for expansion, base, count, first_stride in _STAGES:
        channels = _scaled(base, width)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            yield InvertedResidual(incoming, channels, stride=stride, expansion=expansion)
            incoming = channels


def _scaled(channels: int, width: int) -> int:
    """Channels at stem width `width`: the nearest multiple of 8, not below 90 % (torchvision)."""
    exact = channels * width / _STEM_WIDTH
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


ENTRIES = (
    Entry(
        name="mobilenet_v2_imagenet",
        summary="MobileNetV2 for large images: depthwise convolutions, torchvision's names",
        make=MobileNetV2,
        arguments=common_arguments(
            stem="features.0.0", classifier="classifier.1", width=_STEM_WIDTH, classes=1000
        ),
        stem="features.0.0",
        classifier="classifier.1",
        input_shape=(3, 224, 224),
    ),
)
