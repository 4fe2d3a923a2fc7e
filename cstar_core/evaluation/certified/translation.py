"""Which operation on intervals a module or function of a network is; nothing is guessed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from cstar_core.evaluation.certified.operators import (
    Convolution,
    Diagonal,
    Linear,
    Monotone,
    Operation,
    Rearrangement,
)


class Unbounded(Exception):
    """The network has an operation that no bounds are known for; the message names it."""


def _convolution(module: Any) -> Operation:
    if module.padding_mode != "zeros":
        raise Unbounded(f"Conv2d with padding mode {module.padding_mode!r}")
    return Convolution(
        weight=double(module.weight),
        bias=_bias(module),
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
    )


def _linear(module: Any) -> Operation:
    return Linear(double(module.weight), _bias(module))


def _batch_norm(module: Any) -> Operation:
    """(x - mean) / sqrt(var + eps) * weight + bias, by the running statistics."""
    if module.running_mean is None:
        raise Unbounded("BatchNorm2d without running statistics")
    scale = (double(module.running_var) + module.eps).rsqrt()
    shift = -double(module.running_mean) * scale
    if module.affine:
        weight = double(module.weight)
        scale, shift = weight * scale, weight * shift + double(module.bias)
    return Diagonal(scale[:, None, None], shift[:, None, None])


def _max_pool(module: Any) -> Operation:
    if module.return_indices:
        raise Unbounded("MaxPool2d that returns indices")
    return Monotone(module)


def _same(values: Tensor) -> Tensor:
    return values


MODULES: Mapping[type[nn.Module], Callable[[Any], Operation]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda _: Monotone(torch.relu),
    nn.ReLU6: lambda _: Monotone(partial(torch.clamp, min=0, max=6)),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: Monotone,
    nn.AdaptiveAvgPool2d: Monotone,
    nn.Flatten: Rearrangement,
    nn.Identity: lambda _: Rearrangement(_same),
    nn.Dropout: lambda _: Rearrangement(_same),
}
"""The modules with known bounds, those that the format of exported networks knows."""


def _getitem(node: fx.Node) -> Operation:
    index: Any = node.args[1]
    if not all(
        isinstance(part, slice) for part in (index if isinstance(index, tuple) else [index])
    ):
        raise Unbounded("indexing by anything but slices")
    return Rearrangement(lambda values: values[index])


def _flatten(node: fx.Node) -> Operation:
    return Rearrangement(partial(torch.flatten, **_arguments(node, "start_dim", "end_dim")))


def _pad(node: fx.Node) -> Operation:
    given = _arguments(node, "pad", "mode", "value")
    padded = partial(F.pad, **given)
    if given.get("mode", "constant") != "constant":
        return Monotone(padded)  # an entry lands in several places
    return Rearrangement(padded, partial(F.pad, pad=given["pad"]))


FUNCTIONS: Mapping[Any, Callable[[fx.Node], Operation]] = {
    operator.getitem: _getitem,
    torch.flatten: _flatten,
    "flatten": _flatten,
    F.pad: _pad,
    "contiguous": lambda _: Rearrangement(_same),
}
"""The functions and methods of one value with known bounds."""

WITH_CONSTANT: Mapping[Any, Callable[[Tensor], Operation]] = {
    operator.add: lambda c: Diagonal(torch.ones_like(c), c),
    torch.add: lambda c: Diagonal(torch.ones_like(c), c),
    operator.sub: lambda c: Diagonal(torch.ones_like(c), -c),
    operator.mul: lambda c: Diagonal(c, torch.zeros_like(c)),
    operator.truediv: lambda c: Diagonal(1 / c, torch.zeros_like(c)),
}
"""x + c, x - c, x c and x / c."""

ADDITION = (operator.add, torch.add)


def double(tensor: Tensor) -> Tensor:
    """A weight in float64 on the CPU, apart from the network's gradients."""
    return tensor.detach().cpu().double()


def _bias(module: Any) -> Tensor:
    return torch.zeros(len(module.weight)).double() if module.bias is None else double(module.bias)


def _arguments(node: fx.Node, *names: str) -> dict[str, Any]:
    """The arguments after the first, by name."""
    return dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
