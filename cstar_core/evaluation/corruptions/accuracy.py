"""Accuracy under common corruptions: noise, blur, haze, colour and resolution, five severities.

The images are generated here (`kinds`): figures do not compare with CIFAR-10-C's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cstar_core.evaluation.attacks.robustness import predict
from cstar_core.evaluation.batches import Completed, Ledger, OnBatch, Record, batch_slices
from cstar_core.evaluation.corruptions import kinds
from cstar_core.evaluation.corruptions.jpeg import grey_levels
from cstar_core.evaluation.statistics import Accuracy
from cstar_core.training.randomness import derive_seed

NAMED = "generated here, not CIFAR-10-C"
KINDS = tuple(kinds.KINDS)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_SIDE = 8


def corrupt(images: Tensor, kind: str, severity: int, *, seed: int, first: int = 0) -> Tensor:
    """Images (N, C, H, W), uint8 or in [0, 1], corrupted; uint8 on the same device.

    Example i draws from a generator of its own, named by `seed`, `kind` and `first` + i: neither
    batch nor severity changes what is drawn. ValueError when `kind` is unknown or not for C
    channels, when severity is not 1 to 5, or when a side is below 8 pixels.
    """
    why = unsuited(kind, images.shape[1])
    if why is not None:
        raise ValueError(f"{kind}: {why}")
    if severity not in SEVERITIES or min(images.shape[2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"need a severity from 1 to 5 and sides of at least {SMALLEST_SIDE} pixels, "
            f"got severity {severity} and {tuple(images.shape[2:])}"
        )
    pixels = grey_levels(images).permute(0, 2, 3, 1).cpu().numpy()
    corrupted = np.empty(pixels.shape, dtype=np.uint8)
    for index, image in enumerate(pixels):
        source = np.random.default_rng(derive_seed(seed, "corruption", kind, first + index))
        corrupted[index] = kinds.apply(kind, image, severity, source)
    return torch.from_numpy(corrupted).permute(0, 3, 1, 2).contiguous().to(images.device)


def unsuited(kind: str, channels: int) -> str | None:
    """Why `kind` cannot be made of images with this many channels; None where it can.

    ValueError when `kind` is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown corruption {kind!r}; use one of {', '.join(KINDS)}")
    allowed = kinds.KINDS[kind].channels
    if allowed is None or channels in allowed:
        return None
    return f"made of {' or '.join(map(str, allowed))} channels only, these images have {channels}"


@dataclass(frozen=True)
class CorruptionResult:
    """Accuracy of every kind at severities 1 to 5, and the kinds left out, each with the reason."""

    accuracies: Mapping[str, tuple[Accuracy, ...]]
    left_out: Mapping[str, str]
    seed: int

    @property
    def mean(self) -> float:
        """The mean accuracy over all kinds and severities."""
        return fmean(self.by_kind.values())

    @property
    def by_kind(self) -> dict[str, float]:
        """The mean over severities, of every kind."""
        return {name: fmean(a.value for a in row) for name, row in self.accuracies.items()}

    @property
    def by_severity(self) -> list[float]:
        """The mean over kinds, of every severity."""
        rows = zip(*self.accuracies.values(), strict=True)
        return [fmean(accuracy.value for accuracy in row) for row in rows]

    def to_json(self) -> dict[str, Any]:
        """The accuracies with their n, their means, what was left out and why, and the seed."""
        rows = self.accuracies.items()
        return {
            "n": next(iter(self.accuracies.values()))[0].n,
            "named": NAMED,
            "mean": self.mean,
            "kinds": {name: [accuracy.value for accuracy in row] for name, row in rows},
            "by_kind": self.by_kind,
            "by_severity": self.by_severity,
            "left_out": dict(self.left_out),
            "seed": self.seed,
        }


def corruption_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    batch_size: int = 256,
    kinds: Sequence[str] = KINDS,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> CorruptionResult:
    """Classify images (N, C, H, W), uint8 or in [0, 1], under every kind and severity.

    `completed` and `on_batch` work per kind and severity. Kinds that the images' channels rule out
    are left out and named. ValueError when there are no images, none of `kinds` suits them, a kind
    is unknown or a side is below 8 pixels.
    """
    reasons = {kind: unsuited(kind, images.shape[1]) for kind in kinds}
    left_out = {kind: why for kind, why in reasons.items() if why is not None}
    suited = [kind for kind in reasons if kind not in left_out]
    if not suited or not len(images):
        raise ValueError(f"need images and a kind that suits them, got {len(images)} and {kinds}")
    ledger = Ledger(len(suited) * len(SEVERITIES), completed=completed, on_batch=on_batch)
    subject = _Subject(model, images, labels, seed, batch_size)
    accuracies = {
        kind: tuple(subject.accuracy(kind, severity, ledger) for severity in SEVERITIES)
        for kind in suited
    }
    return CorruptionResult(accuracies, left_out, seed)


@dataclass(frozen=True)
class _Subject:
    """A model and its examples, to be looked at under one corruption after another."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    seed: int
    batch_size: int

    def accuracy(self, kind: str, severity: int, ledger: Ledger) -> Accuracy:
        """From the ledger, or measured."""
        run = functools.partial(self._record, kind, severity)
        correct = ledger.recall_or(f"{kind}/{severity}", run)["correct"]
        return Accuracy(sum(correct), len(correct))

    def _record(self, kind: str, severity: int) -> Record:
        correct: list[bool] = []
        for where in batch_slices(len(self.images), self.batch_size):
            seen = corrupt(self.images[where], kind, severity, seed=self.seed, first=where.start)
            predicted = predict(self.model, seen, batch_size=self.batch_size)
            correct += (predicted == self.labels[where]).tolist()
        return {"correct": correct, "flags": []}
