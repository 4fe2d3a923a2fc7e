"""Batch norm (Ioffe and Szegedy 2015, algorithm 1) over the rows of all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GloballyNormalised(nn.Module):
    """`network`, whose batch norms in training mode use the statistics of all processes' rows.

    Its modules stay what they are, and so do the names of its state: they are only asked for
    another forward pass while this one runs. Gradients of the statistics flow between processes;
    what they give is the derivative of the sum of all processes' losses.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self._forwards = [(norm, partial(_forward, norm, twin_on_gpu(norm))) for norm in norms]

    def forward(self, images: Tensor) -> Tensor:
        """What `network` returns."""
        with self._synchronised():
            outputs: Tensor = self.network(images)
            return outputs

    @contextmanager
    def _synchronised(self) -> Iterator[None]:
        active = [(norm, forward) for norm, forward in self._forwards if norm.training]
        for norm, forward in active:
            norm.forward = forward  # type: ignore[method-assign]
        try:
            yield
        finally:
            for norm, _ in active:
                del norm.forward  # the class's own again


def twin_on_gpu(norm: _BatchNorm) -> nn.SyncBatchNorm:
    """torch's batch norm over processes, which runs on GPUs only, with the tensors of `norm`."""
    twin: nn.SyncBatchNorm = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return twin.train()


def _forward(norm: _BatchNorm, on_gpu: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    outputs: Tensor = on_gpu.forward(x) if x.is_cuda else _normalise(norm, x)
    return outputs


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over all but the channels of x (N, C, ...)."""
    others = [dim for dim in range(x.dim()) if dim != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    own = x.new_full((1,), x.numel() / x.shape[1])
    totals = _total(torch.cat([x.sum(others), own]))
    mean, count = totals[:-1] / totals[-1], totals[-1]
    centred = x - mean.view(shape)
    variance = _total(centred.square().sum(others)) / count
    _track(norm, mean, variance * count / (count - 1))
    scaled: Tensor = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    return scaled


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards those of a batch, as torch's batch norm does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_(variance.to(norm.running_var), share)


def _total(values: Tensor) -> Tensor:
    """The sum over processes; its gradient is the sum of all processes' gradients."""
    total: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return total


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _reduced(*gradients)


def _reduced(values: Tensor) -> Tensor:
    total = values.clone()
    dist.all_reduce(total)
    return total
