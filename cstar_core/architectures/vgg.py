"""VGG-16 with batch norm, under torchvision's numbering of `features`.

Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(ICLR 2015), table 1, column D; batch norm after every convolution.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from cstar_core.architectures.entry import Argument, Entry, common_arguments, present, size

# Convolutions of each stage, and their channels as a multiple of the width.
_STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class Vgg16(nn.Module):
    """Thirteen 3x3 convolutions with batch norm in five stages, each ending in 2x2 max pooling.

    (N, in_channels, H, W) -> (N, num_classes); H and W at least 32. `pool` and `classifier` follow.
    """

    def __init__(
        self, *, width: int, in_channels: int, bias: bool, pool: nn.Module, classifier: nn.Module
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*_features(width=width, in_channels=in_channels, bias=bias))
        self.avgpool = pool
        self.flatten = nn.Flatten(1)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(x))))
        return logits


def _features(*, width: int, in_channels: int, bias: bool) -> Iterator[nn.Module]:
    incoming = in_channels
    for convolutions, multiple in _STAGES:
        for _ in range(convolutions):
            yield nn.Conv2d(incoming, width * multiple, 3, padding=1, bias=bias)
            yield nn.BatchNorm2d(width * multiple)
            yield nn.ReLU()
            incoming = width * multiple
        yield nn.MaxPool2d(2)


def vgg16_bn_cifar(*, width: int, in_channels: int, num_classes: int, bias: bool) -> nn.Module:
    """One linear layer after the mean of the last feature map."""
    return Vgg16(
        width=width,
        in_channels=in_channels,
        bias=bias,
        pool=nn.AdaptiveAvgPool2d(1),
        classifier=nn.Linear(8 * width, num_classes),
    )


def vgg16_bn_imagenet(
    *, width: int, in_channels: int, num_classes: int, bias: bool, hidden: int
) -> nn.Module:
    """Three linear layers over a 7x7 feature map, with dropout between them."""
    classifier = nn.Sequential(
        nn.Linear(8 * width * 7 * 7, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, num_classes),
    )
    return Vgg16(
        width=width,
        in_channels=in_channels,
        bias=bias,
        pool=nn.AdaptiveAvgPool2d(7),
        classifier=classifier,
    )


_STEM = "features.0"

ENTRIES = (
    Entry(
        name="vgg16_bn_cifar",
        summary="VGG-16 with batch norm for small images: one linear layer",
        make=vgg16_bn_cifar,
        arguments={
            **common_arguments(stem=_STEM, classifier="classifier", width=64, classes=10),
            "bias": Argument(False, present(f"{_STEM}.bias")),
        },
        stem=_STEM,
        classifier="classifier",
        input_shape=(3, 32, 32),
    ),
    Entry(
        name="vgg16_bn_imagenet",
        summary="VGG-16 with batch norm for large images: three linear layers, torchvision's names",
        make=vgg16_bn_imagenet,
        arguments={
            **common_arguments(stem=_STEM, classifier="classifier.6", width=64, classes=1000),
            "bias": Argument(True, present(f"{_STEM}.bias")),
            "hidden": Argument(4096, size("classifier.0.weight", 0), maximum=16_384),
        },
        stem=_STEM,
        classifier="classifier.6",
        input_shape=(3, 224, 224),
    ),
)
