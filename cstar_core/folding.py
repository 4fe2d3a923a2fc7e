"""A frozen copy of a network with its batch norms folded away: what attacks run on.

In eval mode, batch norm after a convolution is itself affine, so its scale and shift go into the
convolution's weight and bias (Jacob et al. 2018, section 3.2): the same function with fewer
operations, forward and backward.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cstar_core.attacks import attack_mode

# What `torch.fx` raises for control flow, len(), int() and the like on a traced tensor.
UNTRACEABLE = (fx.proxy.TraceError, RuntimeError, TypeError)


class FoldedCopy(nn.Module):
    """`source` in eval mode, batch norms folded, without parameter gradients.

    Takes and returns what `source` does, up to rounding. It does not follow `source` by itself:
    `refresh()` reads its weights again. Raises one of `UNTRACEABLE` for a network whose path
    depends on its input.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        # In a list, so that the source is not registered as a part of its copy.
        self._source = [source]
        with attack_mode(source):  # what depends on the mode is traced as it is in eval mode
            graph = copy.deepcopy(fx.symbolic_trace(source)).eval().requires_grad_(False)
        self._folded = _fold_graph(graph)
        self.network = graph
        for weight in graph.parameters():
            if weight.dim() == 4:  # convolutions run faster with the channels innermost
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.refresh()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        logits: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the current weights and statistics of the source."""
        source = self._source[0]
        live = dict(source.named_parameters(remove_duplicate=False)) | dict(
            source.named_buffers(remove_duplicate=False)
        )
        folded = {f"{name}.{leaf}" for name in self._folded for leaf in ("weight", "bias")}
        for name, tensor in (*self.network.named_parameters(), *self.network.named_buffers()):
            if name in live and name not in folded:  # constants of the graph have no live tensor
                tensor.copy_(live[name])
        for convolution, norm in self._folded.items():
            self._fold(convolution, source.get_submodule(convolution), source.get_submodule(norm))

    def _fold(self, name: str, convolution: nn.Module, norm: nn.Module) -> None:
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        target = self.network.get_submodule(name)
        target.get_parameter("weight").copy_(weight)
        target.get_parameter("bias").copy_(bias)


def attack_target(model: nn.Module) -> nn.Module:
    """What to attack in place of `model`: a folded copy, or itself if it cannot be traced."""
    try:
        return FoldedCopy(model)
    except UNTRACEABLE:
        return model


def _fold_graph(graph: fx.GraphModule) -> dict[str, str]:
    """Take foldable batch norms out of the graph: convolution name -> batch norm name."""
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    folded: dict[str, str] = {}
    for node in list(graph.graph.nodes):
        if not _is_foldable(graph, node, calls):
            continue
        convolution = node.args[0]
        module = graph.get_submodule(convolution.target)
        if getattr(module, "bias", None) is None:
            zeros = torch.zeros_like(module.get_parameter("weight")[:, 0, 0, 0])
            module.bias = nn.Parameter(zeros, requires_grad=False)
        node.replace_all_uses_with(convolution)
        graph.graph.erase_node(node)
        folded[convolution.target] = node.target
    graph.delete_all_unused_submodules()
    graph.recompile()
    return folded


def _is_foldable(graph: fx.GraphModule, node: fx.Node, calls: Counter[object]) -> bool:
    """Whether `node` is a batch norm whose only input is a convolution used for nothing else."""
    before = node.args[0] if node.op == "call_module" and node.args else None
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return False
    norm, convolution = (graph.get_submodule(str(n.target)) for n in (node, before))
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.track_running_stats
        and isinstance(convolution, nn.Conv2d)
        and calls[node.target] == calls[before.target] == 1
    )
