"""Random crops and flips of a batch, one draw per example and no Python loop over examples."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Augmentation = Literal["none", "crop", "crop_flip"]


def augment(images: Tensor, kind: Augmentation, *, generator: Generator) -> Tensor:
    """Images (N, C, H, W) -> the same shape: shifted by up to H // 8 pixels, perhaps mirrored.

    32 x 32 images are padded by 4, as is usual for CIFAR. Raises ValueError for an unknown kind.
    """
    if kind not in get_args(Augmentation):
        raise ValueError(f"unknown augmentation {kind!r}; use one of {get_args(Augmentation)}")
    if kind == "none":
        return images
    cropped = random_crop(images, padding=max(1, images.shape[-2] // 8), generator=generator)
    return random_flip(cropped, generator=generator) if kind == "crop_flip" else cropped


def random_crop(images: Tensor, *, padding: int, generator: Generator) -> Tensor:
    """Pad each side with zeros, then cut the original size at a random place per example."""
    n, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, [padding] * 4)
    offsets = torch.randint(2 * padding + 1, (2, n), generator=generator, device=device)
    rows = offsets[0, :, None] + torch.arange(height, device=device)  # (N, H)
    columns = offsets[1, :, None] + torch.arange(width, device=device)  # (N, W)
    example = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[example, channel, rows[:, None, :, None], columns[:, None, None, :]]


def random_flip(images: Tensor, *, generator: Generator) -> Tensor:
    """Mirror each example left to right with probability one half."""
    coin = torch.rand(len(images), generator=generator, device=images.device)
    return torch.where(coin[:, None, None, None] < 0.5, images.flip(-1), images)
