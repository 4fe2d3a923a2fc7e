"""An exponential moving average of a model's weights and normalisation statistics."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Keeps `model`, a frozen copy whose every floating tensor follows a + (1 - d)(w - a).

    The decay is min(decay, (1 + t) / (10 + t)) at update t, so that early averages forget the
    initial weights; integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the current weights of `model`; called after each optimiser step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        live = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                average.lerp_(live[name], 1 - decay)
            else:
                average.copy_(live[name])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {"updates": self.updates, "model": dict(self.model.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.updates = int(state["updates"])
        self.model.load_state_dict(state["model"])
