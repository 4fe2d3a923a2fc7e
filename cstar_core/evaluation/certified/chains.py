"""Two linear operators in a row as one.

Bounds through a chain forget at each step that its values move together: through the factors of
a compressed layer they come out several times too wide. The product of the factors has the exact
bounds of the layer they stand for.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from cstar_core.evaluation.certified.operators import Convolution, Diagonal, Linear, Operation


def compose(first: Operation, second: Operation) -> Operation | None:
    """`second` after `first` as one operator of the same output, or None where there is none."""
    match first, second:
        case Linear(), Linear():
            bias = second.weight @ first.bias + second.bias
            return Linear(second.weight @ first.weight, bias)
        case Convolution(), Diagonal():
            return _scaled(first, second)
        case Convolution(), Convolution() if first.groups == second.groups == 1:
            return _then_pointwise(first, second) or _pointwise_then(first, second)
    return None


def _scaled(first: Convolution, second: Diagonal) -> Convolution | None:
    """A convolution, then batch norm in eval mode: one scale and shift per channel."""
    per_channel = (len(first.bias), 1, 1)
    if not second.scale.shape == second.shift.shape == per_channel:
        return None
    scale, shift = second.scale[:, 0, 0], second.shift[:, 0, 0]
    weight = scale[:, None, None, None] * first.weight
    return replace(first, weight=weight, bias=scale * first.bias + shift)


def _then_pointwise(first: Convolution, second: Convolution) -> Convolution | None:
    """Any convolution, then 1x1: channels are mixed, and a stride takes some of the places."""
    strided = any(step > 1 for step in second.stride)
    # torch knows the padding "same" for a stride of 1 alone.
    if not second.is_pointwise or second.is_padded or (strided and first.padding == "same"):
        return None
    mixing = second.weight[:, :, 0, 0]  # (O, C)
    return replace(
        first,
        weight=torch.einsum("oc,cihw->oihw", mixing, first.weight),
        bias=mixing @ first.bias + second.bias,
        stride=tuple(a * b for a, b in zip(first.stride, second.stride, strict=True)),
    )


def _pointwise_then(first: Convolution, second: Convolution) -> Convolution | None:
    """1x1, then any convolution: not with a bias before padding, which is zeros without it."""
    plain = first.is_pointwise and not first.is_padded and all(step == 1 for step in first.stride)
    if not plain or (second.is_padded and bool(first.bias.any())):
        return None
    mixing = first.weight[:, :, 0, 0]  # (C, I)
    return replace(
        second,
        weight=torch.einsum("ochw,ci->oihw", second.weight, mixing),
        bias=second.weight.sum((2, 3)) @ first.bias + second.bias,
    )
