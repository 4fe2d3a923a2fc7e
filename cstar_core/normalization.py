"""Per-channel normalisation inside the model, so that images stay in [0, 1] everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cstar_core.errors import InvalidModel


class NormalizedModel(nn.Module):
    """A network behind (x - mean) / std; takes images (N, C, H, W) in [0, 1].

    An attack's epsilon is then always in pixel space, whatever the statistics the network was
    trained with. `mean` and `std` hold one value per channel, in units of [0, 1] pixels; they are
    buffers of shape (1, C, 1, 1) and stay out of the state dictionary.

    Raises `InvalidModel` (code `invalid_normalization`) for values that are not finite, a standard
    deviation that is not positive, or lengths that differ.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        mean_values, std_values = _per_channel(mean), _per_channel(std)
        if mean_values.shape != std_values.shape or not bool((std_values > 0).all()):
            raise _invalid("give one mean and one positive std for every channel")
        self.register_buffer("mean", mean_values, persistent=False)
        self.register_buffer("std", std_values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def _per_channel(values: Sequence[float]) -> Tensor:
    tensor = torch.tensor([float(value) for value in values]).view(1, -1, 1, 1)
    if tensor.numel() == 0 or not bool(tensor.isfinite().all()):
        raise _invalid("every mean and std must be a finite number")
    return tensor


def _invalid(reason: str) -> InvalidModel:
    return InvalidModel(f"Normalisation: {reason}.", code="invalid_normalization")
