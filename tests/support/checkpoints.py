"""The published checkpoints beside CIFAR-10, where they are at hand: never part of the project."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cstar_core.files.checkpoints import read_checkpoint
from tests.support import cifar10

RESNET20 = "resnet20-12fca82f.th"
RESNET_2B2 = "eth_resnet_2b2_bn_mixup_adv_4.0.pth"


def published(name: str) -> dict[str, Tensor]:
    """Return the weights of one of them; without the files the test is not run."""
    return read_checkpoint(cifar10.data_folder() / "checkpoints" / name)


def cifar10_test(count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images, (count, 3, 32, 32) in [0, 1], and their labels."""
    folder = cifar10.data_folder() / "cifar10"
    tiles = cifar10.tiles(folder / "test_00.webp")[:count]
    labels = np.load(folder / "labels.npz")["test_labels"][:count]
    images = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    return images, torch.from_numpy(labels.astype(np.int64))
