"""Which channels of a network stand or fall together: groups of coupled channel dimensions.

A channel dimension is the channel axis of one tensor of the traced network. Batch norm, ReLU,
pooling and spatial slices hand it on; an addition couples the dimensions of its operands; a
depthwise convolution couples its input with its output; flattening spreads a channel over several
features. What is coupled is one `ChannelGroup`, and a channel of it can be taken out of every
layer at once (dependency groups, Fang et al., DepGraph, CVPR 2023, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from cstar_core.pruning.dimensions import Dimensions
from cstar_core.pruning.groups import Coupling, Member, Role
from cstar_core.pruning.nodes import (
    CHANNELWISE,
    adds,
    channel_padding,
    flattens,
    keeps_channels,
    title,
)


def coupling(network: nn.Module) -> Coupling:
    """Trace `network`, which takes images (N, C, H, W), and couple its channels.

    What pruning does not understand keeps all its channels, with the reason in its group. Raises
    what `torch.fx` raises for a network that cannot be traced.
    """
    tracing = _Tracing(network)
    for node in fx.Tracer().trace(network).nodes:
        tracing.visit(node)
    return tracing.result()


@dataclass(frozen=True)
class _Channels:
    """The channel axis of a tensor: (N, C, H, W), or (N, features) once it is `flat`."""

    dimension: int
    flat: bool = False


@dataclass(frozen=True)
class _Use:
    """A module that runs, with the dimensions it reads and makes."""

    role: Role
    inputs: int
    outputs: int
    spread: int = 1


class _Tracing:
    """Goes along the graph and knows the channels of every tensor it has understood."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._dimensions = Dimensions()
        self._channels: dict[fx.Node, _Channels] = {}
        self._uses: dict[str, _Use] = {}

    def visit(self, node: fx.Node) -> None:
        """Take in one node; its inputs have been visited."""
        known = self._known(node)
        if node.op == "output":
            self._freeze(known, "these are the logits of the classes")
        elif node.op == "call_module":
            self._visit_module(node, str(node.target))
        elif adds(node):
            self._visit_addition(node, known)
        elif len(known) == 1 and keeps_channels(node):
            self._channels[node] = known[0]
        elif len(known) == 1 and flattens(node):
            self._channels[node] = _Channels(known[0].dimension, flat=True)
        elif len(known) == 1 and channel_padding(node):
            self._visit_padding(node, known[0])
        else:
            self._freeze(known, f"pruning does not understand {title(node)}")

    def result(self) -> Coupling:
        """Return the groups with their members."""
        name = self._dimensions.group_name
        members = [
            Member(module, use.role, name(use.inputs), name(use.outputs), use.spread)
            for module, use in self._uses.items()
        ]
        return Coupling(self._dimensions.groups(), tuple(members))

    def _visit_module(self, node: fx.Node, name: str) -> None:
        module = self._network.get_submodule(name)
        known = self._known(node)
        if isinstance(module, nn.Conv2d):
            self._visit_convolution(node, module)
        elif isinstance(module, nn.Linear):
            self._visit_linear(node, module)
        elif isinstance(module, nn.BatchNorm2d):
            at = self._taken(node, module.num_features)
            self._use(node, _Use("norm", at, at))
        elif known and isinstance(module, CHANNELWISE):
            self._channels[node] = known[0]
        elif known and isinstance(module, nn.Flatten):
            self._visit_flatten(node, module, known[0])
        else:
            self._freeze(known, f"pruning does not understand {type(module).__name__} ({name})")

    def _visit_convolution(self, node: fx.Node, module: nn.Conv2d) -> None:
        inputs = self._taken(node, module.in_channels)
        if module.groups == module.in_channels == module.out_channels > 1:
            self._use(node, _Use("depthwise", inputs, inputs))
            return
        outputs = self._dimensions.new(str(node.target), module.out_channels)
        self._use(node, _Use("conv", inputs, outputs))
        if module.groups > 1:
            for dimension in (inputs, outputs):
                self._dimensions.freeze(dimension, f"{node.target} is a grouped convolution")

    def _visit_linear(self, node: fx.Node, module: nn.Linear) -> None:
        inputs = self._taken(node, module.in_features, flat=True)
        outputs = self._dimensions.new(str(node.target), module.out_features)
        spread = module.in_features // self._dimensions.size(inputs)
        self._use(node, _Use("linear", inputs, outputs, spread), flat=True)

    def _visit_flatten(self, node: fx.Node, module: nn.Flatten, given: _Channels) -> None:
        if (module.start_dim, module.end_dim) == (1, -1):
            self._channels[node] = _Channels(given.dimension, flat=True)
        else:
            self._freeze([given], f"{node.target} flattens other axes than channels and pixels")

    def _visit_addition(self, node: fx.Node, known: list[_Channels]) -> None:
        operands = [argument for argument in node.args if isinstance(argument, fx.Node)]
        sizes = {(self._dimensions.size(each.dimension), each.flat) for each in known}
        if len(operands) != len(known) or len(sizes) != 1:
            self._freeze(known, "they are added to something pruning does not understand")
            return
        dimension = known[0].dimension
        for other in known[1:]:
            dimension = self._dimensions.unite(dimension, other.dimension)
        self._channels[node] = _Channels(dimension, flat=known[0].flat)

    def _visit_padding(self, node: fx.Node, given: _Channels) -> None:
        """Channels of zeros belong to no layer, so what they are added to keeps its number."""
        reason = "a parameter-free shortcut pads these channels (option A)"
        self._freeze([given], reason)
        size = self._dimensions.size(given.dimension) + channel_padding(node)
        self._channels[node] = _Channels(self._dimensions.new(node.name, size, reason=reason))

    def _taken(self, node: fx.Node, size: int, *, flat: bool = False) -> int:
        """Return the dimension that the module of `node` takes as `size` channels or features."""
        for given in self._known(node):
            channels = self._dimensions.size(given.dimension)
            if given.flat == flat and (size % channels == 0 if flat else size == channels):
                return given.dimension
            self._freeze([given], f"{node.target} does not take them as channels")
        images = any(before.op == "placeholder" for before in node.all_input_nodes)
        reason = "these are the channels of the images" if images else "their origin is unclear"
        return self._dimensions.new(f"{node.target}.input", size, reason=reason)

    def _use(self, node: fx.Node, use: _Use, *, flat: bool = False) -> None:
        name = str(node.target)
        for earlier in [self._uses[name]] if name in self._uses else []:
            for dimension in (earlier.inputs, earlier.outputs, use.inputs, use.outputs):
                self._dimensions.freeze(dimension, f"{name} runs more than once")
        self._uses[name] = use
        self._channels[node] = _Channels(use.outputs, flat=flat)

    def _known(self, node: fx.Node) -> list[_Channels]:
        return [
            self._channels[before] for before in node.all_input_nodes if before in self._channels
        ]

    def _freeze(self, channels: list[_Channels], reason: str) -> None:
        for each in channels:
            self._dimensions.freeze(each.dimension, reason)
