"""A network as data: `architecture.json`, format "cstar-architecture", version 1.

    {"format": "cstar-architecture", "version": 1,
     "input": {"shape": [C, H, W], "mean": [...], "std": [...]}, "num_classes": K,
     "nodes": [{"name", "op", "target", "attributes", "inputs"}, ...], "output": "name"}

`op` is "input", a class of `torch.nn` (then `target` is the path of the module, `attributes` are
the arguments of its constructor), or one of "add", "flatten", "pad", "getitem". `inputs` are names
of earlier nodes. The keys of `model.safetensors` are the paths of the modules and the names of
their tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from cstar_core.errors import InvalidModel

FORMAT = "cstar-architecture"
VERSION = 1

_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
ATTRIBUTES: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: tuple(_CONV.split()),
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.ReLU: ("inplace",),
    nn.ReLU6: ("inplace",),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Identity: (),
    nn.Dropout: ("p",),
}
"""The modules the format knows, with the constructor arguments that rebuild them."""


def describe_graph(
    network: nn.Module,
    *,
    input_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
) -> dict[str, Any]:
    """The content of `architecture.json` for `network`, which takes normalised (N, C, H, W).

    `input_shape` is (C, H, W); `mean` and `std` are per channel, for images in [0, 1].

    Raises `InvalidModel` (code `unsupported_layer`) for a network that cannot be traced or uses
    an operation the format does not know, and says which.
    """
    graph = _trace(network)
    nodes = [_node(node, network) for node in graph.nodes if node.op != "output"]
    (output,) = (node.args[0] for node in graph.nodes if node.op == "output")
    return {
        "format": FORMAT,
        "version": VERSION,
        "input": {"shape": list(input_shape), "mean": list(mean), "std": list(std)},
        "num_classes": num_classes,
        "nodes": nodes,
        "output": _name(output),
    }


def _trace(network: nn.Module) -> fx.Graph:
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # whatever the forward of an unknown network raises under tracing
        raise _unsupported(f"the network cannot be traced ({error})") from error
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        raise _unsupported("a network that does not take exactly one input")
    return graph


def _node(node: fx.Node, network: nn.Module) -> dict[str, Any]:
    if node.op == "placeholder":
        return _entry(node, "input")
    if node.op == "call_module":
        return _module(node, network.get_submodule(str(node.target)))
    describe = FUNCTIONS.get(node.target)
    if describe is None or node.op == "get_attr":
        raise _unsupported(f"{node.op} {_title(node.target)} (node {node.name!r})")
    return describe(node)


def _module(node: fx.Node, module: nn.Module) -> dict[str, Any]:
    names = ATTRIBUTES.get(type(module))
    if names is None:
        raise _unsupported(f"module {type(module).__name__} ({node.target})")
    attributes = {name: _plain(getattr(module, name)) for name in names}
    if "bias" in attributes:
        attributes["bias"] = module.bias is not None
    return _entry(
        node, type(module).__name__, node.args[0], target=str(node.target), attributes=attributes
    )


def _add(node: fx.Node) -> dict[str, Any]:
    left, right = node.args
    return _entry(node, "add", left, right)


def _flatten(node: fx.Node) -> dict[str, Any]:
    start, end = _arguments(node, start_dim=0, end_dim=-1)
    return _entry(node, "flatten", node.args[0], attributes={"start_dim": start, "end_dim": end})


def _pad(node: fx.Node) -> dict[str, Any]:
    pad, mode, value = _arguments(node, pad=None, mode="constant", value=None)
    if mode != "constant":
        raise _unsupported(f"padding of mode {mode!r} (node {node.name!r})")
    return _entry(
        node, "pad", node.args[0], attributes={"pad": _plain(pad), "value": float(value or 0)}
    )


def _getitem(node: fx.Node) -> dict[str, Any]:
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    slices = [item for item in index if isinstance(item, slice)]
    if len(slices) != len(index):
        raise _unsupported(f"indexing by anything but slices (node {node.name!r})")
    parts = [[item.start, item.stop, item.step] for item in slices]
    if not all(part is None or isinstance(part, int) for row in parts for part in row):
        raise _unsupported(f"slices that depend on the images (node {node.name!r})")
    return _entry(node, "getitem", node.args[0], attributes={"slices": parts})


FUNCTIONS: Mapping[Any, Callable[[fx.Node], dict[str, Any]]] = {
    operator.add: _add,
    torch.flatten: _flatten,
    "flatten": _flatten,
    F.pad: _pad,
    operator.getitem: _getitem,
}
"""The functions the format knows, each with what describes a call of it."""


def _entry(
    node: fx.Node,
    op: str,
    *inputs: object,
    target: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": op,
        "target": target,
        "attributes": dict(attributes or {}),
        "inputs": [_name(value) for value in inputs],
    }


def _arguments(node: fx.Node, **defaults: Any) -> list[Any]:
    """The constant arguments after the first, by position or name."""
    given = dict(zip(defaults, node.args[1:], strict=False)) | node.kwargs
    return [given.get(name, default) for name, default in defaults.items()]


def _name(value: object) -> str:
    if not isinstance(value, fx.Node):
        raise _unsupported(f"an operation on a constant ({value!r})")
    return value.name


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _title(target: object) -> str:
    return str(getattr(target, "__name__", target))


def _unsupported(what: str) -> InvalidModel:
    known = ", ".join(kind.__name__ for kind in ATTRIBUTES)
    return InvalidModel(
        f"cannot export {what}; build the network from {known}, and add, flatten, pad and slices",
        code="unsupported_layer",
    )
