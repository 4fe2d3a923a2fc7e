"""Latency of several networks side by side: all take turns within every repeat."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cstar_core.attacks import attack_mode

# That many even where time has run out: fewer quartiles are apart by chance too often.
FEWEST_REPEATS = 5

Call = Callable[[], object]
Name = TypeVar("Name")


@dataclass(frozen=True)
class Latency:
    """Median and quartiles of the time of one forward pass over `repeats` passes, in ms."""

    batch_size: int
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float], *, batch_size: int) -> Latency:
        """From the seconds of at least two passes."""
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(batch_size, 1000 * median, 1000 * lower, 1000 * upper, len(seconds))

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

    In eager PyTorch on the models' device. Compare the figures with each other, not with another
    machine's. ValueError unless repeats >= 2 and warmup >= 0.
    """
    latencies: dict[str, list[Latency]] = {name: [] for name in models}
    for batch_size in batch_sizes:
        images = random_images(batch_size, shape)
        with eager_calls(models, images) as calls:
            times = interleaved(calls, repeats=repeats, warmup=warmup)
        for name, seconds in times.items():
            latencies[name].append(Latency.of(seconds, batch_size=batch_size))
    return latencies


def random_images(batch_size: int, shape: Sequence[int]) -> Tensor:
    """The images on which networks are timed: uniform noise (batch_size, *shape) in [0, 1]."""
    return torch.rand(batch_size, *shape, generator=torch.Generator().manual_seed(0))


def interleaved(
    calls: Mapping[Name, Call], *, repeats: int, warmup: int, seconds: float = math.inf
) -> dict[Name, list[float]]:
    """Seconds of each call in every repeat; the calls take turns within a repeat.

    What else the machine does then falls on all of them alike. Once `seconds` have passed there is
    no more warming up after the first round (half of the time is for measuring), and no repeat
    after the first `FEWEST_REPEATS`. ValueError unless repeats >= 2 and warmup >= 0.
    """
    if repeats < 2 or warmup < 0:
        raise ValueError(f"need repeats >= 2 and warmup >= 0, got {repeats} and {warmup}")
    started = time.perf_counter()
    for _ in range(warmup):
        _round(calls)
        if time.perf_counter() - started > seconds / 2:
            break
    rounds: list[dict[Name, float]] = []
    while len(rounds) < repeats:
        if len(rounds) >= FEWEST_REPEATS and time.perf_counter() - started > seconds:
            break
        rounds.append(_round(calls))
    return {name: [times[name] for times in rounds] for name in calls}


@contextmanager
def eager_calls(models: Mapping[str, nn.Module], images: Tensor) -> Iterator[dict[str, Call]]:
    """One forward pass of each model in eager PyTorch, in eval mode inside the block.

    The images are on each model's device beforehand; a call returns when the device is done.
    """
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(attack_mode(model))
        yield {name: _eager(model, images) for name, model in models.items()}


def _eager(model: nn.Module, images: Tensor) -> Call:
    device = next((p.device for p in model.parameters()), images.device)
    inputs = images.to(device)

    @torch.inference_mode()
    def forward() -> None:
        model(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return forward


def _round(calls: Mapping[Name, Call]) -> dict[Name, float]:
    return {name: _timed(call) for name, call in calls.items()}


def _timed(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
