"""Which examples a training step sees: a seeded order per epoch, cropped and mirrored by seed."""

from __future__ import annotations

import torch
from torch import Tensor

from cstar_core.evaluation.batches import unit_interval
from cstar_core.training.augmentation import augment
from cstar_core.training.config import TrainingConfig
from cstar_core.training.randomness import generator


class Sampler:
    """Batches of `images` (N, C, H, W) and `labels` (N,) as functions of epoch and step alone.

    Raises ValueError when there are no images, or not one label each.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, config: TrainingConfig, *, seed: int, phase: str
    ) -> None:
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"{len(images)} images and {len(labels)} labels; need one label each")
        self.images, self.labels, self.config = images, labels, config
        self.seed, self.phase = seed, phase
        self._order: tuple[int, Tensor] | None = None

    @property
    def examples_per_epoch(self) -> int:
        """Examples drawn each epoch, before the incomplete last batch is left out."""
        return min(len(self.images), self.config.examples_per_epoch or len(self.images))

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; one smaller batch if there is not a single full one."""
        return max(1, self.examples_per_epoch // self.config.batch_size)

    def batch(self, *, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Augmented images in [0, 1], channels innermost, and their labels."""
        start = step * self.config.batch_size
        index = self._order_of(epoch)[start : start + self.config.batch_size]
        device = self.images.device
        images = augment(
            unit_interval(self.images[index]),
            self.config.augmentation,
            generator=generator(self.seed, self.phase, "augmentation", epoch, step, device=device),
        )
        return images.contiguous(memory_format=torch.channels_last), self.labels[index]

    def _order_of(self, epoch: int) -> Tensor:
        """Indices of the epoch's examples, shuffled; drawn on the CPU for every device alike."""
        if self._order is None or self._order[0] != epoch:
            source = generator(self.seed, self.phase, "order", epoch)
            order = torch.randperm(len(self.images), generator=source)
            self._order = epoch, order[: self.examples_per_epoch].to(self.images.device)
        return self._order[1]
