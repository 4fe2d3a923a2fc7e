"""Residual networks with batch norm and ReLU before each convolution, under their published names.

Sources: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks" (ECCV 2016), figure 4e;
Zagoruyko, Komodakis, "Wide Residual Networks" (BMVC 2016), table 1. Names and choices:

- PreActResNet: github kuangliu/pytorch-cifar (`layer1.0.bn1`, `shortcut.0`, `linear`), which has no
  norm after the last block. Adversarially trained ones (RobustBench's Rice2020, Addepalli2021,
  Kireev2021) mostly add it, as `bn`, and that is the default here. All of these take the shortcut
  from the activated input; RobustBench's older `PreActBlock` takes it from the input itself, which
  no weight tells: `activated_shortcut` does.
- Wide ResNet: github yaodongyu/TRADES and RobustBench (`block1.layer.0.bn1`, `convShortcut`, `bn1`,
  `fc`), without TRADES's unused `sub_block1`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from cstar_core.architectures.entry import Argument, Entry, Shapes, common_arguments, present


@dataclass(frozen=True)
class Style:
    """The names in which published networks differ; `nested`: TRADES's two levels in a stage."""

    stage: str
    shortcut: str
    norm: str
    classifier: str
    nested: bool = False


KUANGLIU = Style(stage="layer", shortcut="shortcut", norm="bn", classifier="linear")
TRADES = Style(stage="block", shortcut="convShortcut", norm="bn1", classifier="fc", nested=True)


class PreActBlock(nn.Module):
    """y = conv2(relu(bn2(conv1(a)))) + shortcut, a = relu(bn1(x)), figure 4e.

    Between equal shapes the shortcut is x; else it is a strided 1x1 convolution of a, or of x
    unless `activated_shortcut`. (N, in_channels, H, W) -> (N, channels, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        style: Style,
        activated_shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = stride == 1 and in_channels == channels
        shortcut: nn.Module = nn.Identity()
        if not same:
            shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            shortcut = shortcut if style.nested else nn.Sequential(shortcut)
        self.add_module(style.shortcut, shortcut)
        self.shortcut_name = style.shortcut
        self.activated_shortcut = activated_shortcut and not same

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added."""
        activated = self.relu1(self.bn1(x))
        y = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        shortcut = self.get_submodule(self.shortcut_name)
        result: Tensor = y + shortcut(activated if self.activated_shortcut else x)
        return result


class PreActResNet(nn.Module):
    """Stem, stages of pre-activation blocks, batch norm and ReLU, mean, classifier.

    Stage s has `depths[s]` blocks of `widths[s]` channels; each but the first halves the image.
    Without `final_norm` the last sum is averaged as it is. (N, in_channels, H, W) ->
    (N, num_classes).
    """

    def __init__(
        self,
        *,
        width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        style: Style,
        in_channels: int,
        num_classes: int,
        final_norm: bool = True,
        activated_shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.stage_names = [f"{style.stage}{number + 1}" for number in range(len(widths))]
        block = partial(PreActBlock, style=style, activated_shortcut=activated_shortcut)
        incoming = [width, *widths[:-1]]
        stages = zip(self.stage_names, depths, incoming, widths, strict=True)
        for number, (name, depth, before, channels) in enumerate(stages):
            first = block(before, channels, stride=1 if number == 0 else 2)
            rest = (block(channels, channels, stride=1) for _ in range(depth - 1))
            blocks = nn.Sequential(first, *rest)
            nested = nn.Sequential(OrderedDict(layer=blocks))
            self.add_module(name, nested if style.nested else blocks)
        norm = nn.BatchNorm2d(widths[-1]) if final_norm else nn.Identity()
        self.add_module(style.norm, norm)
        self.relu = nn.ReLU() if final_norm else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.add_module(style.classifier, nn.Linear(widths[-1], num_classes))
        self.tail_names = [style.norm, "relu", "avgpool", "flatten", style.classifier]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        x = self.conv1(x)
        for name in (*self.stage_names, *self.tail_names):
            x = self.get_submodule(name)(x)
        return x


def preact_resnet18(
    *,
    width: int,
    in_channels: int,
    num_classes: int,
    final_norm: bool,
    activated_shortcut: bool,
) -> nn.Module:
    """Four stages of two blocks, `width` channels in the stem and the first stage."""
    return PreActResNet(
        width=width,
        widths=[width * 2**stage for stage in range(4)],
        depths=[2] * 4,
        style=KUANGLIU,
        in_channels=in_channels,
        num_classes=num_classes,
        final_norm=final_norm,
        activated_shortcut=activated_shortcut,
    )


def wide_resnet(
    *, width: int, in_channels: int, num_classes: int, blocks: int, widen: int
) -> nn.Module:
    """WRN-d-k with d = 6 blocks + 4 and k = `widen`: three stages of `blocks` blocks each."""
    return PreActResNet(
        width=width,
        widths=[width * widen * 2**stage for stage in range(3)],
        depths=[blocks] * 3,
        style=TRADES,
        in_channels=in_channels,
        num_classes=num_classes,
    )


def _activated_shortcut(_shapes: Shapes) -> bool:
    raise LookupError("no weight tells where the shortcut starts")


def _blocks(shapes: Shapes) -> int:
    return sum(key.startswith("block1.layer.") and key.endswith(".conv1.weight") for key in shapes)


def _widen(shapes: Shapes) -> int:
    return shapes["block1.layer.0.conv1.weight"][0] // max(1, shapes["conv1.weight"][0])


ENTRIES = (
    Entry(
        name="preact_resnet18_cifar",
        summary="PreActResNet-18 for small images: norm and ReLU before each convolution",
        make=preact_resnet18,
        arguments={
            **common_arguments(stem="conv1", classifier="linear", width=64, classes=10),
            "final_norm": Argument(True, present("bn.weight")),
            "activated_shortcut": Argument(True, _activated_shortcut),
        },
        stem="conv1",
        classifier="linear",
        input_shape=(3, 32, 32),
    ),
    Entry(
        name="wideresnet_cifar",
        summary="Wide ResNet for small images, depth 6 blocks + 4: WRN-28-10 by default, "
        "WRN-28-4 with widen 4",
        make=wide_resnet,
        arguments={
            **common_arguments(stem="conv1", classifier="fc", width=16, classes=10),
            "blocks": Argument(4, _blocks, maximum=32),
            "widen": Argument(10, _widen, maximum=32),
        },
        stem="conv1",
        classifier="fc",
        input_shape=(3, 32, 32),
    ),
)
