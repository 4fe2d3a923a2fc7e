"""Networks for the export tests: every operation of the format in one small one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT = (3, 12, 12)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class EveryOperation(nn.Module):
    """Uses each module and function the architecture format knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.relu6 = nn.ReLU6()
        self.maximum = nn.MaxPool2d(3, stride=2, padding=1)
        self.down = nn.Sequential(
            nn.Conv2d(8, 4, 1, bias=False),
            nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(1, 1), bias=False),
            nn.Conv2d(6, 12, 1),
        )
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=4, padding_mode="reflect")
        self.average = nn.AvgPool2d(2, ceil_mode=True)
        self.identity = nn.Identity()
        self.dropout = nn.Dropout(0.3)
        self.pool = nn.AdaptiveAvgPool2d((2, 1))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(24, 5, bias=False), nn.Linear(5, 10))

    def forward(self, images: Tensor) -> Tensor:
        x = self.maximum(self.relu(self.norm(self.stem(images))))
        y = self.down(x)
        y += F.pad(x[:, :, ::2, :], (0, 0, 0, 0, 2, 2))
        y = self.relu(y) + self.identity(self.grouped(y))
        logits: Tensor = self.head(self.dropout(self.pool(self.average(self.relu6(y)))))
        return logits + torch.flatten(y, 1)[:, :10]


def every_operation() -> EveryOperation:
    """With the same weights and batch statistics each time; in eval mode."""
    network = EveryOperation()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        network.norm.get_buffer("running_mean").normal_(generator=generator)
        network.norm.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
        network.norm.get_buffer("num_batches_tracked").fill_(7)
    return network.eval()


def images(count: int = 6) -> Tensor:
    """Images in [0, 1]."""
    return torch.rand(count, *INPUT, generator=torch.Generator().manual_seed(1))
