"""Timing the layers of a network on this device, dense and factorised at a few ranks.

Factors of one geometry are timed once. All take turns in every round: a factor then finds its
weights as cold as in a forward pass, and what else the machine does falls on all.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn

from cstar_core.layers import Layer, eval_mode
from cstar_core.ranks.factors import (
    core_factor,
    first_factor,
    last_factor,
    nameless,
    pieces,
    rank_values,
)
from cstar_core.ranks.latency import LatencyTable, LayerTimes
from cstar_core.ranks.scope import SCOPES, why_dense
from cstar_core.ranks.timing_cache import TimingCache

ROUNDS = 9
WARMUP = 2

Forward = Callable[[], object]


def time_layers(
    network: nn.Module,
    layers: Iterable[Layer],
    *,
    cache: Path | None = None,
    rounds: int = ROUNDS,
    warmup: int = WARMUP,
) -> LatencyTable:
    """Time one image through every layer, dense and factorised, in eager mode.

    `network` is on the device to time and `layers` are its own, the first one taking the image.
    Times are medians over `rounds` after `warmup`. Factors known to this process, or to the files
    in the folder `cache`, are not timed again; what is outside the layers always is.
    """
    layers = list(layers)
    device = next(network.parameters()).device
    known = TimingCache(_environment(device), cache)
    wanted = dict.fromkeys(piece for layer in layers for piece in pieces(layer))
    missing = [piece for piece in wanted if piece not in known]
    with torch.inference_mode(), eval_mode(network):
        clock = _Clock(device, rounds=rounds, warmup=warmup)
        known.add(dict(zip(missing, map(_median, clock.times(missing)), strict=True)))
        kept = _outside(network, layers, clock)
    return LatencyTable(
        device=_environment(device),
        kept=kept,
        layers={layer.name: _layer_times(layer, known) for layer in layers},
    )


def _outside(network: nn.Module, layers: Sequence[Layer], clock: _Clock) -> int:
    """Nanoseconds of the network that its layers do not account for, not below 0.

    The difference is taken within each round, so that both sides saw the same load.
    """
    whole, *parts = clock.times([nameless(layer) for layer in layers], first=(network, layers[0]))
    rounds = zip(whole, *parts, strict=True)
    return max(0, _median([total - sum(rest) for total, *rest in rounds]))


def _layer_times(layer: Layer, known: TimingCache) -> LayerTimes:
    dense = known[nameless(layer)]
    if why_dense(layer, SCOPES[-1]):
        return LayerTimes(dense)
    out_ranks, in_ranks = rank_values(layer)
    core: tuple[tuple[int, ...], ...] = ()
    if layer.kind == "conv":
        core = _rising_both_ways(
            [[known[core_factor(layer, r_out, r_in)] for r_in in in_ranks] for r_out in out_ranks]
        )
    return LayerTimes(
        dense=dense,
        out_ranks=out_ranks,
        in_ranks=in_ranks,
        first=_rising(known[first_factor(layer, rank)] for rank in in_ranks),
        last=_rising(known[last_factor(layer, rank)] for rank in out_ranks),
        core=core,
    )


def _module(piece: Layer, device: torch.device) -> nn.Module:
    """A module of this geometry; made on the meta device, which draws no random numbers."""
    module: nn.Module
    if piece.kind == "linear":
        module = nn.Linear(piece.I, piece.O, bias=piece.bias, device="meta")
    else:
        module = nn.Conv2d(
            piece.I,
            piece.O,
            piece.kernel,
            stride=piece.stride,
            padding=piece.padding,
            dilation=piece.dilation,
            groups=piece.groups,
            bias=piece.bias,
            device="meta",
        )
    module.to_empty(device=device)
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.01)  # whatever it is, but not denormal
    return module


@dataclass(frozen=True)
class _Clock:
    """Times calls on `device`, all taking turns in every round."""

    device: torch.device
    rounds: int
    warmup: int

    def times(
        self, pieces: Sequence[Layer], *, first: tuple[nn.Module, Layer] | None = None
    ) -> list[list[int]]:
        """Nanoseconds of each of `pieces` in every round, before them those of `first`.

        `first` is a module, and the layer that says what one image is to it.
        """
        timed = [] if first is None else [first]
        timed += [(_module(piece, self.device), piece) for piece in pieces]
        forwards = [self._forward(module, layer) for module, layer in timed]
        rounds = [
            [self._timed(forward) for forward in forwards] for _ in range(self.warmup + self.rounds)
        ]
        return [list(times) for times in zip(*rounds[self.warmup :], strict=True)]

    def _forward(self, module: nn.Module, layer: Layer) -> Forward:
        """A call of `module` on what one image gives the layer as input."""
        linear = layer.kind == "linear"
        shape = (layer.input_hw[0], layer.I) if linear else (1, layer.I, *layer.input_hw)
        return partial(module, torch.ones(shape, device=self.device))

    def _timed(self, forward: Forward) -> int:
        self._synchronise()
        started = time.perf_counter_ns()
        forward()
        self._synchronise()
        return time.perf_counter_ns() - started

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _median(times: Sequence[int]) -> int:
    return int(statistics.median(times))


def _rising(times: Iterable[int]) -> tuple[int, ...]:
    """The running maximum: noise must not make more rank look cheaper."""
    return tuple(accumulate(times, max))


def _rising_both_ways(times: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    along_in = [_rising(row) for row in times]
    along_out = [_rising(column) for column in zip(*along_in, strict=True)]
    return tuple(zip(*along_out, strict=True))


def _environment(device: torch.device) -> str:
    """What the times depend on besides the geometry: device, torch version, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's model where the system tells it, else its family."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
