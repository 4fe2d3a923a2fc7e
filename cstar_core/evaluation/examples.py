"""Labelled images on a device, and choices of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Images (N, C, H, W) uint8 and labels (N,) int64, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Examples:
        """Return the examples at `index`."""
        return Examples(self.images[index], self.labels[index])

    def first(self, count: int) -> Examples:
        """Return the first `count` examples, or all if there are fewer."""
        return Examples(self.images[:count], self.labels[:count])
