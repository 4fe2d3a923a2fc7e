"""What a node of a traced network does to channels, as far as its arguments tell."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

CHANNELWISE = (
    nn.ReLU,
    nn.ReLU6,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    nn.Dropout,
)
"""Modules that treat every channel alike and keep their number."""


def adds(node: fx.Node) -> bool:
    """Whether `node` is an addition."""
    return node.op == "call_function" and node.target in (operator.add, torch.add)


def keeps_channels(node: fx.Node) -> bool:
    """Whether `node` slices or pads height and width alone."""
    if node.op == "call_function" and node.target is operator.getitem:
        index = node.args[1]
        every = slice(None, None, None)
        return isinstance(index, tuple) and all(part == every for part in index[:2])
    return bool(padding(node)) and not any(padding(node)[4:])


def channel_padding(node: fx.Node) -> int:
    """How many channels of zeros `node` adds to (N, C, H, W); 0 if it does nothing of the kind."""
    sizes = padding(node)
    return sum(sizes[4:]) if len(sizes) == 6 else 0


def padding(node: fx.Node) -> tuple[int, ...]:
    """The sizes that a call of `F.pad` adds, last axis first; empty for anything else."""
    if node.op != "call_function" or node.target is not F.pad:
        return ()
    sizes = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
    if not isinstance(sizes, tuple | list):
        return ()
    plain = tuple(size for size in sizes if isinstance(size, int))
    return plain if len(plain) == len(sizes) <= 6 else ()


def flattens(node: fx.Node) -> bool:
    """Whether `node` is a call that turns (N, C, H, W) into (N, C H W)."""
    called = node.target is torch.flatten or (node.op, node.target) == ("call_method", "flatten")
    arguments = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
    return called and (arguments.get("start_dim", 0), arguments.get("end_dim", -1)) == (1, -1)


def title(node: fx.Node) -> str:
    """What the node is called in messages."""
    return f"{node.op} {getattr(node.target, '__name__', node.target)}"
