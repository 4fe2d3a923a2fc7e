"""Residual networks under the key names of their published checkpoints.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), table 1 and
section 4.2. Three styles of names and shortcuts are in use:

- option A (github akamaster/pytorch_resnet_cifar10): three stages, shortcuts without parameters;
- CIFAR stem (github kuangliu/pytorch-cifar): four stages, `shortcut.0`, `shortcut.1`, `linear`;
- ImageNet stem (torchvision): 7x7 stem and max pooling, `downsample.0`, `downsample.1`, `fc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from cstar_core.architectures.entry import Entry, common_arguments
from cstar_core.architectures.residual import BasicBlock, Bottleneck, PaddedShortcut, Style

Block = type[BasicBlock] | type[Bottleneck]

OPTION_A = Style(shortcut="shortcut", classifier="linear", make_shortcut=PaddedShortcut)
CIFAR = Style(shortcut="shortcut", classifier="linear")
IMAGENET = Style(shortcut="downsample", classifier="fc", large_images=True)


class ResNet(nn.Module):
    """Stem, stages of residual blocks that each halve the image but the first, mean, classifier.

    Stage s has `depths[s]` blocks of `width * 2**s` channels, times the expansion of the block.
    (N, in_channels, H, W) -> (N, num_classes).
    """

    def __init__(
        self,
        *,
        block: Block,
        depths: Sequence[int],
        style: Style,
        width: int,
        in_channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if style.large_images else (3, 1)
        self.conv1 = nn.Conv2d(
            in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if style.large_images else nn.Identity()
        incoming = width
        for stage, depth in enumerate(depths):
            blocks = _stage(
                block, incoming, width * 2**stage, stage=stage, depth=depth, style=style
            )
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            incoming = width * 2**stage * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.add_module(style.classifier, nn.Linear(incoming, num_classes))
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


def _stage(
    block: Block, in_channels: int, channels: int, *, stage: int, depth: int, style: Style
) -> Iterator[nn.Module]:
    yield block(in_channels, channels, stride=1 if stage == 0 else 2, style=style)
    for _ in range(depth - 1):
        yield block(channels * block.expansion, channels, stride=1, style=style)


def _entry(
    name: str,
    summary: str,
    *,
    depths: Sequence[int],
    style: Style,
    block: Block = BasicBlock,
    width: int = 64,
    classes: int = 10,
) -> Entry:
    side = 224 if style.large_images else 32
    return Entry(
        name=name,
        summary=summary,
        make=partial(ResNet, block=block, depths=tuple(depths), style=style),
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


def _cifar(depth: int, depths: Sequence[int], block: Block) -> Entry:
    return _entry(
        f"resnet{depth}_cifar",
        f"ResNet-{depth} for small images: 3x3 stem, four stages, 1x1 projection shortcuts",
        depths=depths,
        style=CIFAR,
        block=block,
    )


def _imagenet(depth: int, depths: Sequence[int], block: Block) -> Entry:
    return _entry(
        f"resnet{depth}_imagenet",
        f"ResNet-{depth} for large images: 7x7 stem and max pooling, torchvision's names",
        depths=depths,
        style=IMAGENET,
        block=block,
        classes=1000,
    )


# Table 1 of the paper.
_FOUR_STAGES: tuple[tuple[int, Sequence[int], Block], ...] = (
    (18, (2, 2, 2, 2), BasicBlock),
    (34, (3, 4, 6, 3), BasicBlock),
    (50, (3, 4, 6, 3), Bottleneck),
)

ENTRIES = (
    *(_option_a(depth) for depth in (8, 20, 32, 44, 56)),
    *(_cifar(*row) for row in _FOUR_STAGES),
    *(_imagenet(*row) for row in _FOUR_STAGES),
)
