"""Latency of several models side by side, in eager PyTorch on the models' device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.attacks import attack_mode
from cstar_core.training.randomness import generator


@dataclass(frozen=True)
class Latency:
    """Median and quartiles of the time of one forward pass over `repeats` passes, in ms."""

    batch_size: int
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """The timing as a report shows it."""
        return asdict(self)


def measure_latency(
    models: Mapping[str, nn.Module],
    shape: tuple[int, int, int],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    repeats: int = 30,
    warmup: int = 5,
) -> dict[str, list[Latency]]:
    """For each model, one `Latency` per batch size on random images of `shape` (C, H, W).

    The models take turns within every repeat, so that what else the machine does falls on all of
    them alike: compare the figures with each other, not with another machine's.
    """
    if repeats < 2 or warmup < 0:
        raise ValueError(f"need repeats >= 2 and warmup >= 0, got {repeats} and {warmup}")
    latencies: dict[str, list[Latency]] = {name: [] for name in models}
    for batch_size in batch_sizes:
        times = _interleaved(models, (batch_size, *shape), repeats=repeats, warmup=warmup)
        for name, seconds in times.items():
            latencies[name].append(_summary(seconds, batch_size=batch_size))
    return latencies


def _interleaved(
    models: Mapping[str, nn.Module], shape: tuple[int, ...], *, repeats: int, warmup: int
) -> dict[str, list[float]]:
    images = torch.rand(shape, generator=generator(0, "latency"))
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(warmup + repeats):
        for name, model in models.items():
            seconds = _timed(model, images)
            if repeat >= warmup:
                times[name].append(seconds)
    return times


@torch.inference_mode()
def _timed(model: nn.Module, images: Tensor) -> float:
    device = next((p.device for p in model.parameters()), images.device)
    inputs = images.to(device)
    with attack_mode(model):
        _synchronize(device)
        started = time.perf_counter()
        model(inputs)
        _synchronize(device)
        return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(seconds: list[float], *, batch_size: int) -> Latency:
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Latency(
        batch_size=batch_size,
        median_ms=1000 * median,
        lower_quartile_ms=1000 * lower,
        upper_quartile_ms=1000 * upper,
        repeats=len(seconds),
    )
