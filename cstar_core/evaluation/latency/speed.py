"""What latencies say of a compressed network, in words that claim no more than was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cstar_core.evaluation.latency.timing import Latency

BEFORE, AFTER = "before", "after"
# Less than this is nothing a user would notice, even where the quartiles tell it from noise.
LEAST_GAIN = 1.05

Figures = Mapping[str, Mapping[str, Latency]]  # by model, then by batch such as "batch 32"


@dataclass(frozen=True)
class RuntimeLatencies:
    """Latencies by runtime, model and batch; the runtimes left out, each with the reason.

    `threads` of every runtime, and the `seconds` that measuring was meant to take: slow networks
    are timed fewer times, each figure's `repeats` says how many.
    """

    runtimes: Mapping[str, Figures]
    skipped: Mapping[str, str]
    threads: int
    seconds: float
    device: str = "cpu"

    def to_json(
        self, *, smaller_by: float, on_device: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """All figures, and the words for a network `smaller_by` times smaller.

        `on_device`: figures from the job's own device where that is not the CPU.
        """
        return {
            "runtimes": {
                runtime: {
                    model: {batch: figure.to_json() for batch, figure in batches.items()}
                    for model, batches in figures.items()
                }
                for runtime, figures in self.runtimes.items()
            },
            "skipped": dict(self.skipped),
            "device": self.device,
            "threads": self.threads,
            "seconds": self.seconds,
            "words": words(self, smaller_by),
            "on_device": None if on_device is None else dict(on_device),
        }


@dataclass(frozen=True)
class Comparison:
    """Before and after at one batch in one runtime."""

    before: Latency
    after: Latency
    where: str

    @property
    def speed_up(self) -> float:
        """The median before as a multiple of that after."""
        return self.before.median_ms / self.after.median_ms

    @property
    def factor(self) -> float:
        """How far apart the medians are, whichever is the smaller; at least 1."""
        return max(self.speed_up, 1 / self.speed_up)

    @property
    def faster(self) -> bool:
        """By at least `LEAST_GAIN`, the interquartile ranges apart."""
        apart = self.after.upper_quartile_ms < self.before.lower_quartile_ms
        return apart and self.speed_up >= LEAST_GAIN

    @property
    def slower(self) -> bool:
        """By at least `LEAST_GAIN`, the interquartile ranges apart."""
        apart = self.before.upper_quartile_ms < self.after.lower_quartile_ms
        return apart and 1 / self.speed_up >= LEAST_GAIN


def comparisons(latencies: RuntimeLatencies) -> list[Comparison]:
    """Every batch and runtime in which both networks were timed."""
    return [
        Comparison(figures[BEFORE][batch], after, f"at {batch} in {runtime}")
        for runtime, figures in latencies.runtimes.items()
        for batch, after in figures.get(AFTER, {}).items()
        if batch in figures.get(BEFORE, {})
    ]


def words(latencies: RuntimeLatencies, smaller_by: float) -> str:
    """Such as "smaller, not faster", or "smaller and faster (1.8x at batch 1 in onnxruntime)".

    Faster and slower mean by at least 5 % in the median, the interquartile ranges apart. Of
    several batches and runtimes the extremes are named; where the network is faster in some and
    slower in others, both are said.
    """
    size = "smaller" if smaller_by > 1 else "not smaller"
    compared = comparisons(latencies)
    faster = [each for each in compared if each.faster]
    slower = [each for each in compared if each.slower]
    if not compared:
        return f"{size}, speed not measured"
    if faster and slower:
        places = f"faster in places ({_most(faster)}), slower in others ({_most(slower)})"
        return f"{size}, {places}"
    if faster:
        return f"{size} {'and' if smaller_by > 1 else 'but'} faster ({_share(faster, compared)})"
    not_faster = f"{size}, not faster"
    return f"{not_faster} ({_most(slower, ' slower')})" if slower else not_faster


def _share(faster: list[Comparison], compared: list[Comparison]) -> str:
    """The largest gain, and in how many of the timings there is none to be seen."""
    without = len(compared) - len(faster)
    some = f"; no clear difference in {without} of {len(compared)} timings"
    return _most(faster) + (some if without else "")


def _most(compared: list[Comparison], word: str = "") -> str:
    """The largest difference and where it is: "1.8x at batch 1 in torch", "up to" if of several."""
    largest = max(compared, key=lambda each: each.factor)
    several = "up to " if len(compared) > 1 else ""
    digits = 1 if largest.factor >= 1.1 else 2
    return f"{several}{largest.factor:.{digits}f}x{word} {largest.where}"
