"""Adversarial weight perturbation: training at the worst weights nearby.

    min_w  max_{|v_l| <= gamma |w_l|}  loss(w + v)        (AWP, Wu et al. 2020, section 4)

v is one step of steepest ascent per layer, v_l = gamma |w_l| g_l / |g_l| with g the gradient of
the batch's loss at w. Only weights of more than one dimension move. Nothing is kept from step to
step, so that a resumed run needs no state of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightPerturbation:
    """Moves the weights of `model` to their worst neighbours, for one gradient at a time."""

    def __init__(self, model: nn.Module, *, gamma: float) -> None:
        self.model, self.gamma = model, gamma
        self.weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]

    @contextmanager
    def applied(self, loss: Callable[[], Tensor]) -> Iterator[None]:
        """Weights are w + v inside, and bit for bit w again at exit, also on errors.

        `loss` is evaluated once at w; batch-norm statistics do not see that. Gradients are zero
        on entry to the block.
        """
        self._set_gradients(loss)
        originals = [weight.detach().clone() for weight in self.weights]
        try:
            self._ascend()
            self.model.zero_grad(set_to_none=True)
            yield
        finally:
            _copy(originals, self.weights)

    def _set_gradients(self, loss: Callable[[], Tensor]) -> None:
        buffers = list(self.model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        self.model.zero_grad(set_to_none=True)
        # By backward(), not autograd.grad: gradients may be averaged over processes by its hooks.
        loss().backward()  # type: ignore[no-untyped-call]
        _copy(kept, buffers)

    @torch.no_grad()
    def _ascend(self) -> None:
        for weight in self.weights:
            if weight.grad is not None:
                # Divide first: the direction is at most 1 long, so that nothing overflows.
                direction = weight.grad / weight.grad.norm().clamp_min(_TINY)
                weight.add_(direction * (self.gamma * weight.norm()))


_TINY = torch.finfo(torch.float32).tiny


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor] | list[nn.Parameter]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
