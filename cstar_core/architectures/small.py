"""Small networks of the robustness literature, under the key names of their published weights.

- SmallCNN (Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML
  2019; github yaodongyu/TRADES): four convolutions for MNIST.
- resnet_2b2 (Ferrari et al., "Complete Verification via Multi-Neuron Relaxation Guided
  Branch-and-Bound", ICLR 2022; github eth-sri/mn-bab): two residual blocks for CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from cstar_core.architectures.entry import Argument, Entry, common_arguments, size


class SmallCnn(nn.Module):
    """Two pairs of unpadded 3x3 convolutions, each with max pooling, and three linear layers.

    (N, in_channels, 28, 28) -> (N, num_classes): the linear layers take a 4x4 feature map.
    """

    def __init__(self, *, width: int, in_channels: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, width, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(width, width, 3),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(width, 2 * width, 3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(2 * width, 2 * width, 3),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2),
            )
        )
        self.flatten = nn.Flatten(1)
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(2 * width * 4 * 4, hidden),
                relu1=nn.ReLU(),
                drop=nn.Dropout(0.5),
                fc2=nn.Linear(hidden, hidden),
                relu2=nn.ReLU(),
                fc3=nn.Linear(hidden, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.flatten(self.feature_extractor(x)))
        return logits


class TwoPathBlock(nn.Module):
    """path_a(x) + path_b(x): a strided 1x1 convolution, and two 3x3 ones; norm after each.

    (N, in_channels, H, W) -> (N, channels, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.path_a = nn.Sequential(
            nn.Identity(),
            nn.Conv2d(in_channels, channels, 1, stride=2, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.path_b = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Both paths, added."""
        result: Tensor = self.path_a(x) + self.path_b(x)
        return result


def resnet_2b2(*, width: int, in_channels: int, num_classes: int, hidden: int) -> nn.Module:
    """(N, in_channels, 32, 32) -> (N, num_classes): the linear layers take a 4x4 feature map."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Sequential(TwoPathBlock(width, 2 * width), nn.ReLU()),
        nn.Sequential(TwoPathBlock(2 * width, 4 * width), nn.ReLU()),
        nn.Flatten(1),
        nn.Linear(4 * width * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


_SMALL_CNN_STEM = "feature_extractor.conv1"

ENTRIES = (
    Entry(
        name="small_cnn_mnist",
        summary="SmallCNN for 28x28 images: four convolutions, TRADES's names",
        make=SmallCnn,
        arguments={
            **common_arguments(
                stem=_SMALL_CNN_STEM, classifier="classifier.fc3", width=32, classes=10
            ),
            "in_channels": Argument(1, size(f"{_SMALL_CNN_STEM}.weight", 1), maximum=64),
            "hidden": Argument(200, size("classifier.fc1.weight", 0), maximum=16_384),
        },
        stem=_SMALL_CNN_STEM,
        classifier="classifier.fc3",
        input_shape=(1, 28, 28),
    ),
    Entry(
        name="resnet_2b2_cifar",
        summary="ResNet of two blocks for 32x32 images: the verified networks of ETH's mn-bab",
        make=resnet_2b2,
        arguments={
            **common_arguments(stem="0", classifier="8", width=16, classes=10),
            "hidden": Argument(100, size("6.weight", 0), maximum=16_384),
        },
        stem="0",
        classifier="8",
        input_shape=(3, 32, 32),
    ),
)
